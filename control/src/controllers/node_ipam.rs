//! Every node gets a range of pod addresses of its own, once and for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_client::{ClientError, Patch};
use gantry_env::chain;
use gantry_kube::{Object, resource};
use ipnet::IpNet;
use serde_json::json;
use tracing::{info, warn};

use super::Context;

/// The first free range of `/mask` in `cluster`; `None` when all are taken.
fn plan(cluster: IpNet, mask: u8, taken: &BTreeSet<IpNet>) -> Option<IpNet> {
    cluster.subnets(mask).ok()?.find(|range| !taken.contains(range))
}

/// A range that could not be given is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

pub async fn run(context: Context, cluster: IpNet, mask: u8) {
    context.informers.nodes.synced().await;
    let mut changes = context.informers.nodes.subscribe();
    // Ranges given in this process that the informer may not show yet, by the node's uid.
    let mut given: BTreeMap<String, IpNet> = BTreeMap::new();
    let mut retry = false;
    loop {
        tokio::select! {
            biased;
            // Every arm waits on a timer or a mailbox and takes nothing before it returns.
            () = context.stop.cancelled() => return,
            _ = changes.changes() => {}
            () = tokio::time::sleep(RETRY), if retry => {}
        }
        retry = !give_all(&context, cluster, mask, &mut given).await;
    }
}

/// Every node without a range gets one: a node that went may have left its own to one that was refused. False where a
/// range could not be written.
async fn give_all(context: &Context, cluster: IpNet, mask: u8, given: &mut BTreeMap<String, IpNet>) -> bool {
    let nodes = context.informers.nodes.list();
    given.retain(|uid, _| nodes.iter().any(|node| node.uid() == uid && lacks_range(node)));
    let mut all_written = true;
    for node in nodes.iter().filter(|node| lacks_range(node)) {
        if given.contains_key(node.uid()) {
            continue;
        }
        let mut taken: BTreeSet<IpNet> = nodes.iter().filter_map(|n| n.str_at("/spec/podCIDR").parse().ok()).collect();
        taken.extend(given.values().copied());
        let Some(range) = plan(cluster, mask, &taken) else {
            warn!(node = node.name(), %cluster, "no pod range is left for the node");
            continue;
        };
        match give(context, node, range).await {
            Ok(()) => {
                given.insert(node.uid().to_owned(), range);
                info!(node = node.name(), %range, "pod range given");
            }
            Err(error) => {
                warn!(node = node.name(), error = %chain(&error), "pod range not given");
                all_written = false;
            }
        }
    }
    all_written
}

fn lacks_range(node: &Object) -> bool {
    node.str_at("/spec/podCIDR").is_empty()
}

async fn give(context: &Context, node: &Object, range: IpNet) -> Result<(), ClientError> {
    let range = range.to_string();
    let metadata = json!({"uid": node.uid()});
    let patch = Patch::Strategic(json!({"metadata": metadata, "spec": {"podCIDR": range, "podCIDRs": [range]}}));
    context.client.named("node-ipam-controller").patch(&resource::NODE, &node.reference(), "", patch).await.map(|_| ())
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
