//! CRI's streams as crictl has them: a URL of the runtime's own, and SPDY/3.1 there.

use bytes::{Bytes, BytesMut};
use gantry_cri::v1;
use gantry_runtime::spdy::{Decoder, Encoder, Frame, Headers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

mod ground;

const V4: &str = "v4.channel.k8s.io";

/// What the server answered to a request, and the connection behind it.
async fn ask(url: &str, upgrade: &str) -> (String, TcpStream, Vec<u8>) {
    let (address, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a URL");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!("POST /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n{upgrade}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it listens");
    let mut all = Vec::new();
    loop {
        if let Some(end) = all.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = all.split_off(end + 4);
            return (String::from_utf8(all).expect("text"), stream, rest);
        }
        assert!(stream.read_buf(&mut all).await.expect("an answer") > 0, "no answer");
    }
}

fn spdy(protocol: &str) -> String {
    format!("Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}")
}

/// A client of the smallest kind.
struct Client {
    stream: TcpStream,
    encoder: Encoder,
    decoder: Decoder,
    next: u32,
}

impl Client {
    async fn connect(url: &str, protocol: &str) -> Client {
        let (head, stream, rest) = ask(url, &spdy(protocol)).await;
        assert!(head.starts_with("HTTP/1.1 101") && head.contains(protocol), "{head}");
        let mut decoder = Decoder::default();
        decoder.feed(&rest);
        Client { stream, encoder: Encoder::default(), decoder, next: 1 }
    }

    async fn send(&mut self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        self.encoder.encode(frame, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Opens a stream, and hears that it is open.
    async fn open(&mut self, headers: impl Into<Headers>) -> u32 {
        let stream = self.next;
        self.next += 2;
        self.send(&Frame::SynStream { stream, fin: false, unidirectional: false, headers: headers.into() }).await;
        match self.next().await {
            Some(Frame::SynReply { stream: answered, .. }) if answered == stream => stream,
            other => panic!("no stream was opened: {other:?}"),
        }
    }

    async fn say(&mut self, stream: u32, words: &'static str, fin: bool) {
        self.send(&Frame::Data { stream, fin, bytes: Bytes::from_static(words.as_bytes()) }).await;
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            let mut buffer = [0; 4096];
            let count = self.stream.read(&mut buffer).await.unwrap();
            if count == 0 {
                return None;
            }
            self.decoder.feed(&buffer[..count]);
        }
    }

    /// What is said on each of these streams until all of them have ended.
    async fn hear<const N: usize>(&mut self, streams: [u32; N]) -> [String; N] {
        let (mut heard, mut open) = (streams.map(|_| Vec::new()), N);
        while open > 0 {
            let Some(frame) = self.next().await else { panic!("{open} streams never end") };
            let Frame::Data { stream, fin, bytes } = frame else { continue };
            if let Some(at) = streams.iter().position(|known| *known == stream) {
                heard[at].extend_from_slice(&bytes);
                open -= usize::from(fin);
            }
        }
        heard.map(|bytes| String::from_utf8(bytes).expect("text"))
    }
}

fn exec(container: &str, line: &str) -> v1::ExecRequest {
    let cmd = ["sh", "-c", line].map(str::to_owned).to_vec();
    let container_id = container.to_owned();
    v1::ExecRequest { container_id, cmd, stdin: true, stdout: true, stderr: true, tty: false }
}

/// A sandbox with a container that runs one shell line.
async fn running(ground: &ground::Ground, client: &ground::Client, line: &str) -> (String, String) {
    let config = ground.pod("p");
    let pod = client.run_pod(&config).await;
    let container = client.create(&pod, ground.container("c", &["sh", "-c", line]), &config).await.unwrap();
    client.start(&container).await.unwrap();
    (pod, container)
}

#[test]
fn exec_speaks_spdy_at_a_url_that_works_once() {
    ground::with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let (pod, container) = running(&ground, &client, "sleep 1000").await;
        let mut cri = client.runtime.clone();
        let url = cri.exec(exec(&container, "cat; echo gone >&2; exit 3")).await.unwrap().into_inner().url;

        // A request that is refused for its form uses nothing up.
        for (upgrade, code, words) in [
            ("Accept: */*".to_owned(), "400", "an upgrade to websocket or SPDY/3.1"),
            (spdy("v1.channel.k8s.io"), "403", V4),
            (spdy("portforward.k8s.io"), "403", V4),
            ("Upgrade: websocket\r\nSec-WebSocket-Protocol: other".to_owned(), "400", "v5.channel.k8s.io"),
        ] {
            let (head, mut stream, mut body) = ask(&url, &upgrade).await;
            stream.read_to_end(&mut body).await.unwrap();
            let body = String::from_utf8_lossy(&body).into_owned();
            assert!(head.starts_with(&format!("HTTP/1.1 {code}")) && body.contains(words), "{upgrade}: {head}{body}");
        }

        let mut session = Client::connect(&url, V4).await;
        let mut streams = [0; 4];
        for (at, kind) in ["error", "stdin", "stdout", "stderr"].into_iter().enumerate() {
            streams[at] = session.open([("streamtype", kind)]).await;
        }
        let [error, stdin, stdout, stderr] = streams;
        session.send(&Frame::Ping(77)).await;
        assert_eq!(session.next().await, Some(Frame::Ping(77)));
        session.say(stdin, "some ", false).await;
        session.say(stdin, "words", true).await;
        let [error, out, err] = session.hear([error, stdout, stderr]).await;
        assert_eq!((out.as_str(), err.as_str()), ("some words", "gone\n"));
        let status: serde_json::Value = serde_json::from_str(&error).unwrap();
        assert_eq!(
            (&status["reason"], &status["details"]["causes"][0]["message"]),
            (&"NonZeroExitCode".into(), &"3".into())
        );

        for url in [url.clone(), url.replace("/exec/", "/attach/"), format!("{}0", url)] {
            let (head, ..) = ask(&url, &spdy(V4)).await;
            assert!(head.starts_with("HTTP/1.1 404"), "{url}: {head}");
        }
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}

#[test]
fn ports_are_forwarded_over_spdy() {
    ground::with(|ground| async move {
        let (runtime, client) = ground.start().await;
        let (pod, container) = running(&ground, &client, "nc -ll -p 9000 -e cat").await;
        // The pod is on the host's network, which is the test's own.
        while TcpStream::connect("127.0.0.1:9000").await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let request = v1::PortForwardRequest { pod_sandbox_id: pod.clone(), port: Vec::new() };
        let mut cri = client.runtime.clone();
        let url = cri.port_forward(request).await.unwrap().into_inner().url;
        let mut session = Client::connect(&url, "portforward.k8s.io").await;
        for (request, port, said, complaint) in [("0", "9000", "echo", ""), ("1", "9001", "", "refused")] {
            let headers = |kind| [("streamtype", kind), ("port", port), ("requestid", request)];
            let error = session.open(headers("error")).await;
            let data = session.open(headers("data")).await;
            session.say(data, said, true).await;
            let [complained, heard] = session.hear([error, data]).await;
            assert_eq!(heard, said);
            assert!(complained.is_empty() == complaint.is_empty() && complained.contains(complaint), "{complained}");
        }
        // What makes no sense is refused by itself.
        for headers in [[("streamtype", "data"), ("port", "70000")], [("streamtype", "other"), ("port", "80")]] {
            let stream = session.next;
            session.next += 2;
            let frame = Frame::SynStream { stream, fin: false, unidirectional: false, headers: headers.into() };
            session.send(&frame).await;
            assert!(
                matches!(session.next().await, Some(Frame::RstStream { stream: refused, .. }) if refused == stream)
            );
        }
        let wrong = v1::PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![0] };
        assert_eq!(cri.port_forward(wrong).await.unwrap_err().code(), tonic::Code::InvalidArgument);
        let nowhere = v1::PortForwardRequest { pod_sandbox_id: container, port: Vec::new() };
        assert_eq!(cri.port_forward(nowhere).await.unwrap_err().code(), tonic::Code::NotFound);
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}
