//! Seccomp profiles in the JSON form that Docker and Kubernetes users write (OCI's, with `names`). What is not understood
//! fails: a filter that is weaker than its author thinks is worse than none.

use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use serde::Deserialize;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("is not a profile")]
    Json(#[from] serde_json::Error),
    #[error("action {0:?} is not supported")]
    Action(String),
    #[error("comparison {0:?} is not supported")]
    Comparison(String),
    #[error("conditions on capabilities or kernels are not supported in syscall rule {0}")]
    Conditional(usize),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<RuleDocument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleDocument {
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<ArgDocument>>,
    #[serde(default)]
    includes: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    excludes: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
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
    default: ScmpAction,
    rules: Vec<Rule>,
}

pub fn parse(text: &str) -> Result<Profile, FileError> {
    let document: Document = serde_json::from_str(text)?;
    let default = action(&document.default_action, document.default_errno_ret)?;
    let mut rules = Vec::new();
    for (index, rule) in document.syscalls.into_iter().enumerate() {
        if !rule.includes.is_empty() || !rule.excludes.is_empty() {
            return Err(FileError::Conditional(index));
        }
        let args = rule.args.unwrap_or_default().iter().map(argument).collect::<Result<_, _>>()?;
        rules.push(Rule { names: rule.names, action: action(&rule.action, rule.errno_ret)?, args });
    }
    Ok(Profile { default, rules })
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
    super::seccomp::architectures(&mut filter)?;
    for rule in profile.rules.iter().filter(|rule| rule.action != profile.default) {
        for call in rule.names.iter().filter_map(|name| ScmpSyscall::from_name(name).ok()) {
            filter.add_rule_conditional(rule.action, call, &rule.args)?;
        }
    }
    Ok(filter)
}
