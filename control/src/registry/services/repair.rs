//! Puts right what others have done to the cluster addresses: who may delete an IPAddress can take a Service's away, and
//! the next Service would get the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_env::chain;
use gantry_kube::resource::{IP_ADDRESS, SERVICE};
use gantry_kube::{Object, Ref};

use super::{MANAGED_BY, MANAGER, claim, owned_address};
use crate::registry::Registry;
use crate::store::cache::{Change, Event};
use crate::store::{Revision, WriteError};

/// How often all is looked at. A deleted address is made again at once.
const PERIOD: Duration = Duration::from_secs(180);

/// An IPAddress as the allocator writes them.
#[derive(Clone, Debug, PartialEq)]
struct Address {
    ip: String,
    parent: Ref,
    revision: Revision,
}

#[derive(Debug, PartialEq)]
enum Step {
    /// No Service has this address.
    Release { ip: String, revision: Revision },
    /// This Service has an address that nobody has claimed.
    Claim { ip: String, service: Ref },
}

/// Releases come first: an address that leads to the wrong Service is claimed for the right one.
fn plan(addresses: &[Address], services: &BTreeMap<Ref, String>) -> Vec<Step> {
    let holds = |address: &&Address| services.get(&address.parent) == Some(&address.ip);
    let (held, lost): (Vec<_>, Vec<_>) = addresses.iter().partition(holds);
    let mut claimed: BTreeSet<&str> = held.iter().map(|address| address.ip.as_str()).collect();
    let mut steps: Vec<Step> =
        lost.iter().map(|lost| Step::Release { ip: lost.ip.clone(), revision: lost.revision }).collect();
    for (service, ip) in services {
        if claimed.insert(ip) {
            steps.push(Step::Claim { ip: ip.clone(), service: service.clone() });
        }
    }
    steps
}

pub(super) fn parent(address: &Object) -> Ref {
    Ref::new(address.str_at("/spec/parentRef/namespace"), address.str_at("/spec/parentRef/name"))
}

impl Registry {
    /// Looks after the addresses. Runs until dropped.
    pub async fn keep_addresses(self) {
        loop {
            let (_, mut watcher) = self.cache.list_and_watch(&IP_ADDRESS, None);
            self.repair_addresses().await;
            let lost = async {
                // A watcher that fell behind looks at everything, too.
                while let Ok(event) = watcher.next().await {
                    if self.is_lost(&event) {
                        break;
                    }
                }
            };
            // Whether it was the event or the timer, all is looked at.
            let _ = tokio::time::timeout(PERIOD, lost).await;
        }
    }

    /// Whether a Service that has this address is still there after the address has gone.
    fn is_lost(&self, event: &Event) -> bool {
        let Some(gone) = event.previous.as_ref().filter(|_| event.new.is_none()) else { return false };
        let address = gone.object();
        let service = self.cache.get(&SERVICE, &parent(&address));
        service.is_some_and(|service| owned_address(&service.object()) == address.name())
    }

    async fn repair_addresses(&self) {
        // The addresses are read before the Services: both are written at once, so that each address that is read here
        // has its Service among those read after it, unless that has gone meanwhile.
        let addresses = self.cache.list(&IP_ADDRESS, None).items;
        let ours = addresses.iter().map(|stored| (stored.revision(), stored.object()));
        let addresses: Vec<Address> = ours
            .filter(|(_, object)| object.label(MANAGED_BY) == Some(MANAGER))
            .map(|(revision, object)| Address { ip: object.name().to_owned(), parent: parent(&object), revision })
            .collect();
        let services = self.cache.list(&SERVICE, None).items;
        let owned = services.iter().map(|stored| (stored.key().reference(), owned_address(&stored.object())));
        let services: BTreeMap<Ref, String> = owned.filter(|(_, ip)| !ip.is_empty()).collect();
        for step in plan(&addresses, &services) {
            tracing::warn!(?step, "a cluster address and its Service did not agree");
            match self.repair(&step).await {
                Ok(()) => {}
                // Somebody was quicker; the next look tells.
                Err(WriteError::Conflict { .. } | WriteError::Exists { .. }) => {}
                Err(error) => tracing::warn!(error = chain(&error), "a cluster address was not put right"),
            }
        }
    }

    async fn repair(&self, step: &Step) -> Result<(), WriteError> {
        let change = match step {
            Step::Release { ip, revision } => Change::delete(&IP_ADDRESS, &Ref::cluster(ip.as_str()), *revision),
            Step::Claim { ip, service } => claim(self, service, ip)?,
        };
        self.cache.write(vec![change]).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_claimed_and_what_is_left_over_released() {
        let address = |ip: &str, name: &str| Address { ip: ip.to_owned(), parent: Ref::new("n", name), revision: 7 };
        let services: BTreeMap<Ref, String> =
            [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3"), ("d", "10.0.0.3")]
                .map(|(name, ip)| (Ref::new("n", name), ip.to_owned()))
                .into();
        let found = [address("10.0.0.1", "a"), address("10.0.0.2", "a"), address("10.0.0.9", "x")];
        let release = |ip: &str| Step::Release { ip: ip.to_owned(), revision: 7 };
        let claim = |ip: &str, name: &str| Step::Claim { ip: ip.to_owned(), service: Ref::new("n", name) };
        assert_eq!(
            plan(&found, &services),
            [release("10.0.0.2"), release("10.0.0.9"), claim("10.0.0.2", "b"), claim("10.0.0.3", "c")]
        );
        let right = [address("10.0.0.1", "a"), address("10.0.0.2", "b"), address("10.0.0.3", "c")];
        assert_eq!(plan(&right, &services), [], "and then there is nothing to do");
    }
}
