//! Which flows and which bonds the rules no longer back. Pure.

use gantry_netlink::conntrack::{Flow, STATUS_DST_NAT};

use crate::image::{Image, PickKind, SetId, endpoint_data, port_key, vip_key};
use crate::model::Protocol;
use crate::ruleset::Cluster;

const UDP: u8 = 17;

/// Whether conntrack leads a UDP flow to where no rule would lead it: to an endpoint that is gone, to a service that is
/// gone, or past a service that has come since.
pub fn flow_is_stale(flow: &Flow, image: &Image, cluster: &Cluster) -> bool {
    let (asked, chosen) = (&flow.original, &flow.reply);
    if asked.protocol != UDP {
        return false;
    }
    if cluster.dns.is_some_and(|(vip, _)| (asked.destination, asked.destination_port) == (vip, 53)) {
        return false;
    }
    let translated = flow.status & STATUS_DST_NAT != 0;
    let endpoint = endpoint_data(chosen.source, chosen.source_port);
    if cluster.services.contains(&asked.destination) {
        let key = vip_key(asked.destination, Protocol::Udp, asked.destination_port);
        return !translated || !image.leads_to(PickKind::Service, &key, &endpoint);
    }
    let key = port_key(Protocol::Udp, asked.destination_port);
    if image.count(PickKind::NodePort, &key).is_none() {
        return false;
    }
    // A flow that no one translated may be forwarded to another machine's port of that number.
    if !translated {
        return false;
    }
    let kinds = [PickKind::NodePort, PickKind::NodePortLocal];
    !kinds.into_iter().any(|kind| image.leads_to(kind, &key, &endpoint))
}

/// Whether a client is bound to an endpoint to which the service no longer leads, or by a service that no longer binds.
/// The key is `client . address . protocol . port`.
pub fn affinity_is_stale(key: &[u8], endpoint: &[u8], image: &Image) -> bool {
    let (Some(vip), Some(port)) = (key.get(4..16), key.get(8..16)) else { return true };
    let bound = |wanted: &[u8], service: bool| {
        image.sets().any(|(set, elements)| match set {
            SetId::Sticky(_) => service && elements.contains_key(wanted),
            SetId::StickyNodePorts(_) => !service && elements.contains_key(wanted),
            _ => false,
        })
    };
    let by_service = bound(vip, true) && image.leads_to(PickKind::Service, vip, endpoint);
    let by_port = || {
        let kinds = [PickKind::NodePort, PickKind::NodePortLocal];
        bound(port, false) && kinds.into_iter().any(|kind| image.leads_to(kind, port, endpoint))
    };
    !(by_service || by_port())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use gantry_netlink::conntrack::Tuple;

    use super::*;
    use crate::image::indexed;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 9);
    const LIVE: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 2);
    const GONE: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 3);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 4);

    fn cluster() -> Cluster {
        Cluster { pods: "10.244.0.0/16".parse().unwrap(), services: "10.96.0.0/16".parse().unwrap(), dns: None }
    }

    fn image() -> Image {
        let mut image = Image::default();
        let key = vip_key(VIP, Protocol::Udp, 53);
        image.insert(SetId::Pick(PickKind::Service, 1), key.clone(), Vec::new());
        image.insert(SetId::Sticky(60), key.clone(), Vec::new());
        image.insert(SetId::Endpoints(PickKind::Service), indexed(&key, 0), endpoint_data(LIVE, 5353));
        image
    }

    fn flow(protocol: u8, destination: Ipv4Addr, endpoint: Ipv4Addr, status: u32) -> Flow {
        let tuple = |source, destination, source_port, destination_port| Tuple {
            source,
            destination,
            protocol,
            source_port,
            destination_port,
        };
        Flow { original: tuple(CLIENT, destination, 4000, 53), reply: tuple(endpoint, CLIENT, 5353, 4000), status }
    }

    #[test]
    fn udp_flows_end_with_their_endpoint_and_with_their_service() {
        let stale = |flow| flow_is_stale(&flow, &image(), &cluster());
        assert!(!stale(flow(17, VIP, LIVE, STATUS_DST_NAT)));
        assert!(stale(flow(17, VIP, GONE, STATUS_DST_NAT)));
        assert!(stale(flow(17, Ipv4Addr::new(10, 96, 0, 10), LIVE, STATUS_DST_NAT)), "no such service");
        assert!(stale(flow(17, VIP, VIP, 0)), "it began before the service did");
        assert!(!stale(flow(6, VIP, GONE, STATUS_DST_NAT)), "TCP ends by itself");
        assert!(!stale(flow(17, Ipv4Addr::new(192, 0, 2, 1), GONE, STATUS_DST_NAT)), "not ours");
    }

    #[test]
    fn bonds_end_with_their_endpoint_and_with_stickiness() {
        let key = |port| [CLIENT.octets().to_vec(), vip_key(VIP, Protocol::Udp, port)].concat();
        assert!(!affinity_is_stale(&key(53), &endpoint_data(LIVE, 5353), &image()));
        assert!(affinity_is_stale(&key(53), &endpoint_data(GONE, 5353), &image()));
        assert!(affinity_is_stale(&key(54), &endpoint_data(LIVE, 5353), &image()));
        assert!(affinity_is_stale(&[1, 2], &[], &image()));
    }
}
