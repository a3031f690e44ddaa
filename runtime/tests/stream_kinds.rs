//! The streams of CRI's published validation suite, each over SPDY/3.1 and over WebSocket: commands with and without a
//! terminal, attach, and ports of a pod's own network. `stream_urls` has the URLs and the host's network.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use gantry_cri::v1;
use gantry_runtime::spdy::{Decoder, Encoder, Frame};
use ground::Ground;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;

mod ground;

/// Channels by their numbers in the WebSocket protocol, and their names in SPDY's headers.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const NAMES: [&str; 5] = ["stdin", "stdout", "stderr", "error", "resize"];

enum Wire {
    Plain(TcpStream),
    Web(Box<WebSocketStream<TcpStream>>),
}

impl Wire {
    async fn connect(url: &str, web: bool, protocol: &str) -> Wire {
        let (address, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a URL");
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        if web {
            let mut request = format!("ws://{address}/{path}").into_client_request().unwrap();
            request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
            let (socket, answer) = tokio_tungstenite::client_async(request, stream).await.expect("it upgrades");
            assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
            return Wire::Web(Box::new(socket));
        }
        let request = format!(
            "POST /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
             X-Stream-Protocol-Version: {protocol}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        // Byte by byte, so that nothing of what follows is taken.
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("an answer"));
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        Wire::Plain(stream)
    }

    async fn write(&mut self, bytes: Vec<u8>) {
        match self {
            Wire::Plain(stream) => stream.write_all(&bytes).await.unwrap(),
            Wire::Web(socket) => socket.send(Message::binary(bytes)).await.unwrap(),
        }
    }

    /// None at the end.
    async fn read(&mut self) -> Option<Vec<u8>> {
        match self {
            Wire::Plain(stream) => {
                let mut buffer = vec![0; 4096];
                let count = stream.read(&mut buffer).await.unwrap();
                buffer.truncate(count);
                (count > 0).then_some(buffer)
            }
            Wire::Web(socket) => loop {
                match socket.next().await?.unwrap() {
                    Message::Binary(bytes) => return Some(bytes.to_vec()),
                    Message::Close(_) => return None,
                    _ => {}
                }
            },
        }
    }
}

/// SPDY's frames over either wire.
struct Spdy {
    wire: Wire,
    encoder: Encoder,
    decoder: Decoder,
    next: u32,
}

impl Spdy {
    fn over(wire: Wire) -> Spdy {
        Spdy { wire, encoder: Encoder::default(), decoder: Decoder::default(), next: 1 }
    }

    async fn open<const N: usize>(&mut self, headers: [(&str, &str); N]) -> u32 {
        let stream = self.next;
        self.next += 2;
        self.send(&Frame::SynStream { stream, fin: false, unidirectional: false, headers: headers.into() }).await;
        stream
    }

    async fn send(&mut self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        self.encoder.encode(frame, &mut bytes).unwrap();
        self.wire.write(bytes.to_vec()).await;
    }

    async fn say(&mut self, stream: u32, words: &str, fin: bool) {
        self.send(&Frame::Data { stream, fin, bytes: Bytes::copy_from_slice(words.as_bytes()) }).await;
    }

    /// The next words of any stream, and whether they are its last.
    async fn hear(&mut self) -> Option<(u32, Vec<u8>, bool)> {
        loop {
            match self.decoder.next_frame().unwrap() {
                Some(Frame::Data { stream, fin, bytes }) => return Some((stream, bytes.to_vec(), fin)),
                Some(_) => {}
                None => self.decoder.feed(&self.wire.read().await?),
            }
        }
    }
}

/// A client of a process's streams.
enum Session {
    Spdy { spdy: Box<Spdy>, streams: BTreeMap<u8, u32> },
    Web(Wire),
}

struct Client {
    session: Session,
    heard: BTreeMap<u8, String>,
}

impl Client {
    async fn connect(url: &str, web: bool, channels: &[u8]) -> Client {
        let heard = BTreeMap::new();
        if web {
            let session = Session::Web(Wire::connect(url, true, "v5.channel.k8s.io").await);
            return Client { session, heard };
        }
        let mut spdy = Spdy::over(Wire::connect(url, false, "v4.channel.k8s.io").await);
        let mut streams = BTreeMap::new();
        for channel in channels {
            streams.insert(*channel, spdy.open([("streamtype", NAMES[usize::from(*channel)])]).await);
        }
        Client { session: Session::Spdy { spdy: Box::new(spdy), streams }, heard }
    }

