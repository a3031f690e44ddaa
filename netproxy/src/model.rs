//! What is kept of a Service and of an EndpointSlice.

use std::net::Ipv4Addr;

use gantry_kube::{Object, Ref};
use serde_json::Value;

/// The label that says whose slice it is.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// core/v1: the default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_DEFAULT_SECONDS: u32 = 10_800;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    fn parse(text: &str) -> Option<Protocol> {
        match text {
            "" | "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// As IP headers number it.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// As SRV names spell it.
    pub fn label(self) -> &'static str {
        match self {
            Protocol::Tcp => "_tcp",
            Protocol::Udp => "_udp",
            Protocol::Sctp => "_sctp",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

/// What leads to a service, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub at: Ref,
    /// `None` for headless services and for ExternalName.
    pub cluster_ip: Option<Ipv4Addr>,
    pub headless: bool,
    pub external_name: Option<String>,
    pub ports: Vec<ServicePort>,
    pub affinity_seconds: Option<u32>,
    pub internal_local: bool,
    pub external_local: bool,
    pub publish_not_ready: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// discovery/v1: the addresses of an endpoint are interchangeable; the first is used.
    pub ip: Ipv4Addr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub node: String,
    pub hostname: String,
    pub pod_uid: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    pub at: Ref,
    /// The service that it belongs to; empty for slices of nobody and of other address families.
    pub service: String,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<SliceEndpoint>,
}

fn port_number(value: &Value) -> Option<u16> {
    u16::try_from(value.as_u64()?).ok().filter(|port| *port != 0)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// The IPv4 address among `spec.clusterIPs` (or the one of `spec.clusterIP`).
fn cluster_ip(object: &Object) -> Option<Ipv4Addr> {
    let listed = object.array_at("/spec/clusterIPs").iter().filter_map(Value::as_str);
    listed.chain([object.str_at("/spec/clusterIP")]).find_map(|ip| ip.parse().ok())
}

impl Service {
    pub fn project(object: &Object) -> Service {
        let external_name = (object.str_at("/spec/type") == "ExternalName")
            .then(|| object.str_at("/spec/externalName").trim_end_matches('.').to_owned());
        let ports = object.array_at("/spec/ports").iter().filter_map(|port| {
            Some(ServicePort {
                name: text(&port["name"]).to_owned(),
                protocol: Protocol::parse(text(&port["protocol"]))?,
                port: port_number(&port["port"])?,
                node_port: port_number(&port["nodePort"]),
            })
        });
        let sticky = object.str_at("/spec/sessionAffinity") == "ClientIP";
        let seconds = object.i64_at("/spec/sessionAffinityConfig/clientIP/timeoutSeconds");
        let seconds = seconds.and_then(|s| u32::try_from(s).ok()).filter(|s| *s > 0);
        Service {
            at: object.reference(),
            cluster_ip: if external_name.is_some() { None } else { cluster_ip(object) },
            headless: object.str_at("/spec/clusterIP") == "None",
            external_name,
            ports: ports.collect(),
            affinity_seconds: sticky.then(|| seconds.unwrap_or(AFFINITY_DEFAULT_SECONDS)),
            internal_local: object.str_at("/spec/internalTrafficPolicy") == "Local",
            external_local: object.str_at("/spec/externalTrafficPolicy") == "Local",
            publish_not_ready: object.bool_at("/spec/publishNotReadyAddresses").unwrap_or(false),
        }
    }
}

impl Slice {
    pub fn project(object: &Object) -> Slice {
        let of_ipv4 = object.str_at("/addressType") == "IPv4";
        let service = object.label(SERVICE_NAME_LABEL).filter(|_| of_ipv4).unwrap_or("").to_owned();
        let ports = object.array_at("/ports").iter().filter_map(|port| {
            Some(SlicePort {
                name: text(&port["name"]).to_owned(),
                protocol: Protocol::parse(text(&port["protocol"]))?,
                port: port_number(&port["port"])?,
            })
        });
        let endpoints = object.array_at("/endpoints").iter().filter_map(endpoint);
        Slice { at: object.reference(), service, ports: ports.collect(), endpoints: endpoints.collect() }
    }
}

fn endpoint(value: &Value) -> Option<SliceEndpoint> {
    let conditions = &value["conditions"];
    // discovery/v1: an absent `ready` is to be read as true, an absent `serving` as `ready`.
    let ready = conditions["ready"].as_bool().unwrap_or(true);
    Some(SliceEndpoint {
        ip: text(&value["addresses"][0]).parse().ok()?,
        ready,
        serving: conditions["serving"].as_bool().unwrap_or(ready),
        terminating: conditions["terminating"].as_bool().unwrap_or(false),
        node: text(&value["nodeName"]).to_owned(),
        hostname: text(&value["hostname"]).to_owned(),
        pod_uid: text(&value["targetRef"]["uid"]).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_keeps_what_leads_to_it() {
        let object = Object::from_value(json!({
            "metadata": {"namespace": "a", "name": "web"},
            "spec": {"clusterIP": "10.96.0.7", "clusterIPs": ["fd00::7", "10.96.0.7"], "sessionAffinity": "ClientIP",
                "externalTrafficPolicy": "Local", "type": "NodePort",
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080}, {"port": 70000}]},
        }))
        .unwrap();
        let service = Service::project(&object);
        assert_eq!(service.cluster_ip, Some(Ipv4Addr::new(10, 96, 0, 7)));
        assert_eq!((service.ports.len(), service.ports[0].node_port), (1, Some(30080)));
        assert_eq!(service.affinity_seconds, Some(10_800));
        assert!(service.external_local && !service.internal_local && !service.headless);
    }

    #[test]
    fn absent_conditions_mean_ready_and_serving() {
        let object = Object::from_value(json!({
            "metadata": {"namespace": "a", "name": "s", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080}],
            "endpoints": [{"addresses": ["10.244.0.2"]}, {"addresses": ["x"]},
                {"addresses": ["10.244.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}}],
        }))
        .unwrap();
        let slice = Slice::project(&object);
        assert_eq!((slice.service.as_str(), slice.endpoints.len()), ("web", 2));
        assert!(slice.endpoints[0].ready && slice.endpoints[0].serving);
        assert!(!slice.endpoints[1].ready && slice.endpoints[1].serving && slice.endpoints[1].terminating);
    }
}
