//! A namespace of a cluster under test, as one user of it sees it.

use crate::cluster::{Cluster, IMAGE};
use crate::kubectl::Kubectl;

/// A container that runs until it is asked to end.
pub const STAYS: &str = "trap exit TERM; while :; do sleep 0.1; done";

/// kubectl in a namespace of its own.
pub struct Room<'a> {
    pub cluster: &'a Cluster<'a>,
    pub kubectl: Kubectl,
    pub namespace: &'static str,
}

impl<'a> Room<'a> {
    pub async fn new(cluster: &'a Cluster<'a>, namespace: &'static str) -> Room<'a> {
        Room::with(cluster, &cluster.kubectl(), namespace).await
    }

    /// The same, with another kubectl than the one on the search path.
    pub async fn with(cluster: &'a Cluster<'a>, kubectl: &Kubectl, namespace: &'static str) -> Room<'a> {
        kubectl.must(&["create", "namespace", namespace]).await;
        Room { cluster, kubectl: kubectl.clone(), namespace }
    }

    pub async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        self.kubectl.run(&[&["-n", self.namespace], arguments].concat()).await
    }

    pub async fn must(&self, line: &str) -> String {
        let arguments: Vec<&str> = line.split(' ').collect();
        self.run(&arguments).await.unwrap_or_else(|error| panic!("kubectl {line}: {error}"))
    }

    pub async fn apply(&self, manifest: &str) {
        let done = self.try_apply(manifest).await;
        done.unwrap_or_else(|error| panic!("{error}\n{manifest}"));
    }

    pub async fn try_apply(&self, manifest: &str) -> Result<String, String> {
        let arguments = ["-n", self.namespace, "apply", "-f", "-"];
        self.kubectl.with_input(&arguments, &format!("---\n{manifest}")).await
    }

    pub async fn field(&self, what: &str, path: &str) -> String {
        self.run(&["get", what, "-o", &format!("jsonpath={{{path}}}")]).await.unwrap_or_default()
    }

    pub async fn until(&self, what: &str, path: &str, wanted: &str) {
        let name = format!("{path} of {what} is {wanted}");
        self.cluster.until(&name, async || self.field(what, path).await == wanted).await;
    }

    pub async fn leave(self) {
        self.kubectl.must(&["delete", "namespace", self.namespace, "--timeout=60s"]).await;
    }
}

/// The spec of a pod that runs one shell line.
pub fn spec(line: &str, more: &str) -> String {
    format!(
        "{{terminationGracePeriodSeconds: 1, containers: [{{name: main, image: \"{IMAGE}\", \
         command: [sh, -c, {line:?}]{more}}}]}}"
    )
}