    async fn say(&mut self, channel: u8, words: &str) {
        match &mut self.session {
            Session::Spdy { spdy, streams } => spdy.say(streams[&channel], words, false).await,
            Session::Web(wire) => wire.write([&[channel], words.as_bytes()].concat()).await,
        }
    }

    /// That was all.
    async fn close(&mut self, channel: u8) {
        match &mut self.session {
            Session::Spdy { spdy, streams } => spdy.say(streams[&channel], "", true).await,
            Session::Web(wire) => wire.write(vec![255, channel]).await,
        }
    }

    /// Hears more; false at the end.
    async fn hear(&mut self) -> bool {
        let more = match &mut self.session {
            Session::Spdy { spdy, streams } => spdy.hear().await.map(|(stream, words, _)| {
                let channel = streams.iter().find(|(_, known)| **known == stream).map_or(255, |(channel, _)| *channel);
                (channel, words)
            }),
            Session::Web(wire) => wire.read().await.map(|bytes| (bytes[0], bytes[1..].to_vec())),
        };
        let Some((channel, words)) = more else { return false };
        self.heard.entry(channel).or_default().push_str(&String::from_utf8_lossy(&words));
        true
    }

    fn heard(&self, channel: u8) -> &str {
        self.heard.get(&channel).map_or("", String::as_str)
    }

    async fn until(&mut self, channel: u8, words: &str) {
        while !self.heard(channel).contains(words) {
            assert!(self.hear().await, "it ends without {words:?}: {:?}", self.heard);
        }
    }

