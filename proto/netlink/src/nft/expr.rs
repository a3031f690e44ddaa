//! The expressions of a rule. Registers are numbered as nft numbers them: 1 is the first 16 bytes, and 9, 10, 11, …
//! are the four-byte registers that follow the first of them.

use std::net::Ipv4Addr;

use crate::message::Writer;

use super::set::{ANONYMOUS_NAME, NFTA_DATA_VALUE};

/// A register's number.
pub type Reg = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetaKey {
    InterfaceIn = 6,
    InterfaceOut = 7,
    NfProtocol = 15,
    L4Protocol = 16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PayloadBase {
    Network = 1,
    Transport = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CmpOp {
    Eq = 0,
    Neq = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CtKey {
    Status = 2,
    PortSource = 11,
    PortDestination = 12,
    IpSource = 19,
    IpDestination = 20,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CtDirection {
    Original = 0,
    Reply = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    TcpReset,
    /// ICMP port unreachable, of whichever IP version.
    PortUnreachable,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Drop,
    Accept,
    Return,
    Jump(String),
    Goto(String),
}

/// One expression.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    Meta {
        key: MetaKey,
        to: Reg,
    },
    Payload {
        base: PayloadBase,
        offset: u32,
        length: u32,
        to: Reg,
    },
    Ct {
        key: CtKey,
        direction: Option<CtDirection>,
        to: Reg,
    },
    FibDestinationType {
        to: Reg,
    },
    FibSourceType {
        to: Reg,
    },
    Cmp {
        op: CmpOp,
        from: Reg,
        value: Vec<u8>,
    },
    And {
        from: Reg,
        to: Reg,
        mask: Vec<u8>,
    },
    Load {
        to: Reg,
        value: Vec<u8>,
    },
    /// Goes on only where the set holds the key (or, inverted, does not); a map's data goes to `to`.
    Lookup {
        set: String,
        from: Reg,
        to: Option<Reg>,
        inverted: bool,
    },
    /// Goes on only where the l4 protocol in `from` is one of these.
    OneOf {
        from: Reg,
        protocols: Vec<u8>,
    },
    RandomBelow {
        modulus: u32,
        to: Reg,
    },
    Update {
        set: String,
        key: Reg,
        data: Reg,
        timeout_ms: u64,
    },
    Dnat {
        address: Reg,
        port: Reg,
    },
    Masquerade,
    Reject(Reject),
    Verdict(Verdict),
}

impl Expr {
    pub(crate) fn members(&self) -> Option<&[u8]> {
        match self {
            Expr::OneOf { protocols, .. } => Some(protocols),
            _ => None,
        }
    }
}

/// The protocols that have ports: TCP, UDP, SCTP.
pub const MEMBER_PROTOCOLS: [u8; 3] = [6, 17, 132];

const NFPROTO_IPV4: u8 = 2;

/// `meta nfproto ipv4`: what nft puts before any IPv4 header field in an inet table.
pub fn ipv4_only() -> [Expr; 2] {
    [Expr::Meta { key: MetaKey::NfProtocol, to: 1 }, Expr::Cmp { op: CmpOp::Eq, from: 1, value: vec![NFPROTO_IPV4] }]
}

pub fn ip_saddr(to: Reg) -> Expr {
    Expr::Payload { base: PayloadBase::Network, offset: 12, length: 4, to }
}

pub fn ip_daddr(to: Reg) -> Expr {
    Expr::Payload { base: PayloadBase::Network, offset: 16, length: 4, to }
}

pub fn dport(to: Reg) -> Expr {
    Expr::Payload { base: PayloadBase::Transport, offset: 2, length: 2, to }
}

pub fn l4proto(to: Reg) -> Expr {
    Expr::Meta { key: MetaKey::L4Protocol, to }
}

fn prefix_test(op: CmpOp, load: Expr, network: Ipv4Addr, prefix: u8) -> Vec<Expr> {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    let value = (u32::from(network) & mask).to_be_bytes().to_vec();
    let mut test = vec![load];
    if prefix < 32 {
        test.push(Expr::And { from: 1, to: 1, mask: mask.to_be_bytes().to_vec() });
    }
    test.push(Expr::Cmp { op, from: 1, value });
    test
}

/// `load` puts an address into register 1; goes on only where it lies in the network.
pub fn in_prefix(load: Expr, network: Ipv4Addr, prefix: u8) -> Vec<Expr> {
    prefix_test(CmpOp::Eq, load, network, prefix)
}

pub fn not_in_prefix(load: Expr, network: Ipv4Addr, prefix: u8) -> Vec<Expr> {
    prefix_test(CmpOp::Neq, load, network, prefix)
}

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

const NFT_RETURN: i32 = -5;
const NFT_GOTO: i32 = -4;
const NFT_JUMP: i32 = -3;
const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;

const NFT_LOOKUP_F_INV: u32 = 1;
const NFT_NAT_DNAT: u32 = 1;
const NFT_NG_RANDOM: u32 = 1;
const NFT_DYNSET_OP_UPDATE: u32 = 1;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_SADDR: u32 = 1;
const NFTA_FIB_F_DADDR: u32 = 2;
const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 0x10;
const NFPROTO_IPV4_NAT: u32 = 2;
const NFT_REJECT_TCP_RST: u32 = 1;
const NFT_REJECT_ICMPX_UNREACH: u32 = 2;
const NFT_REJECT_ICMPX_PORT_UNREACH: u8 = 1;

fn data(w: &mut Writer, kind: u16, value: &[u8]) {
    w.nest(kind, |w| w.put(NFTA_DATA_VALUE, value));
}

fn named(w: &mut Writer, name: &str, fill: impl FnOnce(&mut Writer)) {
    w.put_str(NFTA_EXPR_NAME, name);
    w.nest(NFTA_EXPR_DATA, fill);
}

/// Attribute numbers are those of linux/netfilter/nf_tables.h, in the order in which it lists them.
pub(crate) fn write(w: &mut Writer, expression: &Expr, set_id: u32) {
    match expression {
        Expr::Meta { key, to } => named(w, "meta", |w| {
            w.put_u32_be(1, *to);
            w.put_u32_be(2, *key as u32);
        }),
        Expr::Payload { base, offset, length, to } => named(w, "payload", |w| {
            w.put_u32_be(1, *to);
            w.put_u32_be(2, *base as u32);
            w.put_u32_be(3, *offset);
            w.put_u32_be(4, *length);
        }),
        Expr::Ct { key, direction, to } => named(w, "ct", |w| {
            w.put_u32_be(1, *to);
            w.put_u32_be(2, *key as u32);
            if let Some(direction) = direction {
                w.put(3, &[*direction as u8]);
            }
        }),
        Expr::FibDestinationType { to } => write_fib(w, *to, NFTA_FIB_F_DADDR),
        Expr::FibSourceType { to } => write_fib(w, *to, NFTA_FIB_F_SADDR),
        Expr::Cmp { op, from, value } => named(w, "cmp", |w| {
            w.put_u32_be(1, *from);
            w.put_u32_be(2, *op as u32);
            data(w, 3, value);
        }),
        Expr::And { from, to, mask } => named(w, "bitwise", |w| {
            w.put_u32_be(1, *from);
            w.put_u32_be(2, *to);
            w.put_u32_be(3, mask.len() as u32);
            data(w, 4, mask);
            data(w, 5, &vec![0; mask.len()]);
        }),
        Expr::Load { to, value } => named(w, "immediate", |w| {
            w.put_u32_be(1, *to);
            data(w, 2, value);
        }),
        Expr::Lookup { set, from, to, inverted } => named(w, "lookup", |w| {
            w.put_str(1, set);
            w.put_u32_be(2, *from);
            if let Some(to) = to {
                w.put_u32_be(3, *to);
            }
            if *inverted {
                w.put_u32_be(5, NFT_LOOKUP_F_INV);
            }
        }),
        Expr::OneOf { from, .. } => named(w, "lookup", |w| {
            w.put_str(1, ANONYMOUS_NAME);
            w.put_u32_be(2, *from);
            w.put_u32_be(4, set_id);
        }),
        Expr::Verdict(verdict) => write_verdict(w, verdict),
        Expr::RandomBelow { .. } | Expr::Update { .. } | Expr::Dnat { .. } | Expr::Masquerade | Expr::Reject(_) => {
            write_statement(w, expression)
        }
    }
}

fn write_fib(w: &mut Writer, to: Reg, flags: u32) {
    named(w, "fib", |w| {
        w.put_u32_be(1, to);
        w.put_u32_be(2, NFT_FIB_RESULT_ADDRTYPE);
        w.put_u32_be(3, flags);
    });
}

fn write_statement(w: &mut Writer, expression: &Expr) {
    match expression {
        Expr::RandomBelow { modulus, to } => named(w, "numgen", |w| {
            w.put_u32_be(1, *to);
            w.put_u32_be(2, *modulus);
            w.put_u32_be(3, NFT_NG_RANDOM);
            w.put_u32_be(4, 0);
        }),
        Expr::Update { set, key, data, timeout_ms } => named(w, "dynset", |w| {
            w.put_str(1, set);
            w.put_u32_be(3, NFT_DYNSET_OP_UPDATE);
            w.put_u32_be(4, *key);
            w.put_u32_be(5, *data);
            w.put_u64_be(6, *timeout_ms);
        }),
        Expr::Dnat { address, port } => named(w, "nat", |w| {
            w.put_u32_be(1, NFT_NAT_DNAT);
            w.put_u32_be(2, NFPROTO_IPV4_NAT);
            w.put_u32_be(3, *address);
            w.put_u32_be(5, *port);
        }),
        Expr::Masquerade => named(w, "masq", |w| w.put_u32_be(1, NF_NAT_RANGE_PROTO_RANDOM_FULLY)),
        Expr::Reject(Reject::TcpReset) => named(w, "reject", |w| {
            w.put_u32_be(1, NFT_REJECT_TCP_RST);
            w.put(2, &[0]);
        }),
        Expr::Reject(Reject::PortUnreachable) => named(w, "reject", |w| {
            w.put_u32_be(1, NFT_REJECT_ICMPX_UNREACH);
            w.put(2, &[NFT_REJECT_ICMPX_PORT_UNREACH]);
        }),
        _ => {}
    }
}

fn write_verdict(w: &mut Writer, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Drop => (NF_DROP, None),
        Verdict::Accept => (NF_ACCEPT, None),
        Verdict::Return => (NFT_RETURN, None),
        Verdict::Jump(chain) => (NFT_JUMP, Some(chain)),
        Verdict::Goto(chain) => (NFT_GOTO, Some(chain)),
    };
    named(w, "immediate", |w| {
        w.put_u32_be(1, 0);
        w.nest(2, |w| {
            w.nest(NFTA_DATA_VERDICT, |w| {
                w.put(NFTA_VERDICT_CODE, &code.to_be_bytes());
                if let Some(chain) = chain {
                    w.put_str(NFTA_VERDICT_CHAIN, chain);
                }
            });
        });
    });
}
