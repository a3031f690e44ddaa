//! The conntrack table: the flows that have been translated, and their end.

use std::net::Ipv4Addr;

use rustix::io::Errno;
use rustix::net::netlink;

use crate::Error;
use crate::message::{self, Writer};
use crate::socket::Socket;

const SUBSYSTEM: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const AF_INET_HEADER: [u8; 4] = [2, 0, 0, 0];

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// The destination was translated.
pub const STATUS_DST_NAT: u32 = 1 << 5;

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
}

/// An IPv4 flow that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    pub original: Tuple,
    pub reply: Tuple,
    pub status: u32,
}

/// A conntrack socket of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Conntrack(Socket);

impl Conntrack {
    pub fn open() -> Result<Conntrack, Error> {
        Ok(Conntrack(Socket::open(Some(netlink::NETFILTER), 0)?))
    }

    /// The IPv4 flows that `wanted` accepts.
    pub fn flows(&mut self, wanted: impl Fn(&Flow) -> bool) -> Result<Vec<Flow>, Error> {
        let mut request = Writer::default();
        let at = request.begin(SUBSYSTEM << 8 | IPCTNL_MSG_CT_GET, 0, &AF_INET_HEADER);
        request.end(at);
        self.0.dump(&request, "list flows", |found, payload| {
            // Flows without ports (ICMP) are none of ours.
            if let Some(flow) = flow(payload.get(4..)?)
                && wanted(&flow)
            {
                found.push(flow);
            }
            Some(())
        })
    }

    /// True where the flow was still there.
    pub fn delete(&mut self, flow: &Flow) -> Result<bool, Error> {
        let mut request = Writer::default();
        let at = request.begin(SUBSYSTEM << 8 | IPCTNL_MSG_CT_DELETE, 0, &AF_INET_HEADER);
        request.nest(CTA_TUPLE_ORIG, |w| write_tuple(w, &flow.original));
        request.end(at);
        match self.0.request(request, || format!("delete flow to {}", flow.original.destination)) {
            Ok(()) => Ok(true),
            Err(error) if error.is(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn write_tuple(w: &mut Writer, tuple: &Tuple) {
    w.nest(CTA_TUPLE_IP, |w| {
        w.put(CTA_IP_V4_SRC, &tuple.source.octets());
        w.put(CTA_IP_V4_DST, &tuple.destination.octets());
    });
    w.nest(CTA_TUPLE_PROTO, |w| {
        w.put(CTA_PROTO_NUM, &[tuple.protocol]);
        w.put(CTA_PROTO_SRC_PORT, &tuple.source_port.to_be_bytes());
        w.put(CTA_PROTO_DST_PORT, &tuple.destination_port.to_be_bytes());
    });
}

/// Reads the attributes of one flow. Public and pure: a seat for fuzzing.
pub fn flow(body: &[u8]) -> Option<Flow> {
    Some(Flow {
        original: tuple(message::attribute(body, CTA_TUPLE_ORIG)?)?,
        reply: tuple(message::attribute(body, CTA_TUPLE_REPLY)?)?,
        status: message::attribute(body, CTA_STATUS).and_then(message::be_u32).unwrap_or(0),
    })
}

fn tuple(body: &[u8]) -> Option<Tuple> {
    let (ip, proto) = (message::attribute(body, CTA_TUPLE_IP)?, message::attribute(body, CTA_TUPLE_PROTO)?);
    let address = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(message::attribute(ip, kind)?).ok()?));
    let port = |kind| message::attribute(proto, kind).and_then(message::be_u16);
    Some(Tuple {
        source: address(CTA_IP_V4_SRC)?,
        destination: address(CTA_IP_V4_DST)?,
        protocol: *message::attribute(proto, CTA_PROTO_NUM)?.first()?,
        source_port: port(CTA_PROTO_SRC_PORT)?,
        destination_port: port(CTA_PROTO_DST_PORT)?,
    })
}
