//! nf_tables: batches that apply whole or not at all, and what the kernel's tables hold.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{Protocol, netlink};

use crate::Error;
use crate::message::{self, NLM_F_ACK, Writer};
use crate::socket::Socket;

mod batch;
mod expr;
mod set;

pub use batch::{Batch, Hook, Priority};
pub use expr::{
    CmpOp, CtDirection, CtKey, Expr, MEMBER_PROTOCOLS, MetaKey, PayloadBase, Reg, Reject, Verdict, dport, in_prefix,
    ip_daddr, ip_saddr, ipv4_only, l4proto, not_in_prefix,
};
pub use set::{Element, Field, Set, Tlv, comment, read_elements};

pub(crate) const NFPROTO_INET: u8 = 1;
pub(crate) const SUBSYSTEM: u16 = 10;
/// NFNLGRP_NFTABLES as a bit of the mask that bind takes.
const GROUP_MASK: u32 = 1 << 6;

pub(crate) const NFT_MSG_NEWTABLE: u16 = 0;
pub(crate) const NFT_MSG_GETTABLE: u16 = 1;
pub(crate) const NFT_MSG_DELTABLE: u16 = 2;
pub(crate) const NFT_MSG_NEWCHAIN: u16 = 3;
pub(crate) const NFT_MSG_DELCHAIN: u16 = 5;
pub(crate) const NFT_MSG_NEWRULE: u16 = 6;
pub(crate) const NFT_MSG_GETRULE: u16 = 7;
pub(crate) const NFT_MSG_NEWSET: u16 = 9;
pub(crate) const NFT_MSG_GETSET: u16 = 10;
pub(crate) const NFT_MSG_DELSET: u16 = 11;
pub(crate) const NFT_MSG_NEWSETELEM: u16 = 12;
pub(crate) const NFT_MSG_GETSETELEM: u16 = 13;
pub(crate) const NFT_MSG_DELSETELEM: u16 = 14;
const NFT_MSG_GETGEN: u16 = 16;

/// The header of a request about tables of the inet family.
pub(crate) const INET_HEADER: [u8; 4] = [NFPROTO_INET, 0, 0, 0];

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_USERDATA: u16 = 6;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const SET_ANONYMOUS: u32 = 1;

/// An nf_tables socket of the network namespace in which it was opened. All tables are of the inet family.
#[derive(Debug)]
pub struct Nft(Socket);

impl Nft {
    pub fn open() -> Result<Nft, Error> {
        Ok(Nft(Socket::open(Some(netlink::NETFILTER), 0)?))
    }

