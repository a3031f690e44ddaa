//! What the API server counts, under the names that dashboards of Kubernetes know.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    pub verb: &'static str,
    pub group: &'static str,
    pub resource: &'static str,
    pub subresource: &'static str,
    pub code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct VerbLabels {
    pub verb: &'static str,
    pub resource: &'static str,
}

/// The counters of one server; cheap to share.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<VerbLabels, Histogram>,
    pub watches: Gauge<i64, AtomicI64>,
}

const BUCKETS_SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::default();
        let requests = Family::<RequestLabels, Counter>::default();
        let durations = Family::<VerbLabels, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS_SECONDS));
        let watches = Gauge::default();
        registry.register("apiserver_request", "Requests by verb, resource and code", requests.clone());
        registry.register("apiserver_request_duration_seconds", "Time to answer, watches excepted", durations.clone());
        registry.register("apiserver_longrunning_requests", "Watches that are open", watches.clone());
        Metrics { registry, requests, durations, watches }
    }
}

impl Metrics {
    pub fn request(&self, labels: RequestLabels, took: Duration) {
        if labels.verb != "watch" {
            let of = VerbLabels { verb: labels.verb, resource: labels.resource };
            self.durations.get_or_create(&of).observe(took.as_secs_f64());
        }
        self.requests.get_or_create(&labels).inc();
    }

    /// The text exposition.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        match text::encode(&mut out, &self.registry) {
            Ok(()) => out,
            Err(std::fmt::Error) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_under_known_names() {
        let metrics = Metrics::default();
        let labels = RequestLabels { verb: "get", group: "", resource: "pods", subresource: "", code: 200 };
        metrics.request(labels, Duration::from_millis(3));
        let text = metrics.encode();
        assert!(text.contains("apiserver_request_total{"), "{text}");
        assert!(text.contains("apiserver_request_duration_seconds_bucket"));
    }
}
