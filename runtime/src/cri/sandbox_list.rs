use std::collections::HashMap;

use gantry_cri::v1;

use crate::node::{Node, Pods, view};
use crate::records::SandboxRecord;

pub fn run(node: &Node, request: &v1::ListPodSandboxRequest) -> v1::ListPodSandboxResponse {
    let filter = request.filter.clone().unwrap_or_default();
    let matching = |pods: &Pods| -> Vec<SandboxRecord> {
        pods.sandboxes.values().map(|s| &s.record).filter(|r| matches(r, &filter)).cloned().collect()
    };
    let records = matching(&node.pods.lock());
    let items = records.into_iter().map(|record| {
        let state = view::sandbox_state(&record) as i32;
        let config = record.config.unwrap_or_default();
        v1::PodSandbox {
            id: record.id,
            metadata: config.metadata,
            state,
            created_at: record.created_at,
            labels: config.labels,
            annotations: config.annotations,
            runtime_handler: record.runtime_handler,
        }
    });
    v1::ListPodSandboxResponse { items: items.collect() }
}

fn matches(record: &SandboxRecord, filter: &v1::PodSandboxFilter) -> bool {
    let labels = record.config.as_ref().map(|c| &c.labels);
    record.id.starts_with(&filter.id)
        && filter.state.as_ref().is_none_or(|s| s.state == view::sandbox_state(record) as i32)
        && labels_match(labels, &filter.label_selector)
}

pub fn labels_match(labels: Option<&HashMap<String, String>>, selector: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value))
}
