//! Sets and maps: what their keys are made of, how `nft` will print them, and their elements.

use crate::message::{self, Writer};

pub(crate) const NFTA_SET_TABLE: u16 = 1;
pub(crate) const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_DESC: u16 = 9;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_USERDATA: u16 = 13;
const NFTA_SET_DESC_SIZE: u16 = 1;

pub(crate) const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
pub(crate) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_LIST_SET_ID: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
pub(crate) const NFTA_DATA_VALUE: u16 = 1;

const NFT_SET_ANONYMOUS: u32 = 0x1;
const NFT_SET_CONSTANT: u32 = 0x2;
const NFT_SET_MAP: u32 = 0x8;
const NFT_SET_TIMEOUT: u32 = 0x10;
const NFT_SET_EVAL: u32 = 0x20;

/// The kernel numbers the set when it makes it.
pub(crate) const ANONYMOUS_NAME: &str = "__set%d";
/// A nest's length is 16 bits; 64 is more than an element's attributes need beside key and data.
const ELEMENTS_NEST_MAX_BYTES: usize = 48 << 10;
const ELEMENT_OVERHEAD_BYTES: usize = 64;

/// nft packs the types of a concatenation into one number, six bits each.
const TYPE_BITS: u32 = 6;
const TABLE_COMMENT: u8 = 0;

/// A part of a key or of a map's data, in nft's own types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    Ipv4,
    Protocol,
    Port,
    InterfaceName,
    /// A number that only a rule makes (numgen): it has no type name, so the set needs a `typeof`.
    Number,
}

impl Field {
    fn nft_type(self) -> u32 {
        match self {
            Field::Number => 4,
            Field::Ipv4 => 7,
            Field::Protocol => 12,
            Field::Port => 13,
            Field::InterfaceName => 41,
        }
    }

    /// How much room a register or a key gives it.
    fn room_bytes(self) -> u32 {
        match self {
            Field::InterfaceName => 16,
            _ => 4,
        }
    }

    fn width_bytes(self) -> u32 {
        match self {
            Field::Protocol => 1,
            Field::Port => 2,
            Field::Ipv4 | Field::Number => 4,
            Field::InterfaceName => 16,
        }
    }
}

fn concat_type(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |packed, field| packed << TYPE_BITS | field.nft_type())
}

fn concat_bytes(fields: &[Field]) -> u32 {
    match fields {
        [one] => one.width_bytes(),
        many => many.iter().map(|field| field.room_bytes()).sum(),
    }
}

/// A set, or with `data` a map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Set {
    pub name: String,
    pub key: Vec<Field>,
    pub data: Vec<Field>,
    /// Elements that rules add, and that end by themselves.
    pub dynamic: bool,
    pub size_max: Option<u32>,
    /// What nft needs to print the set's `typeof` (see [`Tlv`]); empty for sets whose types have names.
    pub userdata: Vec<u8>,
}

/// nft's own notes on a set: nested (type, length, value) triples of one byte, one byte, bytes.
#[derive(Clone, Debug, Default)]
pub struct Tlv(Vec<u8>);

impl Tlv {
    pub fn put(mut self, kind: u8, value: &[u8]) -> Tlv {
        self.0.push(kind);
        self.0.push(value.len() as u8);
        self.0.extend_from_slice(value);
        self
    }

    /// Numbers are in the host's order.
    pub fn number(self, kind: u8, value: u32) -> Tlv {
        self.put(kind, &value.to_ne_bytes())
    }

    pub fn nest(self, kind: u8, inner: Tlv) -> Tlv {
        self.put(kind, &inner.0)
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

pub(crate) fn comment_userdata(comment: &str) -> Vec<u8> {
    let mut text = comment.as_bytes().to_vec();
    text.push(0);
    Tlv::default().put(TABLE_COMMENT, &text).into_bytes()
}

/// The comment among nft's own notes. Public and pure: a seat for fuzzing.
pub fn comment(userdata: &[u8]) -> Option<String> {
    let mut rest = userdata;
    while let [kind, length, tail @ ..] = rest {
        let value = tail.get(..*length as usize)?;
        if *kind == TABLE_COMMENT {
            return Some(message::text(value));
        }
        rest = &tail[*length as usize..];
    }
    None
}

/// One element. In a concatenation every field is padded to four bytes; a single field is not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Element {
    pub key: Vec<u8>,
    /// Empty in a set.
    pub data: Vec<u8>,
    pub timeout_ms: Option<u64>,
}

impl Element {
    pub fn key(key: Vec<u8>) -> Element {
        Element { key, data: Vec::new(), timeout_ms: None }
    }

