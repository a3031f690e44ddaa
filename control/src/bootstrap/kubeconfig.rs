//! The file by which kubectl finds the cluster.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_pki::Credential;

/// A kubeconfig with everything inside it, so that it can be copied to another machine as it is.
pub fn kubeconfig(server: &str, ca_pem: &str, user: &str, credential: &Credential) -> String {
    let ca = STANDARD.encode(ca_pem);
    let certificate = STANDARD.encode(&credential.certificate_pem);
    let key = STANDARD.encode(&credential.key_pem);
    format!(
        "\
apiVersion: v1
kind: Config
clusters:
- name: gantry
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: {user}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: {user}@gantry
  context:
    cluster: gantry
    user: {user}
current-context: {user}@gantry
"
    )
}
