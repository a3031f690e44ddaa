//! What reaches a node's kubelet and what comes back: a node that answers an upgrade with anything but 101 gets no raw
//! byte of the client's, a redirect is not followed, and a node is who its certificate says (CVE-2018-1002105,
//! CVE-2022-3172).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use gantry_client::Client;
use gantry_control::auth::Identity;
use gantry_control::{Config, Control};
use gantry_env::Env;
use gantry_kube::{Object, Ref, resource};
use gantry_pki::{ClientAuth, Profile, Reloading, tls};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

const UPGRADED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// The API with one node, whose kubelet answers every request with one text, and one pod on it.
struct House {
    control: Control,
    /// What the kubelet was sent, head and all.
    heard: Arc<Mutex<String>>,
    _folder: tempfile::TempDir,
}

impl House {
    async fn new(serving_name: &str, answer: &'static str) -> House {
        let folder = tempfile::TempDir::new().unwrap();
        let env = Env::system();
        let config = Config {
            data_dir: folder.path().join("control"),
            admin_kubeconfig: folder.path().join("admin.kubeconfig"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertise: IpAddr::V4(Ipv4Addr::LOCALHOST),
            addresses: Vec::new(),
            hostname: "localhost".to_owned(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            pod_cidr: "10.244.0.0/16".parse().unwrap(),
            node_cidr_mask: 24,
            cluster_domain: "cluster.local".to_owned(),
            store: gantry_control::StoreConfig::Embedded,
            encryption: None,
            run_controllers: false,
            env: env.clone(),
        };
        let control = Control::start(config).await.unwrap();
        let heard = Arc::new(Mutex::new(String::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let credentials = control.credentials();
        let serving = credentials.authority.issue(&Profile::server("n", [serving_name]), &env).unwrap();
        let required = ClientAuth::Required { ca_pem: credentials.ca_pem() };
        let mut server = tls::server_config(&Reloading::new(&serving).unwrap(), required, &env.clock).unwrap();
        server.alpn_protocols.clear();
        tokio::spawn(kubelet(listener, TlsAcceptor::from(Arc::new(server)), answer, heard.clone()));
        furnish(&control, port).await;
        House { control, heard, _folder: folder }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let credentials = self.control.credentials();
        let admin = Reloading::new(&credentials.admin).unwrap();
        let clock = Env::system().clock;
        let mut config = tls::client_config(credentials.ca_pem(), Some(&admin), &clock).unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(self.control.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// Sends a request and reads until `end` or the end of the connection.
    async fn ask(&self, request: &str, end: &str) -> (String, TlsStream<TcpStream>) {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&all).contains(end) {
            match stream.read(&mut buffer).await {
                Ok(count) if count > 0 => all.extend_from_slice(&buffer[..count]),
                _ => break,
            }
        }
        (String::from_utf8_lossy(&all).into_owned(), stream)
    }
}

async fn kubelet(listener: TcpListener, tls: TlsAcceptor, answer: &'static str, heard: Arc<Mutex<String>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(mut stream) = tls.accept(stream).await else { continue };
        let heard = heard.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            let mut answered = false;
            while let Ok(count) = stream.read(&mut buffer).await {
                if count == 0 {
                    break;
                }
                let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                heard.lock().push_str(&text);
                // The first thing heard is a request; what follows an upgrade is sent back.
                let reply = if answered { text } else { answer.to_owned() };
                answered = true;
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
        });
    }
}

async fn furnish(control: &Control, port: u16) {
    let client = Client::new(control.client(Identity::new("admin", ["system:masters"])), "test");
    let object = |value| Object::from_value(value).unwrap();
    let node = object(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}}));
    client.create(&resource::NODE, &node).await.unwrap();
    let account = object(json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": "default"}}));
    client.create(&resource::SERVICE_ACCOUNT, &account).await.unwrap();
    let pod = object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}}));
    client.create(&resource::POD, &pod).await.unwrap();
    assert_eq!(client.get(&resource::POD, &Ref::new("default", "p")).await.unwrap().str_at("/spec/nodeName"), "n");
}

