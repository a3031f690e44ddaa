//! What to do about a sandbox whose supervisor may have gone, or which another runtime started. Pure: facts in, verdicts
//! out; run at every start and whenever a supervisor's connection breaks, and safe to run again at any point.

use gantry_base::{ExitRecord, Id};

use crate::records::ContainerState;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerFacts {
    pub id: Id,
    /// As journalled.
    pub state: ContainerState,
    /// The supervisor says that it runs.
    pub supervised: bool,
    /// What a supervisor wrote when it ended.
    pub exit: Option<ExitRecord>,
    /// Its first process can be named beyond doubt: we hold its pidfd, or pid and start time agree.
    pub process: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The supervisor answers on its socket.
    pub supervisor: bool,
    pub containers: Vec<ContainerFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as the journal says.
    Keep,
    /// It runs under its supervisor.
    Supervised,
    /// Hand it to the new supervisor, which learns its end if it has come already.
    Adopt,
    /// It has ended, and how is known.
    Ended(ExitRecord),
    /// It has ended, and how is not known.
    Unknown,
    /// Its start was interrupted: whatever of it lives is killed, and it counts as not started.
    StartLost,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub spawn_supervisor: bool,
    pub verdicts: Vec<(Id, Verdict)>,
}

pub fn plan(facts: &Facts) -> Plan {
    let verdicts: Vec<_> = facts.containers.iter().map(|c| (c.id.clone(), verdict(c))).collect();
    let spawn_supervisor = !facts.supervisor && verdicts.iter().any(|(_, v)| *v == Verdict::Adopt);
    Plan { spawn_supervisor, verdicts }
}

fn verdict(facts: &ContainerFacts) -> Verdict {
    use ContainerState::{Created, Exited, Running, Starting};
    match (facts.state, &facts.exit) {
        (Created | Exited, _) => Verdict::Keep,
        // The record is written before the supervisor forgets, so it wins over everything.
        (Starting | Running, Some(exit)) => Verdict::Ended(exit.clone()),
        (Starting | Running, None) if facts.supervised => Verdict::Supervised,
        // A live supervisor that does not know it never finished starting it, or was itself adopted too late.
        (Starting, None) => Verdict::StartLost,
        (Running, None) if facts.process => Verdict::Adopt,
        (Running, None) => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts() -> impl Strategy<Value = Facts> {
        let state = prop_oneof![
            Just(ContainerState::Created),
            Just(ContainerState::Starting),
            Just(ContainerState::Running),
            Just(ContainerState::Exited)
        ];
        let exit =
            proptest::option::of((0..256i32).prop_map(|code| ExitRecord { code, finished_at_ns: 1, unknown: false }));
        let container = (state, any::<bool>(), exit, any::<bool>()).prop_map(|(state, supervised, exit, process)| {
            ContainerFacts { id: Id::parse("c").expect("an id"), state, supervised, exit, process }
        });
        (any::<bool>(), proptest::collection::vec(container, 0..4)).prop_map(|(supervisor, containers)| {
            let containers = containers
                .into_iter()
                .map(|c| ContainerFacts { supervised: c.supervised && supervisor, ..c })
                .collect();
            Facts { supervisor, containers }
        })
    }

    /// The facts after every verdict has been carried out.
    fn applied(facts: &Facts, plan: &Plan) -> Facts {
        let containers = facts.containers.iter().zip(&plan.verdicts).map(|(c, (_, verdict))| {
            let mut c = c.clone();
            match verdict {
                Verdict::Keep => {}
                Verdict::Supervised => c.state = ContainerState::Running,
                Verdict::Adopt => c.supervised = true,
                Verdict::Ended(_) | Verdict::Unknown | Verdict::StartLost => c.state = ContainerState::Exited,
            }
            c
        });
        Facts { supervisor: facts.supervisor || plan.spawn_supervisor, containers: containers.collect() }
    }

    proptest! {
        #[test]
        fn after_an_apply_nothing_is_left_to_do(facts in facts()) {
            let after = applied(&facts, &plan(&facts));
            let again = plan(&after);
            prop_assert!(!again.spawn_supervisor);
            for (_, verdict) in again.verdicts {
                prop_assert!(matches!(verdict, Verdict::Keep | Verdict::Supervised));
            }
        }

        #[test]
        fn a_known_exit_code_is_never_lost(facts in facts()) {
            let plan = plan(&facts);
            for (c, (_, verdict)) in facts.containers.iter().zip(plan.verdicts) {
                if let (ContainerState::Starting | ContainerState::Running, Some(exit)) = (c.state, &c.exit) {
                    prop_assert_eq!(verdict, Verdict::Ended(exit.clone()));
                }
            }
        }

        #[test]
        fn a_running_process_is_never_given_up(facts in facts()) {
            let plan = plan(&facts);
            for (c, (_, verdict)) in facts.containers.iter().zip(plan.verdicts) {
                if c.state == ContainerState::Running && c.exit.is_none() && c.process {
                    prop_assert!(matches!(verdict, Verdict::Supervised | Verdict::Adopt));
                }
            }
        }
    }
}
