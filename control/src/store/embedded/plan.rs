//! Decides a group of writes, in the order in which they came: which hold, at which revisions, and against what the
//! others fail. Pure; nothing of it is true before the log has it.

use std::collections::HashMap;

use bytes::Bytes;

use super::index::{Index, Version};
use super::record::Place;
use crate::store::{Compare, Expect, Key, Op, Revision};

/// One call of [`write`](crate::store::Store::write).
#[derive(Clone, Debug)]
pub struct Write {
    pub compares: Vec<Compare>,
    pub ops: Vec<Op>,
}

impl Write {
    /// About how much it adds to the log.
    pub fn bytes(&self) -> usize {
        let value = |op: &Op| match op {
            Op::Put { value, .. } | Op::Renew { value, .. } => value.len(),
            Op::Delete { .. } => 0,
        };
        self.ops.iter().map(|op| value(op) + op.key().as_str().len()).sum()
    }
}

/// What stands under a key: in the index, or put there by an earlier write of the same group.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    Indexed(Version),
    InGroup { value: Bytes, revision: Revision },
}

impl Standing {
    pub fn revision(&self) -> Revision {
        match self {
            Standing::Indexed(version) => version.revision(),
            Standing::InGroup { revision, .. } => *revision,
        }
    }
}

/// One change that the group makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub key: Key,
    pub place: Place,
    pub value: Option<Bytes>,
    pub previous: Option<Standing>,
    /// Stays in memory for now.
    pub heartbeat: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Done(Revision),
    Conflict { key: Key, current: Option<Standing> },
}

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub changes: Vec<Planned>,
    /// One for each write, in their order.
    pub outcomes: Vec<Outcome>,
}

pub fn plan<'a>(writes: impl Iterator<Item = &'a Write>, index: &Index) -> Plan {
    let mut plan = Plan::default();
    let mut group: HashMap<Key, Option<(Bytes, Revision)>> = HashMap::new();
    let mut revision = index.current;
    for write in writes {
        let standing = |key: &Key| match group.get(key) {
            Some(Some((value, revision))) => Some(Standing::InGroup { value: value.clone(), revision: *revision }),
            Some(None) => None,
            None => index.latest(key).map(Standing::Indexed),
        };
        let failed = write.compares.iter().map(|compare| (&compare.key, compare.expect)).find_map(|(key, expect)| {
            let current = standing(key);
            let holds = match expect {
                Expect::Absent => current.is_none(),
                Expect::Revision(revision) => current.as_ref().is_some_and(|c| c.revision() == revision),
            };
            (!holds).then_some((key, current))
        });
        let deletes = write.ops.iter().filter(|op| matches!(op, Op::Delete { .. })).map(Op::key);
        let failed = failed.or_else(|| deletes.into_iter().find(|key| standing(key).is_none()).map(|key| (key, None)));
        if let Some((key, current)) = failed {
            plan.outcomes.push(Outcome::Conflict { key: key.clone(), current });
            continue;
        }
        revision += 1;
        let changes: Vec<Planned> = write
            .ops
            .iter()
            .enumerate()
            .map(|(number, op)| {
                let (value, heartbeat) = match op {
                    Op::Put { value, .. } => (Some(value.clone()), false),
                    Op::Renew { value, .. } => (Some(value.clone()), true),
                    Op::Delete { .. } => (None, false),
                };
                let (key, place) = (op.key().clone(), Place::new(revision, number));
                Planned { previous: standing(&key), key, place, value, heartbeat }
            })
            .collect();
        for change in &changes {
            group.insert(change.key.clone(), change.value.clone().map(|value| (value, revision)));
        }
        plan.changes.extend(changes);
        plan.outcomes.push(Outcome::Done(revision));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(compare: Option<Expect>, op: Op) -> Write {
        let compares = compare.map(|expect| Compare { key: op.key().clone(), expect }).into_iter().collect();
        Write { compares, ops: vec![op] }
    }

    fn key() -> Key {
        Key::new("pods", &gantry_kube::Ref::new("a", "b"))
    }

    fn put(value: &'static str) -> Op {
        Op::Put { key: key(), value: Bytes::from(value) }
    }

    #[test]
    fn writes_of_a_group_see_one_another_in_their_order() {
        let group = [
            write(Some(Expect::Absent), put("1")),
            write(Some(Expect::Absent), put("2")),
            write(Some(Expect::Revision(1)), Op::Delete { key: key() }),
            write(None, Op::Delete { key: key() }),
            write(Some(Expect::Absent), put("3")),
        ];
        let plan = plan(group.iter(), &Index::default());
        let first = Standing::InGroup { value: Bytes::from("1"), revision: 1 };
        assert_eq!(
            plan.outcomes,
            [
                Outcome::Done(1),
                Outcome::Conflict { key: key(), current: Some(first.clone()) },
                Outcome::Done(2),
                Outcome::Conflict { key: key(), current: None },
                Outcome::Done(3),
            ]
        );
        let changes: Vec<_> =
            plan.changes.iter().map(|c| (c.place.revision, c.value.is_some(), c.previous.clone())).collect();
        assert_eq!(changes, [(1, true, None), (2, false, Some(first)), (3, true, None)]);
    }
}
