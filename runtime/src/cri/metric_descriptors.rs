use gantry_cri::v1;

use super::sandbox_metrics::families;

/// What ListPodSandboxMetrics tells of, whatever runs.
pub fn run() -> v1::ListMetricDescriptorsResponse {
    v1::ListMetricDescriptorsResponse { descriptors: families::descriptors() }
}