    /// How the process ended, as clients are told.
    async fn ended(mut self) -> (serde_json::Value, BTreeMap<u8, String>) {
        while self.hear().await {}
        let status = serde_json::from_str(self.heard(ERROR)).expect("a status");
        (status, self.heard)
    }
}

async fn url(client: &ground::Client, request: v1::ExecRequest) -> String {
    client.runtime.clone().exec(request).await.expect("a URL").into_inner().url
}

async fn attach(client: &ground::Client, container: &str, tty: bool, stdin: bool) -> String {
    let request = v1::AttachRequest { container_id: container.into(), stdin, tty, stdout: true, stderr: !tty };
    client.runtime.clone().attach(request).await.expect("a URL").into_inner().url
}

fn exec(container: &str, script: &str, tty: bool) -> v1::ExecRequest {
    let cmd = ["sh", "-c", script].map(str::to_owned).to_vec();
    v1::ExecRequest { container_id: container.into(), cmd, tty, stdin: true, stdout: true, stderr: !tty }
}

/// A sandbox of its own network with a container that has a stdin.
async fn running(
    ground: &Ground,
    client: &ground::Client,
    script: &str,
    change: impl FnOnce(&mut v1::ContainerConfig),
) -> (String, String) {
    let config = ground.plain_pod("p");
    let pod = client.run_pod(&config).await;
    let mut container = ground.plain_container("c", &["sh", "-c", script]);
    container.stdin = true;
    change(&mut container);
    let id = client.started(&pod, container, &config).await;
    (pod, id)
}

#[test]
fn a_command_has_its_streams_or_a_terminal() {
    ground::with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let (pod, container) = running(&ground, &client, "sleep 1000", |_| {}).await;
        for web in [false, true] {
            let request = exec(&container, "cat; echo gone >&2; exit 3", false);
            let mut session = Client::connect(&url(&client, request).await, web, &[ERROR, STDIN, STDOUT, STDERR]).await;
            session.say(STDIN, "some ").await;
            session.say(STDIN, "words").await;
            session.close(STDIN).await;
            let (status, heard) = session.ended().await;
            assert_eq!((heard[&STDOUT].as_str(), heard[&STDERR].as_str()), ("some words", "gone\n"), "{web}");
            assert_eq!(status["details"]["causes"][0]["message"], "3", "{web}");

            let request =
                exec(&container, "read word; stty size; echo got $word; test -t 0 && test -t 2 && echo all", true);
            let mut session = Client::connect(&url(&client, request).await, web, &[ERROR, STDIN, STDOUT, RESIZE]).await;
            session.say(RESIZE, r#"{"Width":101,"Height":31}"#).await;
            session.say(STDIN, "word\n").await;
            let (status, heard) = session.ended().await;
            assert_eq!(heard[&STDOUT], "word\r\n31 101\r\ngot word\r\nall\r\n", "{web}");
            assert_eq!(status["status"], "Success", "{web}");
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn who_is_attached_speaks_with_the_container() {
    ground::with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let listens = "while read line; do echo heard $line; done; echo end";
        for web in [false, true] {
            let (pod, id) = running(&ground, &client, listens, |_| {}).await;
            for word in ["one", "two"] {
                let channels = [ERROR, STDIN, STDOUT, STDERR];
                let mut session = Client::connect(&attach(&client, &id, false, true).await, web, &channels).await;
                session.say(STDIN, &format!("{word}\n")).await;
                session.until(STDOUT, &format!("heard {word}\n")).await;
                // Its stdin has an end for this client alone.
                session.close(STDIN).await;
            }
            assert_eq!(client.status(&id).await.state(), v1::ContainerState::ContainerRunning, "{web}");
            // The log is written by a process of its own.
            for _ in 0..1000 {
                if ground.lines("c.log").len() == 2 {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            assert_eq!(ground.lines("c.log"), ["heard one", "heard two"], "{web}");
            client.remove_pod(&pod).await;
            std::fs::remove_file(ground.dir.path().join("logs/c.log")).unwrap();

            // Once: the first client's end is the container's.
            let (pod, id) = running(&ground, &client, listens, |c| c.stdin_once = true).await;
            let mut session =
                Client::connect(&attach(&client, &id, false, true).await, web, &[ERROR, STDIN, STDOUT, STDERR]).await;
            session.say(STDIN, "last\n").await;
            session.close(STDIN).await;
            let (_, heard) = session.ended().await;
            assert_eq!(heard[&STDOUT], "heard last\nend\n", "{web}");
            assert_eq!(client.ended(&id).await.exit_code, 0, "{web}");
            client.remove_pod(&pod).await;
            std::fs::remove_file(ground.dir.path().join("logs/c.log")).unwrap();

            let terminal = "while read line; do stty size; echo heard $line; done";
            let (pod, id) = running(&ground, &client, terminal, |c| c.tty = true).await;
            let mut session =
                Client::connect(&attach(&client, &id, true, true).await, web, &[ERROR, STDIN, STDOUT, RESIZE]).await;
            session.say(RESIZE, r#"{"Width":77,"Height":21}"#).await;
            session.say(STDIN, "word\n").await;
            session.until(STDOUT, "heard word\r\n").await;
            assert!(session.heard(STDOUT).contains("21 77\r\n"), "{:?}", session.heard);
            client.remove_pod(&pod).await;
            std::fs::remove_file(ground.dir.path().join("logs/c.log")).unwrap();
        }
        ground::finish(runtime).await;
    });
}

#[test]
fn a_port_is_one_of_the_pods_own_network() {
    ground::with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let (pod, id) = running(&ground, &client, "nc -ll -p 9000 -e cat", |_| {}).await;
        // By whichever family.
        let mut tries = 0;
        while !client.said(&id, "cat /proc/net/tcp /proc/net/tcp6").await.contains(":2328 ") {
            tries += 1;
            assert!(tries < 1000, "nobody listens");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        for (web, protocol) in [(false, "portforward.k8s.io"), (true, "SPDY/3.1+portforward.k8s.io")] {
            let request = v1::PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![9000] };
            let url = client.runtime.clone().port_forward(request).await.unwrap().into_inner().url;
            let mut session = Spdy::over(Wire::connect(&url, web, protocol).await);
            for (request, port, complaint) in [("0", "9000", ""), ("1", "9001", "refused")] {
                let error = session.open([("streamtype", "error"), ("port", port), ("requestid", request)]).await;
                let data = session.open([("streamtype", "data"), ("port", port), ("requestid", request)]).await;
                session.say(data, "words", true).await;
                let (mut heard, mut open) = (BTreeMap::<u32, Vec<u8>>::new(), 2);
                while open > 0 {
                    let (stream, words, last) = session.hear().await.expect("it goes on");
                    heard.entry(stream).or_default().extend(words);
                    open -= u32::from(last);
                }
                let text = |stream: u32| String::from_utf8(heard[&stream].clone()).unwrap();
                assert_eq!(text(data), if complaint.is_empty() { "words" } else { "" }, "{protocol}");
                let complained = text(error);
                assert!(
                    complained.contains(complaint) && complained.is_empty() == complaint.is_empty(),
                    "{complained}"
                );
            }
        }
        // The host's own loopback has no such port.
        assert!(TcpStream::connect("127.0.0.1:9000").await.is_err());
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}