fn exec_request() -> String {
    "POST /api/v1/namespaces/default/pods/p/exec?command=ls&command=-l&stdin=true&stdout=true&tty=false HTTP/1.1\r\n\
     Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer secret\r\n\r\n"
        .to_owned()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_flow_both_ways_after_101() {
    let house = House::new("n", UPGRADED).await;
    let (head, mut stream) = house.ask(&exec_request(), "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
    let heard = house.heard.lock().clone();
    assert!(heard.starts_with("POST /exec/default/p/c?command=ls&command=-l&input=1&output=1 HTTP/1.1"), "{heard}");
    assert!(!heard.to_lowercase().contains("authorization"), "{heard}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_relayed_before_101() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:1/evil\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\nnope",
    ] {
        let house = House::new("n", answer).await;
        let smuggled = format!("{}GET /pods HTTP/1.1\r\nHost: n\r\n\r\n", exec_request());
        let (head, _) = house.ask(&smuggled, "\"code\"").await;
        assert!(!head.starts_with("HTTP/1.1 101") && !head.starts_with("HTTP/1.1 3"), "{answer}: {head}");
        let heard = house.heard.lock().clone();
        assert_eq!(heard.matches("HTTP/1.1").count(), 1, "{answer}: {heard}");
    }
}

/// A client that was refused over WebSocket asks once more over SPDY, and what it then hears is all that its user sees.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_says_itself_why_it_refuses_a_stream() {
    let spdy = exec_request().replace("websocket", "SPDY/3.1");
    for (answer, words) in [
        ("HTTP/1.1 400 Bad Request\r\nContent-Length: 18\r\n\r\nc is not running!!", "c is not running!!"),
        ("HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nhuh?", "huh?"),
    ] {
        let house = House::new("n", answer).await;
        let (head, _) = house.ask(&spdy, "\"code\"").await;
        assert!(head.starts_with("HTTP/1.1 4") || head.starts_with("HTTP/1.1 5"), "{head}");
        assert!(head.contains(words), "{head}");
    }
    let house =
        House::new("n", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n").await;
    let (head, _) = house.ask(&spdy, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let nowhere = spdy.replace("command=ls&", "container=x&command=ls&");
    let (head, _) = house.ask(&nowhere, "\"code\"").await;
    assert!(head.contains("container x is not valid for pod p"), "{head}");
}

/// Behind an upgrade a kubelet runs commands: who may only look at a node's paths gets none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_to_a_node_is_more_than_a_look() {
    let house = House::new("n", UPGRADED).await;
    let client = Client::new(house.control.client(Identity::new("admin", ["system:masters"])), "test");
    let object = |value| Object::from_value(value).unwrap();
    let named = json!({"name": "looks"});
    let rules = json!([{"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]}]);
    let role =
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": named, "rules": rules});
    client.create(&resource::CLUSTER_ROLE, &object(role)).await.unwrap();
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": named,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "looks"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}]});
    client.create(&resource::CLUSTER_ROLE_BINDING, &object(binding)).await.unwrap();
    let upgrade = |user: &str| {
        format!(
            "GET /api/v1/nodes/n/proxy/exec/a/b/c?command=ls HTTP/1.1\r\nHost: localhost\r\nImpersonate-User: {user}\r\n\
             Impersonate-Group: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            if user == "eve" { "some" } else { "system:masters" }
        )
    };
    let (refused, _) = house.ask(&upgrade("eve"), "\"code\"").await;
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    assert_eq!(house.heard.lock().as_str(), "");
    let (switched, _) = house.ask(&upgrade("root"), "\r\n\r\n").await;
    assert!(switched.starts_with("HTTP/1.1 101"), "{switched}");
    assert!(!house.heard.lock().to_lowercase().contains("impersonate"));
}

/// Attach and port-forward go the same way as exec, each to its own path.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_stream_has_its_place_at_the_node() {
    let pod = "/api/v1/namespaces/default/pods/p";
    for (asked, heard) in [
        ("attach?stdin=true&stdout=true", "POST /attach/default/p/c?input=1&output=1 "),
        ("portforward", "POST /portForward/default/p? "),
    ] {
        let house = House::new("n", UPGRADED).await;
        let request = format!(
            "POST {pod}/{asked} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
             X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
        );
        let (head, _) = house.ask(&request, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let sent = house.heard.lock().clone();
        assert!(sent.starts_with(heard) && sent.contains("v4.channel.k8s.io"), "{sent}");
    }
    let house = House::new("n", UPGRADED).await;
    let (head, _) = house.ask(&get(&format!("{pod}/attach?stdout=true")), "\"code\"").await;
    assert!(head.starts_with("HTTP/1.1 400") && head.contains("Upgrade request required"), "{head}");
    let (head, _) = house.ask(&get(&format!("{pod}/portforward?ports=80")), "\"code\"").await;
    assert!(head.starts_with("HTTP/1.1 400") && head.contains("ports"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_who_its_certificate_says() {
    let house = House::new("another", UPGRADED).await;
    let (head, _) = house.ask(&exec_request(), "\"code\"").await;
    assert!(head.starts_with("HTTP/1.1 502"), "{head}");
    assert_eq!(house.heard.lock().as_str(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_and_proxied_paths_come_through() {
    let house = House::new("n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    let (log, _) = house.ask(&get("/api/v1/namespaces/default/pods/p/log?tailLines=5"), "hello").await;
    assert!(log.starts_with("HTTP/1.1 200") && log.contains("text/plain"), "{log}");
    assert!(house.heard.lock().starts_with("GET /containerLogs/default/p/c?tailLines=5 "));
    house.heard.lock().clear();
    let (proxied, _) = house.ask(&get("/api/v1/nodes/n/proxy/debug/gantry/trace/u-1"), "hello").await;
    assert!(proxied.starts_with("HTTP/1.1 200"), "{proxied}");
    let heard = house.heard.lock().clone();
    assert!(heard.starts_with("GET /debug/gantry/trace/u-1 HTTP/1.1"), "{heard}");
}
