//! The whole proxy over an API that a test plays: from an EndpointSlice to a connection and to a name. Needs root; plays
//! the host in a network namespace of its own. Without root it says so and passes.

#[path = "kernel/house.rs"]
#[allow(dead_code, reason = "the other test uses the rest")]
mod house;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use gantry_client::Client;
use gantry_env::Env;
use gantry_netlink::nft::Nft;
use gantry_netproxy::ruleset::TABLE;
use gantry_netproxy::{Config, Programmed, Proxy, dns};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use house::{House, POD_A, POD_B, POD_C, as_host, ask, inside};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);
const DNS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 53);
const UPSTREAM: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 1), 5301);
const SOON: Duration = Duration::from_secs(6);

type AnyBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// Events of the two kinds, in order; a revision is a length.
#[derive(Clone)]
struct Api(watch::Sender<Vec<(&'static str, Value)>>);

impl Api {
    fn new() -> Api {
        Api(watch::Sender::new(Vec::new()))
    }

    fn put(&self, kind: &'static str, object: Value) {
        self.0.send_modify(|log| {
            let mut object = object;
            object["metadata"]["resourceVersion"] = json!((log.len() + 1).to_string());
            log.push((kind, json!({"type": "MODIFIED", "object": object})));
        });
    }

    fn delete(&self, kind: &'static str, name: &str) {
        self.0.send_modify(|log| {
            let metadata = json!({"namespace": "a", "name": name, "resourceVersion": (log.len() + 1).to_string()});
            log.push((kind, json!({"type": "DELETED", "object": {"metadata": metadata}})));
        });
    }

    fn list(&self, kind: &str) -> Value {
        let log = self.0.borrow();
        let mut items = serde_json::Map::new();
        for (_, event) in log.iter().filter(|(of, _)| *of == kind) {
            let name = event["object"]["metadata"]["name"].as_str().unwrap().to_owned();
            if event["type"] == "DELETED" {
                items.remove(&name);
            } else {
                items.insert(name, event["object"].clone());
            }
        }
        let items: Vec<Value> = items.into_iter().map(|(_, object)| object).collect();
        json!({"metadata": {"resourceVersion": log.len().to_string()}, "items": items})
    }

    fn answer(&self, request: &http::Request<kube::client::Body>) -> http::Response<AnyBody> {
        let kind = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let query = request.uri().query().unwrap_or("");
        if !query.contains("watch=true") {
            let list = Full::new(Bytes::from(serde_json::to_vec(&self.list(&kind)).unwrap()));
            return http::Response::new(list.map_err(|never| match never {}).boxed_unsync());
        }
        let from = query.split('&').find_map(|part| part.strip_prefix("resourceVersion=")).unwrap();
        let state = (self.0.subscribe(), from.parse::<usize>().unwrap(), kind);
        let stream = futures::stream::unfold(state, |(mut log, mut at, kind)| async move {
            log.wait_for(|log| log.len() > at).await.ok()?;
            let mut text = String::new();
            let lines = log.borrow().clone();
            for (_, event) in lines[at..].iter().filter(|(of, _)| *of == kind) {
                text.push_str(&event.to_string());
                text.push('\n');
            }
            at = lines.len();
            Some((Ok(http_body::Frame::data(Bytes::from(text))), (log, at, kind)))
        });
        http::Response::new(StreamBody::new(stream.boxed()).boxed_unsync())
    }
}

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"namespace": "a", "name": name}, "spec": spec})
}

