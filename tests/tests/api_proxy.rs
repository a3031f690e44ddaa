//! What stands behind pods, services and nodes, asked through the API server: `kubectl get --raw`, and whatever speaks HTTP
//! through `kubectl proxy`.

use gantry_tests::cluster::{Cluster, IMAGE, NODE, with};
use gantry_tests::kubectl::Kubectl;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A web server that tells what it was asked, a port that says back headers and body as they came (the web server's scripts
/// get no body without a length), and one that switches protocols and then says everything twice.
fn manifest() -> String {
    let script = "#!/bin/sh\\necho; echo $REQUEST_METHOD $QUERY_STRING; env | grep ^HTTP_; cat";
    let serves = format!(
        "mkdir -p /w/cgi-bin /w/dir; echo page > /w/index.html; echo inner > /w/dir/index.html; \
         printf '{script}' > /w/cgi-bin/tell; chmod +x /w/cgi-bin/tell; exec httpd -f -p 8080 -h /w"
    );
    let switch = "grep -q '^.$'; \
        printf 'HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: twice\\r\\n\\r\\n'; exec cat";
    let twice = format!("echo {switch:?} > /up; exec nc -ll -p 9000 -e sh /up");
    let echo = "read -r line; printf 'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\n'; exec sed '/^0.$/q'";
    let echo = format!("echo {echo:?} > /echo; exec nc -ll -p 9001 -e sh /echo");
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: web, labels: {{app: web}}}}, spec: {{terminationGracePeriodSeconds: 0, \
         containers: [{{name: web, image: \"{IMAGE}\", command: [sh, -c, {serves:?}], ports: [{{containerPort: 8080}}], \
          readinessProbe: {{httpGet: {{port: 8080, path: /dir/}}, periodSeconds: 1}}}}, \
         {{name: twice, image: \"{IMAGE}\", command: [sh, -c, {twice:?}]}}, \
         {{name: echo, image: \"{IMAGE}\", command: [sh, -c, {echo:?}]}}]}}}}\n\
         ---\n{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {{selector: {{app: web}}, ports: \
         [{{name: http, port: 80, targetPort: 8080}}, {{name: none, port: 81, targetPort: 8081}}, \
         {{name: echo, port: 83, targetPort: 9001}}]}}}}\n"
    )
}

#[test]
fn what_stands_behind_names_is_asked_through_the_api() {
    with(async |machine| {
        let cluster = Cluster::apart(machine).await;
        cluster.apply(&manifest()).await;
        cluster.kubectl().must(&["wait", "pod/web", "--for=condition=Ready", "--timeout=60s"]).await;
        for kubectl in Kubectl::every(&machine.kubeconfig()) {
            raw(&cluster, &kubectl).await;
            proxied(&kubectl).await;
        }
        authorised(&cluster).await;
        cluster.uninstall().await;
    });
}

const ROOT: &str = "/api/v1/namespaces/default";

async fn raw(cluster: &Cluster<'_>, kubectl: &Kubectl) {
    let get = async |path: &str| kubectl.run(&["get", "--raw", path]).await;
    let slice = "http:web:http";
    cluster
        .until("the service has an endpoint", async || get(&format!("{ROOT}/services/{slice}/proxy/")).await.is_ok())
        .await;
    for name in ["pods/web", "pods/web:8080", "pods/http:web:8080", "services/web:http", "services/http:web:80"] {
        assert_eq!(get(&format!("{ROOT}/{name}/proxy/")).await.as_deref(), Ok("page\n"), "{name}");
        // To the folder's own path, and from there to what lies in it.
        assert_eq!(get(&format!("{ROOT}/{name}/proxy")).await.as_deref(), Ok("page\n"), "{name}");
        assert_eq!(get(&format!("{ROOT}/{name}/proxy/dir")).await.as_deref(), Ok("inner\n"), "{name}");
    }
    let told = get(&format!("{ROOT}/pods/web/proxy/cgi-bin/tell?a=b")).await.unwrap();
    assert!(told.starts_with("GET a=b\n") && !told.to_lowercase().contains("authorization"), "{told}");
    let posted = kubectl
        .with_input(&["create", "--raw", &format!("{ROOT}/services/web:echo/proxy/to"), "-f", "-"], "words")
        .await;
    let whole = |told: &str| told.ends_with("\r\n\r\n5\r\nwords\r\n0\r\n");
    assert!(posted.as_deref().is_ok_and(whole), "{posted:?}");
    for (path, words) in [
        ("pods/web:8081/proxy/", "error trying to reach service: pod \"web\" at "),
        ("services/web:none/proxy/", "Connection refused"),
        ("services/web:82/proxy/", "no service port 82 found for service \"web\""),
        ("services/kubernetes:https/proxy/", "no endpoints available for service \"kubernetes:https\""),
        ("pods/web:8080:x:y/proxy/", "invalid pod request"),
        ("pods/web/proxy/%2e%2e/x", "a path with \"..\" is not relayed"),
        ("pods/web/proxy/nothing", "the server could not find the requested resource"),
    ] {
        let refused = get(&format!("{ROOT}/{path}")).await.unwrap_err();
        assert!(refused.contains(words), "{path}: {refused}");
    }
    by_hand(cluster, kubectl).await;
    let node = get(&format!("/api/v1/nodes/{NODE}/proxy/healthz")).await;
    assert_eq!(node.as_deref(), Ok("ok"));
}

/// A service that selects no pods, and leads to the addresses that somebody wrote down.
async fn by_hand(cluster: &Cluster<'_>, kubectl: &Kubectl) {
    let ip = cluster.field("pod", "web", ".status.podIP").await;
    let manifest = format!(
        "---\n{{apiVersion: v1, kind: Service, metadata: {{name: outside}}, spec: {{ports: [{{port: 80}}]}}}}\n\
         ---\n{{apiVersion: v1, kind: Endpoints, metadata: {{name: outside}}, subsets: [{{addresses: [{{ip: {ip}}}], ports: \
         [{{port: 8080}}]}}]}}\n"
    );
    kubectl.with_input(&["apply", "-f", "-"], &manifest).await.unwrap();
    let address = format!("{}:80", cluster.field("service", "outside", ".spec.clusterIP").await);
    let page = async || {
        let mut stream = TcpStream::connect(&address).await?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await.map(|_| page)
    };
    cluster.until("the service leads there", async || page().await.is_ok_and(|page| page.ends_with("page\n"))).await;
    let mirrored = ["get", "endpointslices", "-l", "kubernetes.io/service-name=outside", "-o", "name"];
    assert_eq!(kubectl.must(&mirrored).await.lines().count(), 1);
    kubectl.must(&["delete", "endpoints", "outside"]).await;
    cluster.until("its slice is gone", async || kubectl.must(&mirrored).await.is_empty()).await;
    kubectl.must(&["delete", "service", "outside"]).await;
}

/// The same through `kubectl proxy`, which browsers and port forwarders of all kinds use.
async fn proxied(kubectl: &Kubectl) {
    let mut command = kubectl.command(&["proxy", "--port=0"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    let address = line.trim().rsplit(' ').next().unwrap().to_owned();
    let ask = async |head: &str, body: &str| {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let request = format!(
            "{head} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    // This server hands a body on to its script for POST alone, but where it comes in one piece with the head.
    for verb in ["PUT", "PATCH", "DELETE"] {
        let answer = ask(&format!("{verb} {ROOT}/pods/web/proxy/cgi-bin/tell"), "words").await;
        assert!(answer.contains(&format!("{verb}\n")), "{answer}");
    }
    let answer = ask(&format!("POST {ROOT}/pods/web/proxy/cgi-bin/tell"), "words").await;
    assert!(answer.contains("POST\n") && answer.contains("words"), "{answer}");
    let moved = ask(&format!("GET {ROOT}/pods/web/proxy/dir"), "").await;
    assert!(moved.contains(&format!("Location: {ROOT}/pods/web/proxy/dir/\r\n")), "{moved}");
    let whole = "x".repeat(5 << 20);
    let large = ask(&format!("POST {ROOT}/services/web:http/proxy/cgi-bin/tell"), &whole).await;
    assert!(large.matches('x').count() >= whole.len(), "a body of any size flows");
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "GET {ROOT}/pods/web:9000/proxy/ HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: twice\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reader = BufReader::new(stream);
    let (mut heard, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line).await.unwrap() > 2 {
        heard.push_str(&std::mem::take(&mut line));
    }
    assert!(heard.starts_with("HTTP/1.1 101 ") && heard.to_lowercase().contains("upgrade: twice"), "{heard}");
    reader.get_mut().write_all(b"said\n").await.unwrap();
    line.clear();
    reader.read_line(&mut line).await.unwrap();
    assert_eq!(line, "said\n");
    child.kill().await.unwrap();
}

async fn authorised(cluster: &Cluster<'_>) {
    let kubectl = cluster.kubectl();
    kubectl.must(&["create", "role", "looks", "--verb=get", "--resource=pods,services"]).await;
    kubectl.must(&["create", "rolebinding", "looks", "--role=looks", "--user=eve"]).await;
    let get = async |path: &str| kubectl.run(&["get", "--raw", path, "--as=eve"]).await;
    assert!(get(&format!("{ROOT}/pods/web")).await.is_ok());
    for path in ["pods/web/proxy/", "services/web:http/proxy/"] {
        let refused = get(&format!("{ROOT}/{path}")).await.unwrap_err();
        assert!(refused.contains("forbidden") || refused.contains("Forbidden"), "{refused}");
    }
    kubectl.must(&["create", "role", "asks", "--verb=get", "--resource=pods/proxy"]).await;
    kubectl.must(&["create", "rolebinding", "asks", "--role=asks", "--user=eve"]).await;
    assert_eq!(get(&format!("{ROOT}/pods/web/proxy/")).await.as_deref(), Ok("page\n"));
    let posted = ["create", "--raw", &format!("{ROOT}/pods/web/proxy/cgi-bin/tell"), "-f", "-", "--as=eve"];
    assert!(kubectl.with_input(&posted, "words").await.is_err());
    // A node that forges where its pod is leads nobody to the API server's own host.
    let forged = r#"{"status":{"podIP":"127.0.0.1","podIPs":[{"ip":"127.0.0.1"}]}}"#;
    let pod = "---\n{apiVersion: v1, kind: Pod, metadata: {name: forged}, spec: {schedulerName: nobody, containers: [{name: c, image: i}]}}";
    cluster.apply(pod).await;
    kubectl.must(&["patch", "pod", "forged", "--subresource=status", "--type=merge", "-p", forged]).await;
    let refused = kubectl.run(&["get", "--raw", &format!("{ROOT}/pods/forged:22/proxy/")]).await.unwrap_err();
    assert!(refused.contains("address not allowed: 127.0.0.1"), "{refused}");
}
