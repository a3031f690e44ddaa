use crate::message::{NLM_F_APPEND, NLM_F_CREATE, Writer};

use super::set::{self, Element, Set};
use super::{
    Expr, INET_HEADER, NFT_MSG_DELCHAIN, NFT_MSG_DELSET, NFT_MSG_DELSETELEM, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE, SUBSYSTEM, Verdict, expr,
};

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_USERDATA: u16 = 6;

const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NF_ACCEPT: u32 = 1;

const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;

const ADD_RULE: &str = "add rule to chain";

/// Where a base chain sees packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// A base chain's kind and its place among the others at the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Priority {
    Nat(i32),
    Filter(i32),
}

/// One request of a batch, for the error that names it.
#[derive(Debug)]
pub(crate) struct Request {
    pub verb: &'static str,
    pub name: String,
    pub at: usize,
}

/// Changes to one table, applied together.
#[derive(Debug)]
pub struct Batch {
    table: String,
    writer: Writer,
    requests: Vec<Request>,
    /// Numbers anonymous sets, so that a rule of the same batch can name its own.
    next_set_id: u32,
}

impl Batch {
    pub fn new(table: &str) -> Batch {
        let mut writer = Writer::default();
        let at = writer.begin(NFNL_MSG_BATCH_BEGIN, 0, &[0, 0, 0, SUBSYSTEM as u8]);
        writer.end(at);
        Batch { table: table.to_owned(), writer, requests: Vec::new(), next_set_id: 1 }
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// How many rules the batch adds.
    pub fn rules(&self) -> usize {
        self.requests.iter().filter(|request| request.verb == ADD_RULE).count()
    }

    /// How long the batch is on the wire so far.
    pub fn length_bytes(&self) -> usize {
        self.writer.len()
    }

    pub(crate) fn finish(mut self) -> (Writer, Vec<Request>) {
        let at = self.writer.begin(NFNL_MSG_BATCH_END, 0, &[0, 0, 0, SUBSYSTEM as u8]);
        self.writer.end(at);
        (self.writer, self.requests)
    }

    fn add(&mut self, verb: &'static str, name: &str, kind: u16, flags: u16, fill: impl FnOnce(&mut Writer, &str)) {
        let at = self.writer.begin(SUBSYSTEM << 8 | kind, flags, &INET_HEADER);
        fill(&mut self.writer, &self.table);
        self.writer.end(at);
        self.requests.push(Request { verb, name: name.to_owned(), at });
    }

    /// Adds the table where it is absent. `comment` stands in its listing.
    pub fn add_table(&mut self, comment: &str) {
        let name = self.table.clone();
        self.add("add table", &name, NFT_MSG_NEWTABLE, NLM_F_CREATE, |w, table| {
            w.put_str(NFTA_TABLE_NAME, table);
            w.put(NFTA_TABLE_USERDATA, &set::comment_userdata(comment));
        });
    }

    pub fn delete_table(&mut self) {
        let name = self.table.clone();
        self.add("delete table", &name, NFT_MSG_DELTABLE, 0, |w, table| w.put_str(NFTA_TABLE_NAME, table));
    }

    pub fn add_chain(&mut self, name: &str) {
        self.add("add chain", name, NFT_MSG_NEWCHAIN, NLM_F_CREATE, |w, table| {
            w.put_str(NFTA_CHAIN_TABLE, table);
            w.put_str(NFTA_CHAIN_NAME, name);
        });
    }

    pub fn add_base_chain(&mut self, name: &str, hook: Hook, priority: Priority) {
        let (kind, value) = match priority {
            Priority::Nat(value) => ("nat", value),
            Priority::Filter(value) => ("filter", value),
        };
        self.add("add chain", name, NFT_MSG_NEWCHAIN, NLM_F_CREATE, |w, table| {
            w.put_str(NFTA_CHAIN_TABLE, table);
            w.put_str(NFTA_CHAIN_NAME, name);
            w.nest(NFTA_CHAIN_HOOK, |w| {
                w.put_u32_be(NFTA_HOOK_HOOKNUM, hook as u32);
                w.put(NFTA_HOOK_PRIORITY, &value.to_be_bytes());
            });
            w.put_u32_be(NFTA_CHAIN_POLICY, NF_ACCEPT);
            w.put_str(NFTA_CHAIN_TYPE, kind);
        });
    }

    /// Takes the rules of a chain with it; EBUSY where another rule leads to it.
    pub fn delete_chain(&mut self, name: &str) {
        self.add("delete chain", name, NFT_MSG_DELCHAIN, 0, |w, table| {
            w.put_str(NFTA_CHAIN_TABLE, table);
            w.put_str(NFTA_CHAIN_NAME, name);
        });
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, expressions: &[Expr]) {
        let mut ids = Vec::new();
        for members in expressions.iter().filter_map(Expr::members) {
            ids.push(self.next_set_id);
            self.add_anonymous_set(members);
        }
        let mut ids = ids.into_iter();
        self.add(ADD_RULE, chain, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |w, table| {
            w.put_str(NFTA_RULE_TABLE, table);
            w.put_str(NFTA_RULE_CHAIN, chain);
            w.nest(NFTA_RULE_EXPRESSIONS, |w| {
                for expression in expressions {
                    let id = if expression.members().is_some() { ids.next() } else { None };
                    w.nest(NFTA_LIST_ELEM, |w| expr::write(w, expression, id.unwrap_or(0)));
                }
            });
        });
    }

    fn add_anonymous_set(&mut self, protocols: &[u8]) {
        let id = self.next_set_id;
        self.next_set_id += 1;
        self.add("add set", set::ANONYMOUS_NAME, NFT_MSG_NEWSET, NLM_F_CREATE, |w, table| {
            set::write_anonymous(w, table, id, protocols.len() as u32);
        });
        let elements: Vec<Element> = protocols.iter().map(|p| Element::key(vec![*p])).collect();
        self.add("add elements to", set::ANONYMOUS_NAME, NFT_MSG_NEWSETELEM, NLM_F_CREATE, |w, table| {
            set::write_elements(w, table, set::ANONYMOUS_NAME, Some(id), &elements);
        });
    }

    pub fn add_set(&mut self, set: &Set) {
        let id = self.next_set_id;
        self.next_set_id += 1;
        self.add("add set", &set.name, NFT_MSG_NEWSET, NLM_F_CREATE, |w, table| set::write_set(w, table, set, id));
    }

    pub fn delete_set(&mut self, name: &str) {
        self.add("delete set", name, NFT_MSG_DELSET, 0, |w, table| {
            w.put_str(set::NFTA_SET_TABLE, table);
            w.put_str(set::NFTA_SET_NAME, name);
        });
    }

    /// An element that is there with other data is EEXIST: delete it first, in the same batch.
    pub fn add_elements(&mut self, name: &str, elements: &[Element]) {
        for chunk in set::chunks(elements) {
            self.add("add elements to", name, NFT_MSG_NEWSETELEM, NLM_F_CREATE, |w, table| {
                set::write_elements(w, table, name, None, chunk);
            });
        }
    }

    /// An element that is not there is ENOENT. Data and timeouts are not looked at.
    pub fn delete_elements(&mut self, name: &str, elements: &[Element]) {
        for chunk in set::chunks(elements) {
            self.add("delete elements of", name, NFT_MSG_DELSETELEM, 0, |w, table| {
                set::write_keys(w, table, name, chunk);
            });
        }
    }

    /// Shorthand for a rule with only a verdict.
    pub fn add_verdict(&mut self, chain: &str, verdict: Verdict) {
        self.add_rule(chain, &[Expr::Verdict(verdict)]);
    }
}
