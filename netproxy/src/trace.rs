use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

/// The oldest is forgotten first.
const RECORDS_MAX: usize = 4096;

/// When this node's rules first led to a pod (step 10 of its way). Cheap to clone; bounded.
#[derive(Clone, Debug, Default)]
pub struct Programmed(Arc<Mutex<Records>>);

#[derive(Debug, Default)]
struct Records {
    order: VecDeque<(String, Timestamp)>,
    known: HashSet<String>,
}

impl Programmed {
    /// Notes the time for pods that were not noted yet.
    pub fn note<'a>(&self, pod_uids: impl Iterator<Item = &'a str>, at: Timestamp) {
        let mut records = self.0.lock();
        for uid in pod_uids.filter(|uid| !uid.is_empty()) {
            if records.known.contains(uid) {
                continue;
            }
            if records.order.len() == RECORDS_MAX
                && let Some((oldest, _)) = records.order.pop_front()
            {
                records.known.remove(&oldest);
            }
            records.known.insert(uid.to_owned());
            records.order.push_back((uid.to_owned(), at));
        }
    }

    pub fn at(&self, pod_uid: &str) -> Option<Timestamp> {
        self.0.lock().order.iter().find(|(uid, _)| uid == pod_uid).map(|(_, at)| *at)
    }
}
