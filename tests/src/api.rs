//! The control service in a folder of its own, with the stock kubectl and raw HTTP to drive it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use gantry_control::auth::Identity;
use gantry_control::{Config, Control};
use gantry_env::Env;
use http::Request;
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

const KUBECTL_TIMEOUT_SECONDS: u64 = 60;

/// A running API.
pub struct Api {
    control: Control,
    folder: TempDir,
    client: kube::Client,
    loops: bool,
}

/// What a request was answered with.
#[derive(Clone, Debug)]
pub struct Answer {
    pub code: u16,
    pub body: Vec<u8>,
    pub warnings: Vec<String>,
    pub headers: http::HeaderMap,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A configuration for a service that keeps everything in `folder` and listens on a free port.
pub fn config(folder: &Path, run_controllers: bool) -> Config {
    Config {
        data_dir: folder.join("control"),
        admin_kubeconfig: folder.join("admin.kubeconfig"),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        advertise: IpAddr::V4(Ipv4Addr::LOCALHOST),
        addresses: Vec::new(),
        hostname: "localhost".to_owned(),
        service_cidr: "10.96.0.0/16".parse().unwrap_or_default(),
        pod_cidr: "10.244.0.0/16".parse().unwrap_or_default(),
        node_cidr_mask: 24,
        cluster_domain: "cluster.local".to_owned(),
        store: gantry_control::StoreConfig::Embedded,
        encryption: None,
        run_controllers,
        env: Env::system(),
    }
}

impl Api {
    pub async fn start() -> Api {
        let folder = TempDir::new().expect("a folder for the test");
        Api::start_in(folder, true).await
    }

    /// The API alone, without controllers and scheduler.
    pub async fn start_without_loops() -> Api {
        let folder = TempDir::new().expect("a folder for the test");
        Api::start_in(folder, false).await
    }

    async fn start_in(folder: TempDir, loops: bool) -> Api {
        let control = Control::start(config(folder.path(), loops)).await.expect("the control service starts");
        let client = connect(&kubeconfig(&folder), true).await;
        Api { control, folder, client, loops }
    }

    pub async fn restart(self) -> Api {
        self.control.stop().await;
        Api::start_in(self.folder, self.loops).await
    }

    pub async fn stop(self) {
        self.control.stop().await;
    }

    pub fn control(&self) -> &Control {
        &self.control
    }

    /// By which clients reach it as an administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        kubeconfig(&self.folder)
    }

    /// Writes a file beside the data and names its path.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("a file of the test");
        path.display().to_string()
    }

    /// Runs kubectl; what it prints, or what it complains of.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        self.kubectl_owned(arguments.iter().map(|a| (*a).to_owned()).collect()).await
    }

    pub async fn kubectl_owned(&self, arguments: Vec<String>) -> Result<String, String> {
        let mut command = Command::new("kubectl");
        command.args(arguments).env("KUBECONFIG", kubeconfig(&self.folder)).kill_on_drop(true);
        // Discovery is cached beside the data, not in the home of who runs the test.
        command.env("KUBECACHEDIR", self.folder.path().join("cache"));
        let run = tokio::time::timeout(std::time::Duration::from_secs(KUBECTL_TIMEOUT_SECONDS), command.output());
        let output = run.await.expect("kubectl ends in time").expect("kubectl is installed");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", "").await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.get_with(path, &[("accept", accept)]).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        answer(&self.client, request.body(Body::empty()).expect("a request")).await
    }

    /// A request over the in-process wire, as somebody else than the administrator.
    pub async fn get_by(&self, identity: Identity, path: &str) -> Answer {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        answer(&self.control.client(identity), request).await
    }

    /// Forgets all history.
    pub async fn compact(&self) {
        let store = self.control.router().server().registry.cache().store();
        store.compact(store.current().await.expect("a revision")).await.expect("a compaction");
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &body.to_string(), "application/json").await
    }

    pub async fn post_text(&self, path: &str, body: &str, content_type: &str) -> Answer {
        self.send("POST", path, body, content_type).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, &body.to_string(), "application/json").await
    }

    pub async fn delete(&self, path: &str, body: &Value) -> Answer {
        self.send("DELETE", path, &body.to_string(), "application/json").await
    }

    pub async fn send(&self, method: &str, path: &str, body: &str, content_type: &str) -> Answer {
        let headers = [("content-type", content_type)];
        let headers = if content_type.is_empty() { &[][..] } else { &headers };
        self.send_bytes(method, path, body.as_bytes().to_vec(), headers).await
    }

    /// A request with whatever body and headers.
    pub async fn send_bytes(&self, method: &str, path: &str, body: Vec<u8>, headers: &[(&str, &str)]) -> Answer {
        let request = Request::builder().method(method).uri(path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        answer(&self.client, request.body(Body::from(body)).expect("a request")).await
    }

    /// A request without credentials but for one header.
    pub async fn anonymous(&self, path: &str, header: Option<(&str, &str)>) -> Answer {
        let client = connect(&kubeconfig(&self.folder), false).await;
        let mut request = Request::get(path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        answer(&client, request.body(Body::empty()).expect("a request")).await
    }
}

fn kubeconfig(folder: &TempDir) -> PathBuf {
    folder.path().join("admin.kubeconfig")
}

async fn connect(path: &Path, with_certificate: bool) -> kube::Client {
    let config = kube::config::Kubeconfig::read_from(path).expect("the admin's kubeconfig");
    let options = kube::config::KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(config, &options).await.expect("a usable kubeconfig");
    if !with_certificate {
        config.auth_info = kube::config::AuthInfo::default();
    }
    kube::Client::try_from(config).expect("a client")
}

async fn answer(client: &kube::Client, request: Request<Body>) -> Answer {
    let response = client.send(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let warnings = parts.headers.get_all("warning").iter().filter_map(|w| w.to_str().ok().map(str::to_owned)).collect();
    let body = body.collect().await.expect("the whole answer").to_bytes().to_vec();
    Answer { code: parts.status.as_u16(), body, warnings, headers: parts.headers }
}
