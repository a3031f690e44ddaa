//! Events live an hour: the store has no TTL, so this loop is one.

use std::time::Duration;

use gantry_client::{DeleteOptions, Informer, Scope};
use gantry_env::chain;
use gantry_kube::{Object, Ref, resource};
use jiff::Timestamp;
use tracing::debug;

use super::Context;
use super::time::{parse, seconds_since};

const LIFETIME_SECONDS: i64 = 3600;
const EVERY: Duration = Duration::from_secs(60);

/// What the loop keeps of an event.
struct Seen {
    at: Ref,
    uid: String,
    last: Option<Timestamp>,
}

fn project(event: Object) -> Seen {
    let times = ["/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    Seen {
        at: event.reference(),
        uid: event.uid().to_owned(),
        last: times.iter().filter_map(|p| parse(event.str_at(p))).max(),
    }
}

fn expired(seen: &Seen, now: Timestamp) -> bool {
    seen.last.is_some_and(|last| seconds_since(last, now) >= LIFETIME_SECONDS)
}

pub async fn run(context: Context) {
    let Context { client, env, stop, .. } = context;
    let client = client.named("event-expiry");
    let events =
        Informer::spawn(client.clone(), &resource::EVENT, Scope::default(), env.clone(), stop.clone(), project);
    let mut ticks = tokio::time::interval(EVERY);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let now = env.clock.now();
        for seen in events.list().iter().filter(|seen| expired(seen, now)) {
            let options = DeleteOptions { uid: Some(seen.uid.clone()), ..DeleteOptions::default() };
            if let Err(error) = client.delete(&resource::EVENT, &seen.at, &options).await {
                debug!(event = %seen.at, error = %chain(&error), "event not expired");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_last_sighting_counts() {
        let event =
            json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "lastTimestamp": "2026-01-01T00:30:00Z"});
        let seen = project(Object::from_value(event).unwrap());
        assert!(!expired(&seen, "2026-01-01T01:29:59Z".parse().unwrap()));
        assert!(expired(&seen, "2026-01-01T01:30:00Z".parse().unwrap()));
    }
}
