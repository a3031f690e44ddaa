//! Which devices a container may use. Pure: OCI's rules (runtime-spec, "Allowed Device list") as writes for v1's controller
//! and as a program of type BPF_PROG_TYPE_CGROUP_DEVICE for v2, which has no files for them.
//!
//! Rules are read in their order, and for each kind of access the last one that names the device and that access decides.
//! What no rule names is denied.

use super::plan::{Write, write};

/// Kinds of access, by the kernel's bits (BPF_DEVCG_ACC_*).
pub const MKNOD: u32 = 1;
pub const READ: u32 = 2;
pub const WRITE: u32 = 4;
pub const ALL: u32 = MKNOD | READ | WRITE;

/// By the kernel's numbers (BPF_DEVCG_DEV_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Block = 1,
    Char = 2,
}

/// What is `None` stands for every kind or number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub allow: bool,
    pub kind: Option<Kind>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: u32,
}

const fn allow(kind: Kind, major: Option<u32>, minor: Option<u32>, access: u32) -> Rule {
    Rule { allow: true, kind: Some(kind), major, minor, access }
}

const fn memory(minor: u32) -> Rule {
    allow(Kind::Char, Some(1), Some(minor), ALL)
}

const EVERYTHING: Rule = Rule { allow: true, kind: None, major: None, minor: None, access: ALL };

/// OCI's default devices; making any node is allowed, opening it is not.
const DEFAULT: [Rule; 11] = [
    Rule { allow: false, ..EVERYTHING },
    allow(Kind::Char, None, None, MKNOD),
    allow(Kind::Block, None, None, MKNOD),
    memory(3),                                // null
    memory(5),                                // zero
    memory(7),                                // full
    memory(8),                                // random
    memory(9),                                // urandom
    allow(Kind::Char, Some(5), Some(0), ALL), // tty
    allow(Kind::Char, Some(5), Some(2), ALL), // ptmx
    allow(Kind::Char, Some(136), None, ALL),  // terminals of devpts
];

/// A privileged container may use everything, any other what all may have and what it is given.
pub fn rules(privileged: bool, given: impl IntoIterator<Item = Rule>) -> Vec<Rule> {
    if privileged { vec![EVERYTHING] } else { DEFAULT.into_iter().chain(given).collect() }
}

/// Whether there is nothing to filter.
pub fn unrestricted(rules: &[Rule]) -> bool {
    rules == [EVERYTHING]
}

/// The same for v1, whose controller knows "every device" only without numbers.
pub fn legacy(rules: &[Rule]) -> Vec<Write> {
    let file = |rule: &Rule| if rule.allow { "devices.allow" } else { "devices.deny" };
    rules.iter().map(|rule| write("devices", file(rule), line(rule))).collect()
}

fn line(rule: &Rule) -> String {
    let kind = match rule.kind {
        None => return "a".to_owned(),
        Some(Kind::Block) => 'b',
        Some(Kind::Char) => 'c',
    };
    let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
    let named = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')].into_iter().filter(|(bit, _)| rule.access & bit != 0);
    let access: String = named.map(|(_, letter)| letter).collect();
    format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor))
}

/// struct bpf_insn: the registers are the target (low four bits) and the source.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// The codes that a device program needs. Arithmetic and comparisons are those of 32 bits: what they compare is no wider.
pub mod code {
    /// target = *(u32 *)(source + offset)
    pub const LOAD: u8 = 0x61;
    /// target = source
    pub const COPY: u8 = 0xbc;
    pub const SET: u8 = 0xb4;
    pub const AND: u8 = 0x54;
    pub const SHIFT_RIGHT: u8 = 0x74;
    /// Skips `offset` instructions.
    pub const JUMP_IF_EQUAL: u8 = 0x16;
    pub const JUMP_IF_NOT_EQUAL: u8 = 0x56;
    pub const EXIT: u8 = 0x95;
}

const RESULT: u8 = 0;
/// Holds the context at first: struct bpf_cgroup_dev_ctx { access_type, major, minor }.
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
/// The kinds of access that are asked for and not yet granted.
const ASKED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn instruction(code: u8, target: u8, source: u8, offset: i16, immediate: u32) -> Instruction {
    Instruction { code, registers: target | source << 4, offset, immediate: immediate.cast_signed() }
}

fn with_value(code: u8, target: u8, value: u32) -> Instruction {
    instruction(code, target, 0, 0, value)
}

fn skip_if(code: u8, register: u8, value: u32, count: usize) -> Instruction {
    // A rule is never longer than a dozen instructions.
    instruction(code, register, 0, count as i16, value)
}

/// Ends the program.
fn answer(allow: bool) -> [Instruction; 2] {
    [with_value(code::SET, RESULT, allow.into()), with_value(code::EXIT, 0, 0)]
}

/// Asks the rules from the last to the first, until all that is asked for is granted, or some of it is denied.
pub fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut out = vec![
        instruction(code::LOAD, KIND, SCRATCH, 0, 0),
        instruction(code::LOAD, MAJOR, SCRATCH, 4, 0),
        instruction(code::LOAD, MINOR, SCRATCH, 8, 0),
        instruction(code::COPY, ASKED, KIND, 0, 0),
        with_value(code::AND, KIND, 0xffff),
        with_value(code::SHIFT_RIGHT, ASKED, 16),
        // access(2) may ask for nothing but whether the file is there.
        skip_if(code::JUMP_IF_NOT_EQUAL, ASKED, 0, 2),
    ];
    out.extend(answer(true));
    for rule in rules.iter().rev() {
        out.extend(block(rule));
        if (Rule { allow: true, ..*rule }) == EVERYTHING {
            // It answers whatever it is asked, and the kernel refuses a program with instructions that nothing reaches.
            return out;
        }
    }
    out.extend(answer(false));
    out
}

/// One rule: its answer, or on to the instruction after it.
fn block(rule: &Rule) -> Vec<Instruction> {
    let numbers = [(KIND, rule.kind.map(|k| k as u32)), (MAJOR, rule.major), (MINOR, rule.minor)];
    let conditions: Vec<_> = numbers.into_iter().filter_map(|(register, value)| Some((register, value?))).collect();
    let mut verdict = Vec::new();
    // A rule for every kind of access decides without a look at what is asked.
    match (rule.access == ALL, rule.allow) {
        (true, _) => {}
        (false, true) => {
            verdict.push(with_value(code::AND, ASKED, !rule.access));
            verdict.push(skip_if(code::JUMP_IF_NOT_EQUAL, ASKED, 0, 2));
        }
        (false, false) => {
            verdict.push(instruction(code::COPY, SCRATCH, ASKED, 0, 0));
            verdict.push(with_value(code::AND, SCRATCH, rule.access));
            verdict.push(skip_if(code::JUMP_IF_EQUAL, SCRATCH, 0, 2));
        }
    }
    verdict.extend(answer(rule.allow));
    let mut out = Vec::new();
    for (n, (register, value)) in conditions.iter().enumerate() {
        let rest = conditions.len() - n - 1 + verdict.len();
        out.push(skip_if(code::JUMP_IF_NOT_EQUAL, *register, *value, rest));
    }
    out.extend(verdict);
    out
}

#[cfg(test)]
mod tests;