fn web() -> Value {
    service("web", json!({"clusterIP": VIP.to_string(), "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}))
}

fn slice(service: &str, endpoints: &[Ipv4Addr]) -> Value {
    let endpoint = |ip: &Ipv4Addr| {
        json!({"addresses": [ip.to_string()], "conditions": {"ready": true}, "nodeName": "here",
            "targetRef": {"kind": "Pod", "uid": format!("uid-{ip}")}})
    };
    json!({"metadata": {"namespace": "a", "name": format!("{service}-x"),
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>()})
}

fn config(programmed: &Programmed) -> Config {
    let mut dns = dns::Config::new("cluster.local", *DNS.ip());
    dns.upstream = dns::UpstreamConfig::Servers(vec![SocketAddr::V4(DNS), SocketAddr::V4(UPSTREAM)]);
    Config {
        node_name: "here".to_owned(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        dns: Some(dns),
        programmed: programmed.clone(),
    }
}

/// Runs the proxy in the house's host for as long as the test takes.
fn with_proxy(house: &House, api: &Api, programmed: &Programmed, test: impl FnOnce()) {
    let stop = CancellationToken::new();
    std::thread::scope(|scope| {
        let (proxy_api, proxy_stop) = (api.clone(), stop.clone());
        let proxy = scope.spawn(move || {
            inside(&house.host, || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
                        let response = proxy_api.answer(&request);
                        async move { Ok::<_, std::convert::Infallible>(response) }
                    });
                    let client = Client::new(kube::Client::new(service, "default"), "test");
                    Proxy::run(config(programmed), client, Env::system(), proxy_stop).await.unwrap();
                });
            });
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
        stop.cancel();
        proxy.join().unwrap();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

fn soon<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let tries = SOON.as_millis() / 20;
    for _ in 0..tries {
        if let Some(found) = probe() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{what}: not within {SOON:?}");
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn over_udp(query: &Message) -> std::io::Result<Message> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(house::WAIT))?;
    socket.connect(DNS)?;
    socket.send(&query.to_vec().unwrap())?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer)?;
    Ok(Message::from_vec(&buffer[..length]).unwrap())
}

fn over_tcp(query: &Message) -> std::io::Result<Message> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(DNS), house::WAIT)?;
    stream.set_read_timeout(Some(house::WAIT))?;
    let bytes = query.to_vec().unwrap();
    stream.write_all(&(bytes.len() as u16).to_be_bytes())?;
    stream.write_all(&bytes)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(Message::from_vec(&answer).unwrap())
}

fn addresses(answer: &Message) -> Vec<String> {
    answer.answers.iter().map(|record| record.data.to_string()).collect()
}

#[test]
fn a_slice_becomes_a_connection_and_a_flushed_table_heals() {
    as_host(|house| {
        let (api, programmed) = (Api::new(), Programmed::default());
        api.put("services", web());
        api.put("endpointslices", slice("web", &[POD_A]));
        let through = SocketAddrV4::new(VIP, 80);
        with_proxy(house, &api, &programmed, || {
            assert_eq!(soon("the first endpoint", || ask(through)), POD_A.to_string());
            soon("its time", || programmed.at(&format!("uid-{POD_A}")));
            api.put("endpointslices", slice("web", &[POD_B]));
            soon("the second endpoint", || ask(through).filter(|who| *who == POD_B.to_string()));
            soon("its time", || programmed.at(&format!("uid-{POD_B}")));
            Nft::open().unwrap().delete_table(TABLE).unwrap();
            assert_eq!(soon("healing", || ask(through)), POD_B.to_string());
            api.delete("endpointslices", "web-x");
            soon("refusal", || house::try_ask(through).err());
        });
        // It ended; what it made stays, and its next life goes on from there.
        api.put("endpointslices", slice("web", &[POD_C]));
        with_proxy(house, &api, &programmed, || {
            soon("the third endpoint", || ask(through).filter(|who| *who == POD_C.to_string()));
        });
        assert!(ask(through).is_some(), "services outlive the proxy");
        Proxy::cleanup(&config(&programmed)).unwrap();
        assert!(ask(through).is_none());
        assert_eq!(Nft::open().unwrap().table_comment(TABLE).unwrap(), None);
    });
}

/// Plays the resolver that the host asks: knows `example.org`, and a name with more addresses than a datagram holds.
fn upstream() {
    let socket = UdpSocket::bind(UPSTREAM).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let mut answer = Message::response(query.metadata.id, OpCode::Query);
            answer.add_queries(query.queries.clone());
            let name = query.queries[0].name.clone();
            if name.to_ascii().trim_end_matches('.') == "example.org" {
                answer.add_answer(Record::from_rdata(name, 60, RData::A(A(Ipv4Addr::new(192, 0, 2, 80)))));
            } else {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            socket.send_to(&answer.to_vec().unwrap(), peer).unwrap();
        }
    });
}

#[test]
fn names_are_answered_to_pods_and_to_the_host_over_udp_and_tcp() {
    as_host(|house| {
        upstream();
        let (api, programmed) = (Api::new(), Programmed::default());
        api.put("services", web());
        api.put("services", service("out", json!({"type": "ExternalName", "externalName": "example.org"})));
        api.put("services", service("many", json!({"clusterIP": "None", "ports": []})));
        let many: Vec<Ipv4Addr> = (1..200).map(|last| Ipv4Addr::new(10, 244, 9, last)).collect();
        api.put("endpointslices", slice("many", &many));
        with_proxy(house, &api, &programmed, || {
            let ours = question("web.a.svc.cluster.local.", RecordType::A);
            let first =
                soon("DNS", || over_udp(&ours).ok().filter(|a| a.metadata.response_code == ResponseCode::NoError));
            assert_eq!(addresses(&first), [VIP.to_string()]);
            assert!(first.metadata.authoritative && first.metadata.id == 7);
            for way in [over_udp, over_tcp] {
                let from_pod = |query: &Message| house.inside_pod(POD_A, || way(query)).unwrap();
                assert_eq!(addresses(&from_pod(&ours)), [VIP.to_string()]);
                assert_eq!(addresses(&way(&ours).unwrap()), [VIP.to_string()]);
                let absent = from_pod(&question("web.a.b.svc.cluster.local.", RecordType::A));
                assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
                let v6 = from_pod(&question("web.a.svc.cluster.local.", RecordType::AAAA));
                assert_eq!((v6.metadata.response_code, v6.answers.len()), (ResponseCode::NoError, 0));
            }
            let asked_twice =
                || house.inside_pod(POD_A, || over_udp(&question("example.org.", RecordType::A))).unwrap();
            assert_eq!(addresses(&asked_twice()), ["192.0.2.80"]);
            assert_eq!(addresses(&asked_twice()), ["192.0.2.80"]);
            let alias = over_udp(&question("out.a.svc.cluster.local.", RecordType::A)).unwrap();
            assert_eq!(addresses(&alias), ["example.org.", "192.0.2.80"]);
            let absent = over_udp(&question("no.example.org.", RecordType::A)).unwrap();
            assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
            let many = question("many.a.svc.cluster.local.", RecordType::A);
            let cut = over_udp(&many).unwrap();
            assert!(cut.metadata.truncation && !cut.answers.is_empty() && cut.to_vec().unwrap().len() <= 512);
            let whole = over_tcp(&many).unwrap();
            assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 199));
            api.delete("services", "web");
            soon("the name's end", || {
                over_udp(&ours).ok().filter(|a| a.metadata.response_code == ResponseCode::NXDomain)
            });
        });
        Proxy::cleanup(&config(&programmed)).unwrap();
    });
}
