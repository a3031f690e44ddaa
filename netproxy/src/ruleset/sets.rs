//! The sets and maps as the kernel is asked to make them, with what `nft` needs to print them.

use gantry_netlink::nft::{Field, Set, Tlv};

use super::AFFINITY;
use crate::image::{PickKind, SetId};

/// Clients times sticky services. A full map makes clients less sticky, and nothing else.
const AFFINITY_MAX_ELEMENTS: u32 = 262_144;

fn key_fields(kind: PickKind) -> Vec<Field> {
    match kind {
        PickKind::Service => vec![Field::Ipv4, Field::Protocol, Field::Port],
        PickKind::NodePort | PickKind::NodePortLocal => vec![Field::Protocol, Field::Port],
    }
}

/// The set as the kernel is asked to make it.
pub fn definition(id: SetId) -> Set {
    let set = |key: Vec<Field>, data: Vec<Field>| Set { name: id.name(), key, data, ..Set::default() };
    match id {
        SetId::Pick(kind, _) => set(key_fields(kind), Vec::new()),
        SetId::ServicesDropped | SetId::Sticky(_) => set(key_fields(PickKind::Service), Vec::new()),
        SetId::StickyNodePorts(_) | SetId::NodePortsMasqueraded => set(key_fields(PickKind::NodePort), Vec::new()),
        SetId::Hairpin => set(vec![Field::Ipv4, Field::Ipv4], Vec::new()),
        SetId::Endpoints(kind) => {
            let mut key = key_fields(kind);
            key.push(Field::Number);
            let userdata = endpoints_userdata(kind);
            Set { userdata, ..set(key, vec![Field::Ipv4, Field::Port]) }
        }
    }
}

pub(super) fn affinity_definition() -> Set {
    Set {
        name: AFFINITY.to_owned(),
        key: vec![Field::Ipv4, Field::Ipv4, Field::Protocol, Field::Port],
        data: vec![Field::Ipv4, Field::Port],
        dynamic: true,
        size_max: Some(AFFINITY_MAX_ELEMENTS),
        userdata: Vec::new(),
    }
}

/// What nft needs to print `typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport`: an
/// index made by numgen has no type with a name. (libnftnl's notes on sets, as nft 1.0.6 writes them.)
fn endpoints_userdata(kind: PickKind) -> Vec<u8> {
    const KEY_BYTE_ORDER: u8 = 0;
    const DATA_BYTE_ORDER: u8 = 1;
    const KEY_TYPEOF: u8 = 3;
    const DATA_TYPEOF: u8 = 4;
    let key = match kind {
        PickKind::Service => vec![typeof_daddr(), typeof_l4proto(), typeof_dport(), typeof_numgen()],
        PickKind::NodePort | PickKind::NodePortLocal => vec![typeof_l4proto(), typeof_dport(), typeof_numgen()],
    };
    Tlv::default()
        .number(KEY_BYTE_ORDER, 0)
        .number(DATA_BYTE_ORDER, 0)
        .nest(KEY_TYPEOF, typeof_concat(key))
        .nest(DATA_TYPEOF, typeof_concat(vec![typeof_daddr(), typeof_dport()]))
        .into_bytes()
}

const EXPR_PAYLOAD: u32 = 7;
const EXPR_META: u32 = 9;
const EXPR_CONCAT: u32 = 13;
const EXPR_NUMGEN: u32 = 23;

/// Every expression is its kind (0) and its own notes (1).
fn typeof_expr(kind: u32, notes: Tlv) -> Tlv {
    Tlv::default().number(0, kind).nest(1, notes)
}

fn typeof_concat(parts: Vec<Tlv>) -> Tlv {
    let numbered = parts.into_iter().enumerate().fold(Tlv::default(), |all, (i, part)| all.nest(i as u8, part));
    typeof_expr(EXPR_CONCAT, numbered)
}

/// Protocol 12 is IPv4, and its field 12 the destination.
fn typeof_daddr() -> Tlv {
    typeof_expr(EXPR_PAYLOAD, Tlv::default().number(0, 12).number(1, 12))
}

/// Protocol 11 is "any transport", and its field 2 the destination port.
fn typeof_dport() -> Tlv {
    typeof_expr(EXPR_PAYLOAD, Tlv::default().number(0, 11).number(1, 2))
}

fn typeof_l4proto() -> Tlv {
    typeof_expr(EXPR_META, Tlv::default().number(0, 16))
}

fn typeof_numgen() -> Tlv {
    typeof_expr(EXPR_NUMGEN, Tlv::default().number(0, 1).number(1, 2).number(2, 0))
}
