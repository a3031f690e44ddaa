//! The query string: decoded pairs, the parameters each verb honours, and the refusal of every other one by name.

use gantry_kube::Status;
use percent_encoding::percent_decode_str;

/// The decoded parameters, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

/// What every resource request may carry; `pretty` changes only white space, for whatever answer there is.
const COMMON: &[&str] = &["pretty", "timeout"];
const LIST: &[&str] = &[
    "includeObject",
    "labelSelector",
    "fieldSelector",
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
    "timeoutSeconds",
    "watch",
    "allowWatchBookmarks",
    "sendInitialEvents",
];
const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const DELETE: &[&str] = &[
    "dryRun",
    "gracePeriodSeconds",
    "orphanDependents",
    "propagationPolicy",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
];
const LOG: &[&str] = &[
    "container",
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "insecureSkipTLSVerifyBackend",
    "stream",
];
const ATTACH: &[&str] = &["stdin", "stdout", "stderr", "tty", "container"];

impl Query {
    pub fn parse(text: &str) -> Query {
        let pairs = text
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(key), decode(value))
            })
            .collect();
        Query { pairs }
    }

    /// The first value, if there is one that is not empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// True for `watch=true`, `watch=1` and a bare `watch`.
    pub fn flag(&self, key: &str) -> bool {
        self.pairs.iter().any(|(k, v)| k == key && !matches!(v.as_str(), "false" | "0" | "False" | "f"))
    }

    pub fn bool(&self, key: &str) -> Result<Option<bool>, Status> {
        match self.get(key) {
            None => Ok(None),
            Some("true" | "1" | "True" | "t") => Ok(Some(true)),
            Some("false" | "0" | "False" | "f") => Ok(Some(false)),
            Some(other) => Err(Status::bad_request(format!("invalid value {other:?} for query parameter {key:?}"))),
        }
    }

    pub fn number(&self, key: &str) -> Result<Option<i64>, Status> {
        self.get(key)
            .map(|text| {
                text.parse()
                    .map_err(|_| Status::bad_request(format!("invalid value {text:?} for query parameter {key:?}")))
            })
            .transpose()
    }

    /// Refuses by name what the verb on this subresource does not honour.
    pub fn refuse_unknown(&self, verb: &str, subresource: &str) -> Result<(), Status> {
        let allowed: &[&[&str]] = match (verb, subresource) {
            (_, "log") => &[LOG],
            (_, "exec") => &[ATTACH, &["command"]],
            (_, "attach") => &[ATTACH],
            (_, "portforward") => &[],
            ("get", _) => &[&["resourceVersion", "includeObject"]],
            ("list" | "watch", _) => &[LIST],
            ("create" | "update", _) => &[WRITE],
            ("patch", _) => &[WRITE, &["force"]],
            ("delete", _) => &[DELETE],
            ("deletecollection", _) => &[DELETE, LIST],
            _ => &[],
        };
        match self
            .pairs
            .iter()
            .find(|(k, _)| !COMMON.contains(&k.as_str()) && !allowed.iter().any(|set| set.contains(&k.as_str())))
        {
            Some((unknown, _)) => {
                Err(Status::bad_request(format!("query parameter {unknown:?} is not supported for the verb {verb:?}")))
            }
            None => Ok(()),
        }
    }
}

fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

pub fn decode_path_segment(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_honoured_is_refused_by_name() {
        let refusal = Query::parse("limit=5&shiny=1").refuse_unknown("list", "").unwrap_err();
        assert_eq!(refusal.code, 400);
        assert!(refusal.message.contains("shiny"));
        assert!(Query::parse("dryRun=All&pretty=true").refuse_unknown("create", "").is_ok());
        assert!(Query::parse("dryRun=All").refuse_unknown("list", "").is_err());
    }

    #[test]
    fn values_are_decoded() {
        let query = Query::parse("labelSelector=a%3Db%2Cc&x=1+2&command=a&command=b");
        assert_eq!(query.get("labelSelector"), Some("a=b,c"));
        assert_eq!(query.get("x"), Some("1 2"));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["a", "b"]);
    }
}
