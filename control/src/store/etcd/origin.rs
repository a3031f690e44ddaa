use serde::{Deserialize, Serialize};

use crate::store::{Revision, StoreError};

const FORMAT: u32 = 1;

/// What turns etcd's revisions into the store's: kept in etcd beside the objects, and read by every API server.
///
/// A store that is filled from a copy goes on above the newest revision of its source, so that for its clients revisions
/// only ever grow. What was before the origin was written is another time, which nobody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    offset: i64,
    /// etcd's revision of the origin's own write.
    at: i64,
    /// A copy is under way, or was cut off.
    pub filling: bool,
}

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    offset: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    filling: bool,
}

impl Origin {
    /// The value to write, for every later revision to be greater than `above`, where etcd stands at `now`.
    pub fn record(above: Revision, now: i64, filling: bool) -> Vec<u8> {
        let offset = i64::try_from(above).unwrap_or(i64::MAX).saturating_sub(now).max(0);
        serde_json::to_vec(&Record { format: FORMAT, offset, filling }).unwrap_or_default()
    }

    /// The same origin without the mark of a copy, as of the write that says so.
    pub fn filled(self) -> Vec<u8> {
        serde_json::to_vec(&Record { format: FORMAT, offset: self.offset, filling: false }).unwrap_or_default()
    }

    pub fn read(place: &str, value: &[u8], at: i64) -> Result<Origin, StoreError> {
        let foreign = |why: String| StoreError::Foreign { place: place.to_owned(), why };
        let record: Record =
            serde_json::from_slice(value).map_err(|error| foreign(format!("its origin is not readable: {error}")))?;
        if record.format != FORMAT {
            return Err(foreign(format!("it has the format {}, this program knows {FORMAT}", record.format)));
        }
        Ok(Origin { offset: record.offset, at, filling: record.filling })
    }

    /// etcd's revision of the origin's own write.
    pub fn at(&self) -> i64 {
        self.at
    }

    /// The oldest revision that there can be.
    pub fn oldest(&self) -> Revision {
        self.ours(self.at)
    }

    pub fn ours(&self, theirs: i64) -> Revision {
        u64::try_from(theirs.saturating_add(self.offset)).unwrap_or(0)
    }

    /// etcd's revision; one that never was where ours cannot be.
    pub fn theirs(&self, ours: Revision) -> i64 {
        let theirs = i64::try_from(ours).unwrap_or(i64::MAX).saturating_sub(self.offset);
        if theirs > 0 { theirs } else { -1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_go_there_and_back_and_only_grow() {
        let fresh = Origin::read("x", &Origin::record(0, 1, false), 2).unwrap();
        assert_eq!((fresh.oldest(), fresh.ours(7), fresh.theirs(7), fresh.theirs(0)), (2, 7, 7, -1));
        let raised = Origin::read("x", &Origin::record(1000, 40, true), 41).unwrap();
        assert!(raised.filling && raised.oldest() > 1000);
        assert_eq!(raised.theirs(raised.ours(50)), 50);
        let filled = Origin::read("x", &raised.filled(), 41).unwrap();
        assert_eq!(filled, Origin { filling: false, ..raised });
        // An etcd that is further than the source needs no offset.
        assert_eq!(Origin::read("x", &Origin::record(5, 40, false), 41).unwrap().ours(41), 41);
    }

    #[test]
    fn what_another_wrote_is_refused_by_name() {
        for (bad, why) in [(&b"?"[..], "not readable"), (br#"{"format":2,"offset":0}"#, "format 2")] {
            let error = Origin::read("etcd /gantry", bad, 1).unwrap_err().to_string();
            assert!(error.contains("etcd /gantry") && error.contains(why), "{error}");
        }
    }
}
