//! Pulls through the proxy that the environment names.

use gantry_pki::{Authority, Profile, Reloading, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A proxy that leads every tunnel to `to`, and tells what it was asked in its first lines.
async fn tunnels(to: std::net::SocketAddr, answer: &'static str) -> (String, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (heads, asked) = tokio::sync::mpsc::channel(100);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let heads = heads.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.unwrap());
                }
                heads.send(String::from_utf8(head).unwrap()).await.unwrap();
                client.write_all(format!("HTTP/1.1 {answer}\r\nvia: test\r\n\r\n").as_bytes()).await.unwrap();
                let mut server = TcpStream::connect(to).await.unwrap();
                // It ends when one of them goes.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, asked)
}

async fn images(state: &Path, variables: &[(&str, String)], ca: Option<&Path>) -> Images {
    let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
    let ca_files = ca.into_iter().map(Path::to_owned).collect();
    let insecure_registries = vec!["plain.invalid:5000".to_owned()];
    let proxies = Proxies::new(find).unwrap();
    let config = Config { proxies, ca_files, insecure_registries, ..config(state) };
    Images::open(config, Env::system()).await.unwrap()
}

#[tokio::test]
async fn tls_goes_through_a_tunnel() {
    let (state, env) = (tempfile::tempdir().unwrap(), Env::system());
    let authority = Authority::create("registries", &env).unwrap();
    let ca = state.path().join("ca.pem");
    fs::write(&ca, authority.certificate_pem()).unwrap();
    let serving = authority.issue(&Profile::server("registry", ["registry.invalid"]), &env).unwrap();
    let serving = tls::server_config(&Reloading::new(&serving).unwrap(), gantry_pki::ClientAuth::None, &env.clock);
    let registry = Server::start_at([127, 0, 0, 1].into(), Some(serving.unwrap())).await;
    registry.add("a", "1", &image(&two_layers(), gzip));
    let (proxy, mut asked) = tunnels(registry.address, "200 Connection established").await;
    let variables = [("HTTPS_PROXY", format!("http://me:pw@{proxy}"))];
    let images = images(state.path(), &variables, Some(&ca)).await;
    images.pull("registry.invalid/a:1", &Auth::Anonymous, None).await.unwrap();
    let head = asked.recv().await.unwrap();
    assert!(head.starts_with("CONNECT registry.invalid:443 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("Proxy-Authorization: Basic bWU6cHc=\r\n"), "{head}");
    assert!(!registry.headers("/v2/a/manifests/1").contains_key("proxy-authorization"));
    // A proxy leads no further inward than the registry itself.
    let to = "https://169.254.169.254/latest";
    registry.put("/v2/b/manifests/1", Reply::new(307, b"").header("location", to));
    let error = images.pull("registry.invalid/b:1", &Auth::Anonymous, None).await.unwrap_err();
    assert!(matches!(error, ImageError::Registry { source: RegistryError::Inward(_), .. }), "{error:?}");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named() {
    let state = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let (proxy, _asked) = tunnels(server.address, "407 Proxy Authentication Required").await;
    let images = images(state.path(), &[("https_proxy", proxy.clone())], None).await;
    let error = images.pull("registry.invalid/a:1", &Auth::Anonymous, None).await.unwrap_err();
    let said = gantry_env::chain(&error).to_string();
    assert!(error.code() == Code::Unavailable && said.contains(&proxy) && said.contains("407"), "{said}");
}

#[tokio::test]
async fn plain_text_is_asked_of_the_proxy_itself() {
    let (state, proxy) = (tempfile::tempdir().unwrap(), Server::start().await);
    proxy.add("a", "1", &image(&two_layers(), gzip));
    let variables = [("HTTP_PROXY", format!("me:pw@{}", proxy.address)), ("NO_PROXY", "direct.invalid".into())];
    let images = images(state.path(), &variables, None).await;
    images.pull("plain.invalid:5000/a:1", &Auth::Anonymous, None).await.unwrap();
    let headers = proxy.headers("/v2/a/manifests/1");
    assert_eq!(headers["host"], "plain.invalid:5000");
    assert_eq!(headers["proxy-authorization"], "Basic bWU6cHc=");
    // What is on this machine needs no proxy.
    let own = Server::start().await;
    own.add("b", "1", &image(&two_layers(), gzip));
    images.pull(&own.reference("b:1"), &Auth::Anonymous, None).await.unwrap();
    assert!(!own.headers("/v2/b/manifests/1").contains_key("proxy-authorization"));
}
