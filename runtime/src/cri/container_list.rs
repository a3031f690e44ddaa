use gantry_cri::v1;

use super::sandbox_list::labels_match;
use crate::node::{Node, Pods, view};
use crate::records::ContainerRecord;

pub fn run(node: &Node, request: &v1::ListContainersRequest) -> v1::ListContainersResponse {
    let filter = request.filter.clone().unwrap_or_default();
    // An agent asks for one pod's at a time: what it did not ask for is not copied.
    let matching = |pods: &Pods| -> Vec<ContainerRecord> {
        pods.containers.values().map(|c| &c.record).filter(|r| matches(r, &filter)).cloned().collect()
    };
    let records = matching(&node.pods.lock());
    v1::ListContainersResponse { containers: records.iter().map(|r| node.list_container(r)).collect() }
}

fn matches(record: &ContainerRecord, filter: &v1::ContainerFilter) -> bool {
    record.id.starts_with(&filter.id)
        && record.sandbox.starts_with(&filter.pod_sandbox_id)
        && filter.state.as_ref().is_none_or(|s| s.state == view::container_state(record) as i32)
        && labels_match(record.config.as_ref().map(|c| &c.labels), &filter.label_selector)
}