    /// Applies the whole batch, or nothing: the error names the first request that the kernel refused.
    pub fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let (mut writer, requests) = batch.finish();
        let first = self.0.sequence_block(requests.len() as u32 + 2);
        let mut at = 0;
        let mut number = 0;
        let total = writer.len();
        while at < total {
            writer.set_sequence(at, first + number);
            number += 1;
            at += writer.length_at(at);
        }
        // The last request's acknowledgement comes before `send` returns, as every refusal does: a commit is synchronous.
        if let Some(last) = requests.last() {
            writer.add_flags(last.at, NLM_F_ACK);
        }
        self.0.send(writer.as_slice())?;
        let answers = self.0.drain_answers()?;
        let refused = answers.iter().find_map(|(sequence, errno)| Some((*sequence, (*errno)?)));
        if let Some((sequence, source)) = refused {
            let request = sequence.wrapping_sub(first).checked_sub(1).and_then(|i| requests.get(i as usize));
            let what = request.map_or_else(|| "commit the batch".to_owned(), |r| format!("{} {}", r.verb, r.name));
            return Err(Error::Kernel { what, source });
        }
        let last = first + requests.len() as u32;
        if answers.iter().any(|(sequence, _)| *sequence == last) { Ok(()) } else { Err(Error::Malformed) }
    }

    /// The table's comment; `None` where there is no such table, empty where it has none.
    pub fn table_comment(&mut self, table: &str) -> Result<Option<String>, Error> {
        let tables = self.0.dump(&request(NFT_MSG_GETTABLE, |_| {}), "list tables", |found, payload| {
            let body = payload.get(4..)?;
            let name = message::text(message::attribute(body, NFTA_TABLE_NAME)?);
            let comment = message::attribute(body, NFTA_TABLE_USERDATA).and_then(set::comment).unwrap_or_default();
            found.push((name, comment));
            Some(())
        })?;
        Ok(tables.into_iter().find(|(name, _)| name == table).map(|(_, comment)| comment))
    }

    /// The chain of every rule of the table, in order.
    pub fn rules(&mut self, table: &str) -> Result<Vec<String>, Error> {
        let request = request(NFT_MSG_GETRULE, |w| w.put_str(NFTA_RULE_TABLE, table));
        self.0.dump(&request, "list rules", |found, payload| {
            let body = payload.get(4..)?;
            // Older kernels take no notice of the table in the request.
            if message::text(message::attribute(body, NFTA_RULE_TABLE)?) == table {
                found.push(message::text(message::attribute(body, NFTA_RULE_CHAIN)?));
            }
            Some(())
        })
    }

    /// The named sets and maps of the table.
    pub fn sets(&mut self, table: &str) -> Result<Vec<String>, Error> {
        let request = request(NFT_MSG_GETSET, |w| w.put_str(NFTA_SET_TABLE, table));
        absent_is_empty(self.0.dump(&request, "list sets", |found, payload| {
            let body = payload.get(4..)?;
            let flags = message::attribute(body, NFTA_SET_FLAGS).and_then(message::be_u32).unwrap_or(0);
            let named = flags & SET_ANONYMOUS == 0;
            if named && message::text(message::attribute(body, NFTA_SET_TABLE)?) == table {
                found.push(message::text(message::attribute(body, NFTA_SET_NAME)?));
            }
            Some(())
        }))
    }

    /// What a set or map holds; empty where there is none.
    pub fn elements(&mut self, table: &str, set: &str) -> Result<Vec<Element>, Error> {
        let request = request(NFT_MSG_GETSETELEM, |w| {
            w.put_str(set::NFTA_SET_ELEM_LIST_TABLE, table);
            w.put_str(set::NFTA_SET_ELEM_LIST_SET, set);
        });
        absent_is_empty(
            self.0.dump(&request, "list elements", |found, payload| set::read_elements(payload.get(4..)?, found)),
        )
    }

    /// Deletes the table with all that is in it. True where there was one.
    pub fn delete_table(&mut self, table: &str) -> Result<bool, Error> {
        let mut batch = Batch::new(table);
        batch.delete_table();
        match self.commit(batch) {
            Ok(()) => Ok(true),
            Err(error) if error.is(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The number of the last commit by anyone in this network namespace.
    pub fn generation(&mut self) -> Result<u32, Error> {
        let found = self.0.ask(request(NFT_MSG_GETGEN, |_| {}), "read the generation", |payload| {
            message::be_u32(message::attribute(payload.get(4..)?, 1)?)
        })?;
        found.ok_or(Error::Malformed)
    }
}

/// A socket that becomes readable whenever anyone changes something of this kind.
#[derive(Debug)]
pub struct Changes(Socket);

impl Changes {
    /// Of what nf_tables has, at each commit.
    pub fn open() -> Result<Changes, Error> {
        Changes::of(Some(netlink::NETFILTER), GROUP_MASK)
    }

    pub(crate) fn of(protocol: Option<Protocol>, groups: u32) -> Result<Changes, Error> {
        let socket = Socket::open(protocol, groups)?;
        socket.set_nonblocking()?;
        Ok(Changes(socket))
    }

    /// Forgets what was announced; true where there was something.
    pub fn drain(&mut self) -> Result<bool, Error> {
        self.0.drain()
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn request(kind: u16, fill: impl FnOnce(&mut Writer)) -> Writer {
    let mut writer = Writer::default();
    let at = writer.begin(SUBSYSTEM << 8 | kind, 0, &INET_HEADER);
    fill(&mut writer);
    writer.end(at);
    writer
}

fn absent_is_empty<T>(found: Result<Vec<T>, Error>) -> Result<Vec<T>, Error> {
    match found {
        Err(error) if error.is(Errno::NOENT) => Ok(Vec::new()),
        found => found,
    }
}
