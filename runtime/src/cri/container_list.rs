use gantry_cri::v1;

use super::sandbox_list::labels_match;
use crate::node::{Node, view};
use crate::records::ContainerRecord;

pub fn run(node: &Node, request: &v1::ListContainersRequest) -> v1::ListContainersResponse {
    let filter = request.filter.clone().unwrap_or_default();
    let records: Vec<ContainerRecord> = node.pods.lock().containers.values().map(|c| c.record.clone()).collect();
    let matching = records.iter().filter(|r| matches(r, &filter));
    v1::ListContainersResponse { containers: matching.map(|r| node.list_container(r)).collect() }
}

fn matches(record: &ContainerRecord, filter: &v1::ContainerFilter) -> bool {
    record.id.starts_with(&filter.id)
        && record.sandbox.starts_with(&filter.pod_sandbox_id)
        && filter.state.as_ref().is_none_or(|s| s.state == view::container_state(record) as i32)
        && labels_match(record.config.as_ref().map(|c| &c.labels), &filter.label_selector)
}
