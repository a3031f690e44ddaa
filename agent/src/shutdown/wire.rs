//! How `gantry shutdown` and `gantry image prune` speak with the agent on its socket: one line of JSON asks, and lines answer
//! until all is done.

use serde::{Deserialize, Serialize};

use crate::eviction::images::report::Report;

/// The longest line that either side reads.
pub const LINE_MAX_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Begin, or go on, and say how it goes until it is done.
    ShutDown,
    /// The machine stays: take pods again.
    Cancel,
    /// Say what becomes of the images, by one line ([`Images`]), and remove those that may go if so told.
    #[serde(rename_all = "camelCase")]
    Images { remove: bool },
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Progress {
    /// The node takes pods.
    #[default]
    Serving,
    /// Pods of this priority and above are told to end.
    #[serde(rename_all = "camelCase")]
    Ending { priority: i32, pods: usize, seconds: u32 },
    /// Every pod has ended or had its time; the API is to hear of it.
    Telling,
    #[serde(rename_all = "camelCase")]
    Done(Outcome),
}

/// What became of the pods, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub ended: usize,
    /// Their time is over, and they run still.
    pub running: Vec<String>,
    /// They have ended, and the API does not know it.
    pub untold: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// Comes first: all of it takes no longer.
    #[serde(rename_all = "camelCase")]
    Begun { within_seconds: u64 },
    /// Comes whenever that changes. The last is that all is done.
    Now(Progress),
    /// The last, where it was called off.
    Cancelled,
    /// This node's pods have no time to end in order.
    Off,
}

/// The answer to [`Request::Images`]. None where the runtime does not tell.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Images(pub Option<Report>);

#[cfg(test)]
mod tests {
    use super::*;

    /// A command of one version may meet an agent of another.
    #[test]
    fn lines_are_what_they_were() {
        let line = |answer: &Answer| serde_json::to_string(answer).unwrap();
        assert_eq!(serde_json::to_string(&Request::ShutDown).unwrap(), "\"shutDown\"");
        assert_eq!(
            serde_json::to_string(&Request::Images { remove: false }).unwrap(),
            r#"{"images":{"remove":false}}"#
        );
        assert_eq!(line(&Answer::Begun { within_seconds: 35 }), r#"{"begun":{"withinSeconds":35}}"#);
        let ending = Answer::Now(Progress::Ending { priority: 0, pods: 2, seconds: 20 });
        assert_eq!(line(&ending), r#"{"now":{"ending":{"priority":0,"pods":2,"seconds":20}}}"#);
        let done = Answer::Now(Progress::Done(Outcome { ended: 1, ..Outcome::default() }));
        assert_eq!(line(&done), r#"{"now":{"done":{"ended":1,"running":[],"untold":[]}}}"#);
        assert_eq!((line(&Answer::Cancelled), line(&Answer::Off)), ("\"cancelled\"".into(), "\"off\"".into()));
    }
}