    pub fn map(key: Vec<u8>, data: Vec<u8>) -> Element {
        Element { key, data, timeout_ms: None }
    }
}

pub(crate) fn write_set(w: &mut Writer, table: &str, set: &Set, id: u32) {
    let mut flags = 0;
    if !set.data.is_empty() {
        flags |= NFT_SET_MAP;
    }
    if set.dynamic {
        flags |= NFT_SET_TIMEOUT | NFT_SET_EVAL;
    }
    w.put_str(NFTA_SET_TABLE, table);
    w.put_str(NFTA_SET_NAME, &set.name);
    w.put_u32_be(NFTA_SET_FLAGS, flags);
    w.put_u32_be(NFTA_SET_KEY_TYPE, concat_type(&set.key));
    w.put_u32_be(NFTA_SET_KEY_LEN, concat_bytes(&set.key));
    if !set.data.is_empty() {
        w.put_u32_be(NFTA_SET_DATA_TYPE, concat_type(&set.data));
        w.put_u32_be(NFTA_SET_DATA_LEN, concat_bytes(&set.data));
    }
    if let Some(size) = set.size_max {
        w.nest(NFTA_SET_DESC, |w| w.put_u32_be(NFTA_SET_DESC_SIZE, size));
    }
    w.put_u32_be(NFTA_SET_ID, id);
    if !set.userdata.is_empty() {
        w.put(NFTA_SET_USERDATA, &set.userdata);
    }
}

/// `{ tcp, udp }` inside a rule: a set of l4 protocols that lives and dies with it.
pub(crate) fn write_anonymous(w: &mut Writer, table: &str, id: u32, size: u32) {
    w.put_str(NFTA_SET_TABLE, table);
    w.put_str(NFTA_SET_NAME, ANONYMOUS_NAME);
    w.put_u32_be(NFTA_SET_FLAGS, NFT_SET_ANONYMOUS | NFT_SET_CONSTANT);
    w.put_u32_be(NFTA_SET_KEY_TYPE, concat_type(&[Field::Protocol]));
    w.put_u32_be(NFTA_SET_KEY_LEN, 1);
    w.nest(NFTA_SET_DESC, |w| w.put_u32_be(NFTA_SET_DESC_SIZE, size));
    w.put_u32_be(NFTA_SET_ID, id);
}

pub(crate) fn write_elements(w: &mut Writer, table: &str, set: &str, id: Option<u32>, elements: &[Element]) {
    write_list(w, table, set, id, elements, |w, element| {
        if let Some(timeout) = element.timeout_ms {
            w.put_u64_be(NFTA_SET_ELEM_TIMEOUT, timeout);
        }
        if !element.data.is_empty() {
            w.nest(NFTA_SET_ELEM_DATA, |w| w.put(NFTA_DATA_VALUE, &element.data));
        }
    });
}

pub(crate) fn write_keys(w: &mut Writer, table: &str, set: &str, elements: &[Element]) {
    write_list(w, table, set, None, elements, |_, _| {});
}

fn write_list(
    w: &mut Writer,
    table: &str,
    set: &str,
    id: Option<u32>,
    elements: &[Element],
    rest: impl Fn(&mut Writer, &Element),
) {
    w.put_str(NFTA_SET_ELEM_LIST_TABLE, table);
    w.put_str(NFTA_SET_ELEM_LIST_SET, set);
    if let Some(id) = id {
        w.put_u32_be(NFTA_SET_ELEM_LIST_SET_ID, id);
    }
    w.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |w| {
        for element in elements {
            w.nest(NFTA_LIST_ELEM, |w| {
                w.nest(NFTA_SET_ELEM_KEY, |w| w.put(NFTA_DATA_VALUE, &element.key));
                rest(w, element);
            });
        }
    });
}

/// Pieces that fit into one nest each.
pub(crate) fn chunks(elements: &[Element]) -> impl Iterator<Item = &[Element]> {
    let longest = elements.iter().map(|e| e.key.len() + e.data.len()).max().unwrap_or(0) + ELEMENT_OVERHEAD_BYTES;
    elements.chunks((ELEMENTS_NEST_MAX_BYTES / longest).max(1))
}

/// Reads the elements that one message of a dump holds. Public and pure: a seat for fuzzing.
pub fn read_elements(body: &[u8], found: &mut Vec<Element>) -> Option<()> {
    let list = message::attribute(body, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or(&[]);
    for (_, element) in message::attributes(list).filter(|(kind, _)| *kind == NFTA_LIST_ELEM) {
        let value = |kind| message::attribute(message::attribute(element, kind)?, NFTA_DATA_VALUE);
        found.push(Element {
            key: value(NFTA_SET_ELEM_KEY)?.to_vec(),
            data: value(NFTA_SET_ELEM_DATA).unwrap_or_default().to_vec(),
            timeout_ms: message::attribute(element, NFTA_SET_ELEM_TIMEOUT).and_then(message::be_u64),
        });
    }
    Some(())
}
