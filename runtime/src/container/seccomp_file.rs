//! Seccomp profiles in the JSON form that Docker and Kubernetes users write (OCI's, with `names`). What is not understood
//! fails: a filter that is weaker than its author thinks is worse than none.

use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use serde::Deserialize;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("is not a profile")]
    Json(#[from] serde_json::Error),
    #[error("action {0:?} is not supported")]
    Action(String),
    #[error("comparison {0:?} is not supported")]
    Comparison(String),
    #[error("flag {0:?} is not supported")]
    Flag(String),
    #[error("architecture {0:?} is not known")]
    Architecture(String),
    #[error("has both architectures and an archMap")]
    TwoArchitectures,
    #[error("listener {0:?} is not supported")]
    Listener(String),
    #[error("conditions on capabilities or kernels are not supported in syscall rule {0}")]
    Conditional(usize),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchDocument>>,
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    #[serde(rename = "listenerMetadata")]
    _listener_metadata: Option<String>,
    syscalls: Option<Vec<RuleDocument>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArchDocument {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleDocument {
    names: Option<Vec<String>>,
    /// As Docker's older profiles have it, one a rule.
    name: Option<String>,
    action: String,
    errno_ret: Option<u32>,
    /// The word for `errnoRet`, for people.
    #[serde(rename = "errno")]
    _errno: Option<String>,
    args: Option<Vec<ArgDocument>>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
    includes: Option<serde_json::Map<String, serde_json::Value>>,
    excludes: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArgDocument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

pub struct Rule {
    names: Vec<String>,
    action: ScmpAction,
    args: Vec<ScmpArgCompare>,
}

pub struct Profile {
    /// seccomp(2)'s.
    pub flags: u32,
    default: ScmpAction,
    /// None where the profile says nothing of them.
    architectures: Option<Vec<ScmpArch>>,
    rules: Vec<Rule>,
}

pub fn parse(text: &str) -> Result<Profile, FileError> {
    let document: Document = serde_json::from_str(text)?;
    let default = action(&document.default_action, document.default_errno_ret)?;
    if let Some(path) = document.listener_path.filter(|path| !path.is_empty()) {
        return Err(FileError::Listener(path));
    }
    let flags = document.flags.unwrap_or_default().iter().map(|name| flag(name)).sum::<Result<u32, _>>()?;
    let architectures = architectures(document.architectures, document.arch_map)?;
    let mut rules = Vec::new();
    for (index, rule) in document.syscalls.unwrap_or_default().into_iter().enumerate() {
        if [rule.includes, rule.excludes].iter().flatten().any(|conditions| !conditions.is_empty()) {
            return Err(FileError::Conditional(index));
        }
        let args = rule.args.unwrap_or_default().iter().map(argument).collect::<Result<_, _>>()?;
        let names = rule.names.unwrap_or_default().into_iter().chain(rule.name).collect();
        rules.push(Rule { names, action: action(&rule.action, rule.errno_ret)?, args });
    }
    Ok(Profile { flags, default, architectures, rules })
}

fn flag(name: &str) -> Result<u32, FileError> {
    match name {
        // Who loads the filter has one thread.
        "SECCOMP_FILTER_FLAG_TSYNC" => Ok(0),
        "SECCOMP_FILTER_FLAG_LOG" => Ok(libc::SECCOMP_FILTER_FLAG_LOG as u32),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Ok(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32),
        other => Err(FileError::Flag(other.to_owned())),
    }
}

/// A list of them, or Docker's map, of which the entry of this machine counts.
fn architectures(
    list: Option<Vec<String>>,
    map: Option<Vec<ArchDocument>>,
) -> Result<Option<Vec<ScmpArch>>, FileError> {
    let known = |name: &String| name.parse::<ScmpArch>().map_err(|_| FileError::Architecture(name.clone()));
    let known = |names: &[String]| names.iter().map(known).collect::<Result<Vec<_>, _>>();
    let list = list.filter(|list| !list.is_empty());
    match (list, map.filter(|map| !map.is_empty())) {
        (None, None) => Ok(None),
        (Some(list), None) => known(&list).map(Some),
        (Some(_), Some(_)) => Err(FileError::TwoArchitectures),
        (None, Some(map)) => {
            let mut own = Vec::new();
            for entry in map {
                let [arch] = known(&[entry.architecture])?[..] else { continue };
                let others = known(&entry.sub_architectures.unwrap_or_default())?;
                if arch == ScmpArch::native() {
                    own.extend(others);
                }
            }
            Ok(Some(own))
        }
    }
}

fn action(name: &str, errno: Option<u32>) -> Result<ScmpAction, FileError> {
    let errno = errno.unwrap_or(1) as i32;
    Ok(match name {
        "SCMP_ACT_ALLOW" => ScmpAction::Allow,
        "SCMP_ACT_ERRNO" => ScmpAction::Errno(errno),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => ScmpAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => ScmpAction::KillProcess,
        "SCMP_ACT_TRAP" => ScmpAction::Trap,
        "SCMP_ACT_LOG" => ScmpAction::Log,
        other => return Err(FileError::Action(other.to_owned())),
    })
}

fn argument(arg: &ArgDocument) -> Result<ScmpArgCompare, FileError> {
    let (op, value) = match arg.op.as_str() {
        "SCMP_CMP_NE" => (ScmpCompareOp::NotEqual, arg.value),
        "SCMP_CMP_LT" => (ScmpCompareOp::Less, arg.value),
        "SCMP_CMP_LE" => (ScmpCompareOp::LessOrEqual, arg.value),
        "SCMP_CMP_EQ" => (ScmpCompareOp::Equal, arg.value),
        "SCMP_CMP_GE" => (ScmpCompareOp::GreaterEqual, arg.value),
        "SCMP_CMP_GT" => (ScmpCompareOp::Greater, arg.value),
        "SCMP_CMP_MASKED_EQ" => (ScmpCompareOp::MaskedEqual(arg.value), arg.value_two),
        other => return Err(FileError::Comparison(other.to_owned())),
    };
    Ok(ScmpArgCompare::new(arg.index, op, value))
}

pub fn build(profile: &Profile) -> Result<ScmpFilterContext, SeccompError> {
    let mut filter = ScmpFilterContext::new(profile.default)?;
    super::seccomp::architectures(&mut filter, profile.architectures.as_deref())?;
    for rule in profile.rules.iter().filter(|rule| rule.action != profile.default) {
        for call in rule.names.iter().filter_map(|name| ScmpSyscall::from_name(name).ok()) {
            filter.add_rule_conditional(rule.action, call, &rule.args)?;
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;

    fn with(more: &str) -> Result<Profile, FileError> {
        parse(&format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW",{more}}}"#))
    }

    fn program(profile: &Profile) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        build(profile).unwrap().export_bpf(&mut file).unwrap();
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).unwrap();
        bytes
    }

    /// Whether an instruction compares with that number.
    fn asks_for(profile: &Profile, number: u32) -> bool {
        program(profile).chunks_exact(8).any(|instruction| instruction[4..] == number.to_le_bytes())
    }

    #[test]
    fn flags_are_the_kernels_or_refused() {
        let flags = |list: &str| with(&format!(r#""flags":{list}"#)).map(|profile| profile.flags);
        assert_eq!(flags("null").unwrap(), 0);
        assert_eq!(flags(r#"["SECCOMP_FILTER_FLAG_TSYNC"]"#).unwrap(), 0);
        assert_eq!(flags(r#"["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_SPEC_ALLOW"]"#).unwrap(), 6);
        for bad in ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "LOG"] {
            assert!(matches!(flags(&format!("[{bad:?}]")), Err(FileError::Flag(name)) if name == bad));
        }
    }

    #[test]
    fn only_the_architectures_that_are_listed_may_call() {
        // The machine's own, and the older one that it runs too; the kernel's number of that (include/uapi/linux/audit.h).
        let (native, other, number) = if cfg!(target_arch = "aarch64") {
            ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", 0x4000_0028)
        } else {
            ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", 0x4000_0003)
        };
        let rule = r#""syscalls":[{"names":["chmod","fchmodat"],"action":"SCMP_ACT_ERRNO"}]"#;
        let takes_other = |more: &str| asks_for(&with(&format!("{more}{rule}")).unwrap(), number);
        assert!(takes_other(""), "all that there are, where nothing is said");
        assert!(takes_other(&format!(r#""architectures":[{native:?},{other:?}],"#)));
        assert!(takes_other(r#""architectures":[],"#));
        // One that this machine cannot run needs no rules.
        for list in [format!("[{native:?}]"), format!(r#"[{native:?},"SCMP_ARCH_S390X"]"#)] {
            assert!(!takes_other(&format!(r#""architectures":{list},"#)), "{list}");
        }
        let by_map = |own: &str, foreign: &str| {
            takes_other(&format!(
                r#""archMap":[{{"architecture":{native:?},"subArchitectures":{own}}},
                   {{"architecture":"SCMP_ARCH_S390X","subArchitectures":{foreign}}}],"#
            ))
        };
        let others = format!("[{other:?}]");
        assert!(by_map(&others, "null") && !by_map("null", "[]") && !by_map("[]", &others));
        assert!(matches!(with(r#""architectures":["SCMP_ARCH_Z80"]"#), Err(FileError::Architecture(_))));
    }

    #[test]
    fn what_is_not_understood_is_no_profile() {
        for bad in [
            r#""architecture":[]"#,
            r#""listenerPath":"/run/listener""#,
            r#""syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO","unless":{}}]"#,
            r#""syscalls":[{"names":["chmod"],"action":"SCMP_ACT_TRACE"}]"#,
            r#""syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO","includes":{"caps":["CAP_SYS_ADMIN"]}}]"#,
            r#""architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]"#,
        ] {
            assert!(with(bad).is_err(), "{bad}");
        }
        let docker = r#""syscalls":[{"name":"chmod","comment":"","action":"SCMP_ACT_ERRNO","args":null,"includes":{},"excludes":{}}]"#;
        assert!(program(&with(docker).unwrap()) != program(&with(r#""syscalls":null"#).unwrap()), "by one name, too");
    }
}
