//! Carries a plan out over the API, and keeps at it.

use std::collections::HashMap;
use std::time::Duration;

use gantry_client::{Client, ClientError, Query};
use gantry_env::chain;
use gantry_kube::{Object, Ref, Resource};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::objects::{Seed, kubernetes_service, seeds};
use super::plan::{Step, plan};
use super::{Cluster, Peers};

/// How often the API's own service is looked after.
const UPKEEP_PERIOD: Duration = Duration::from_secs(10);
/// Between two attempts of a start that the API refuses.
const RETRY_PERIOD: Duration = Duration::from_millis(200);
const START_ATTEMPTS_MAX: u32 = 50;
/// How long an end waits for the API server's own lease to go.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// Makes the cluster's own objects be there. `client` acts in `system:masters`: no role exists before this.
pub async fn seed(client: &Client, cluster: &Cluster) -> Result<(), ClientError> {
    let all = seeds(cluster);
    let mut attempt = 0;
    loop {
        match settle(client, &all).await {
            Ok(()) => return Ok(()),
            Err(error) if attempt < START_ATTEMPTS_MAX && is_passing(&error) => {
                tracing::debug!(error = %chain(&error), "the cluster's own objects are not settled yet");
                attempt += 1;
                // A back-off before the next look, not a wait for anything in particular.
                tokio::time::sleep(RETRY_PERIOD).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Keeps `default/kubernetes` and its endpoints as they should be until told to stop; with `peers`, for all API servers.
pub async fn keep(client: &Client, cluster: &Cluster, mut peers: Option<Peers>, stop: &CancellationToken) {
    let mut timer = tokio::time::interval(UPKEEP_PERIOD);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            // Cancel-safe: a token only remembers that it was cancelled.
            () = stop.cancelled() => break,
            // Cancel-safe: a tick that is not taken stays due.
            _ = timer.tick() => {}
        }
        if let Err(error) = keep_once(client, cluster, peers.as_mut()).await {
            tracing::warn!(error = %chain(&error), "cannot keep the API's own service");
        }
    }
    let Some(peers) = peers else { return };
    if let Ok(Err(error)) = timeout(LEAVE_WITHIN, peers.leave(client)).await {
        tracing::debug!(error = %chain(&error), "the API server's own lease is left behind");
    }
}

async fn keep_once(client: &Client, cluster: &Cluster, peers: Option<&mut Peers>) -> Result<(), ClientError> {
    let (addresses, port) = match peers {
        Some(peers) => peers.turn(client).await?,
        None => (vec![cluster.advertise], cluster.port),
    };
    settle(client, &kubernetes_service(cluster, &addresses, port)).await
}

async fn settle(client: &Client, seeds: &[Seed]) -> Result<(), ClientError> {
    let mut observed: HashMap<(&'static str, Ref), Object> = HashMap::new();
    let mut listed: Vec<&'static Resource> = Vec::new();
    for seed in seeds {
        if listed.contains(&seed.resource) {
            continue;
        }
        listed.push(seed.resource);
        // Few of the namespaced ones are ours, and there may be very many of them: those are read one by one.
        if seed.resource.namespaced {
            for one in seeds.iter().filter(|s| s.resource == seed.resource) {
                let at = one.object.reference();
                if let Some(object) = client.find(seed.resource, &at).await? {
                    observed.insert((seed.resource.plural, at), object);
                }
            }
        } else {
            for object in client.list(seed.resource, None, &Query::default()).await?.items {
                observed.insert((seed.resource.plural, object.reference()), object);
            }
        }
    }
    for step in plan(seeds, |resource, at| observed.get(&(resource.plural, at.clone()))) {
        match step {
            Step::Create { resource, object } => client.create(resource, &object).await.map(drop)?,
            Step::Update { resource, object } => client.update(resource, &object).await.map(drop)?,
        }
    }
    Ok(())
}

/// Whether a later look may succeed: the API is still starting, or a controller of its own was quicker.
fn is_passing(error: &ClientError) -> bool {
    error.retryable() || error.is_already_exists() || error.is_not_found()
}
