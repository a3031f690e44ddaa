//! The one who asks.

use std::collections::BTreeMap;

use gantry_pki::Peer;
use serde_json::{Value, json};

pub const ANONYMOUS: &str = "system:anonymous";
pub const AUTHENTICATED_GROUP: &str = "system:authenticated";
pub const UNAUTHENTICATED_GROUP: &str = "system:unauthenticated";
pub const MASTERS_GROUP: &str = "system:masters";
pub const NODES_GROUP: &str = "system:nodes";
pub const NODE_USER_PREFIX: &str = "system:node:";
pub const SERVICE_ACCOUNT_USER_PREFIX: &str = "system:serviceaccount:";
pub const SERVICE_ACCOUNTS_GROUP: &str = "system:serviceaccounts";

/// The user that a request speaks for. It travels as a typed request extension; no header makes one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    pub user: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// An authenticated user.
    pub fn new(user: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Identity {
        let mut identity =
            Identity { user: user.into(), groups: groups.into_iter().map(Into::into).collect(), ..Identity::default() };
        identity.join(AUTHENTICATED_GROUP);
        identity
    }

    /// One of our own components in this process (`system:kube-scheduler`).
    pub fn component(user: &str) -> Identity {
        Identity::new(user, None::<String>)
    }

    pub fn anonymous() -> Identity {
        Identity { user: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED_GROUP.to_owned()], ..Identity::default() }
    }

    pub fn of_peer(peer: &Peer) -> Identity {
        let mut identity = Identity::new(peer.user.clone(), peer.groups.clone());
        identity.extra.insert(
            "authentication.kubernetes.io/credential-id".to_owned(),
            vec![format!("X509SHA256={}", peer.fingerprint)],
        );
        identity
    }

    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Identity {
        let groups = [SERVICE_ACCOUNTS_GROUP.to_owned(), format!("{SERVICE_ACCOUNTS_GROUP}:{namespace}")];
        let mut identity = Identity::new(format!("{SERVICE_ACCOUNT_USER_PREFIX}{namespace}:{name}"), groups);
        identity.uid = uid.to_owned();
        identity
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    pub(crate) fn join(&mut self, group: &str) {
        if !self.in_group(group) {
            self.groups.push(group.to_owned());
        }
    }

    pub fn is_authenticated(&self) -> bool {
        self.in_group(AUTHENTICATED_GROUP)
    }

    /// The node's name, for a node's own credential.
    pub fn node(&self) -> Option<&str> {
        let name = self.user.strip_prefix(NODE_USER_PREFIX).filter(|name| !name.is_empty())?;
        self.in_group(NODES_GROUP).then_some(name)
    }

    /// `userInfo`, as the reviews show it.
    pub fn to_value(&self) -> Value {
        let mut value = json!({"username": self.user, "groups": self.groups});
        if !self.uid.is_empty() {
            value["uid"] = json!(self.uid);
        }
        if !self.extra.is_empty() {
            value["extra"] = json!(self.extra);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_user_and_group_together() {
        assert_eq!(Identity::new("system:node:a", [NODES_GROUP]).node(), Some("a"));
        assert_eq!(Identity::new("system:node:a", ["x"]).node(), None);
        assert_eq!(Identity::new("system:node:", [NODES_GROUP]).node(), None);
        assert_eq!(Identity::new("a", [NODES_GROUP]).node(), None);
    }

    #[test]
    fn nobody_is_not_authenticated() {
        assert!(!Identity::anonymous().is_authenticated());
        assert!(!Identity::default().is_authenticated());
        assert!(Identity::service_account("a", "b", "u").in_group("system:serviceaccounts:a"));
    }
}
