//! The rules that few objects meet.

use super::others::named;
use super::*;

#[test]
fn rarer_rules() {
    let lease = named(json!({"spec": {"leaseDurationSeconds": 40}}));
    refuses(
        &LEASE,
        &lease,
        &[(
            "/spec/preferredHolder",
            json!("x"),
            &["spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined"],
        )],
    );
    let newer =
        named(json!({"involvedObject": {"kind": "Pod", "namespace": "n"}, "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingComponent": "a", "reportingInstance": "b", "action": "c", "reason": "R"}));
    refuses(
        &EVENT,
        &newer,
        &[
            ("/reason", json!("x".repeat(129)), &["reason: Invalid value: \"\": can have at most 128 characters"]),
            ("/message", json!("x".repeat(1025)), &["message: Invalid value: \"\": can have at most 1024 characters"]),
        ],
    );
    let endpoints = named(json!({"subsets": [{"notReadyAddresses": [{"ip": "10.0.0.1"}]}]}));
    refuses(
        &ENDPOINTS,
        &endpoints,
        &[
            (
                "/subsets/0/notReadyAddresses/0/ip",
                json!("0.0.0.0"),
                &["subsets[0].notReadyAddresses[0].ip: Invalid value: \
            \"0.0.0.0\": may not be unspecified (0.0.0.0 or ::)"],
            ),
            (
                "/subsets/0/notReadyAddresses/0/ip",
                json!("224.0.0.1"),
                &["subsets[0].notReadyAddresses[0].ip: Invalid value: \
            \"224.0.0.1\": may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"],
            ),
        ],
    );
    let zones: Vec<Value> = (0..9).map(|i| json!({"name": format!("z{i}")})).collect();
    let slice = named(json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.b"]}]}));
    refuses(
        &ENDPOINT_SLICE,
        &slice,
        &[
            (
                "/endpoints/0/hints",
                json!({"forZones": zones}),
                &["endpoints[0].hints.forZones: Too many: 9: must have at most 8 items"],
            ),
            (
                "/endpoints/0/hints",
                json!({"forNodes": [{"name": ""}]}),
                &[&format!("endpoints[0].hints.forNodes[0].name: Invalid value: \"\": {}", meta::SUBDOMAIN)],
            ),
        ],
    );
    let balancer = json!({"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 1}],
        "loadBalancerClass": "a.b/c"}});
    refuses(
        &SERVICE,
        &balancer,
        &[
            (
                "/spec/healthCheckNodePort",
                json!(30000),
                &["spec.healthCheckNodePort: Invalid value: 30000: may only be set \
            when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"],
            ),
            (
                "/spec/loadBalancerSourceRanges",
                json!(["x"]),
                &["spec.loadBalancerSourceRanges[0]: Invalid value: \"x\": must \
            be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"],
            ),
            (
                "/spec/clusterIPs",
                json!(["None", "10.0.0.1"]),
                &[
                    "spec.clusterIPs[0]: Invalid value: \"None\": may not be \
            set to 'None' for LoadBalancer services",
                    "spec.clusterIPs: Invalid value: [\"None\",\"10.0.0.1\"]: first \
            value must match `clusterIP`",
                ],
            ),
        ],
    );
    changes(
        &SERVICE,
        &balancer,
        &[(
            "/spec/loadBalancerClass",
            json!("a.b/d"),
            &["spec.loadBalancerClass: Invalid value: \"a.b/d\": may not change once set"],
        )],
    );
}
