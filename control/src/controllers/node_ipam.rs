//! Every node gets a range of pod addresses of its own, once and for ever.

use std::collections::{BTreeMap, BTreeSet};

use gantry_client::{ClientError, Patch};
use gantry_env::chain;
use gantry_kube::{Ref, resource};
use ipnet::IpNet;
use serde_json::json;
use tracing::{info, warn};

use super::Context;

/// The first free range of `/mask` in `cluster`; `None` when all are taken.
fn plan(cluster: IpNet, mask: u8, taken: &BTreeSet<IpNet>) -> Option<IpNet> {
    cluster.subnets(mask).ok()?.find(|range| !taken.contains(range))
}

pub async fn run(context: Context, cluster: IpNet, mask: u8) {
    context.informers.nodes.synced().await;
    let mut nodes = context.informers.nodes.subscribe();
    // Ranges given in this process that the informer may not show yet.
    let mut given: BTreeMap<String, IpNet> = BTreeMap::new();
    while let Some(changes) = context.stop.run_until_cancelled(nodes.changes()).await {
        for change in changes {
            let Some(node) = change.now.filter(|n| n.str_at("/spec/podCIDR").is_empty()) else { continue };
            if given.contains_key(node.uid()) {
                continue;
            }
            let mut taken: BTreeSet<IpNet> =
                context.informers.nodes.list().iter().filter_map(|n| n.str_at("/spec/podCIDR").parse().ok()).collect();
            taken.extend(given.values().copied());
            let Some(range) = plan(cluster, mask, &taken) else {
                warn!(node = node.name(), %cluster, "no pod range is left for the node");
                continue;
            };
            match give(&context, &node.reference(), range).await {
                Ok(()) => {
                    given.insert(node.uid().to_owned(), range);
                    info!(node = node.name(), %range, "pod range given");
                }
                Err(error) => warn!(node = node.name(), error = %chain(&error), "pod range not given"),
            }
        }
    }
}

async fn give(context: &Context, node: &Ref, range: IpNet) -> Result<(), ClientError> {
    let range = range.to_string();
    let patch = Patch::Strategic(json!({"spec": {"podCIDR": range, "podCIDRs": [range]}}));
    context.client.named("node-ipam-controller").patch(&resource::NODE, node, "", patch).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_range_is_taken() {
        let cluster: IpNet = "10.244.0.0/22".parse().unwrap();
        let range = |text: &str| text.parse::<IpNet>().unwrap();
        let mut taken = BTreeSet::from([range("10.244.0.0/24"), range("10.244.2.0/24")]);
        assert_eq!(plan(cluster, 24, &taken), Some(range("10.244.1.0/24")));
        taken.extend([range("10.244.1.0/24"), range("10.244.3.0/24")]);
        assert_eq!(plan(cluster, 24, &taken), None);
    }
}
