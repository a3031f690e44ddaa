//! Several who stand for one lease, over the API, under paused time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::controllers::house::House;
use crate::scheduler::USER;

const NAME: &str = "kube-scheduler";

/// Who leads at present, and how many at most led at once.
#[derive(Default)]
struct Leaders {
    now: AtomicUsize,
    most: AtomicUsize,
    terms: AtomicUsize,
}

impl Leaders {
    fn stand(self: &Arc<Self>, house: &House, host: &str) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let stop = CancellationToken::new();
        let candidate = Candidate::new(house.client(USER), NAME, host, house.env.clone(), stop.clone());
        let leaders = self.clone();
        let task = tokio::spawn(candidate.run(move |term: CancellationToken| {
            let leaders = leaders.clone();
            async move {
                let now = leaders.now.fetch_add(1, Ordering::SeqCst) + 1;
                leaders.most.fetch_max(now, Ordering::SeqCst);
                leaders.terms.fetch_add(1, Ordering::SeqCst);
                term.cancelled().await;
                leaders.now.fetch_sub(1, Ordering::SeqCst);
            }
        }));
        (stop, task)
    }

    fn leading(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }
}

async fn holder(house: &House) -> String {
    let lease = house.admin().get(&LEASE, &Ref::new("kube-system", NAME)).await.unwrap();
    lease.str_at("/spec/holderIdentity").split('_').next().unwrap_or("").to_owned()
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_the_next_follows_at_once_or_after_its_silence() {
    let house = House::new().await;
    let leaders = Arc::new(Leaders::default());
    let (stop_a, task_a) = leaders.stand(&house, "a");
    seconds(1).await;
    let (stop_b, task_b) = leaders.stand(&house, "b");
    seconds(60).await;
    assert_eq!((leaders.leading(), holder(&house).await), (1, "a".to_owned()));
    // An orderly end gives the lease back.
    stop_a.cancel();
    task_a.await.unwrap();
    seconds(3).await;
    assert_eq!((leaders.leading(), holder(&house).await), (1, "b".to_owned()));
    // One that is killed gives nothing back.
    task_b.abort();
    let (stop_c, task_c) = leaders.stand(&house, "c");
    seconds(12).await;
    assert_eq!(holder(&house).await, "b");
    seconds(6).await;
    assert_eq!(holder(&house).await, "c");
    stop_b.cancel();
    stop_c.cancel();
    task_c.await.unwrap();
    assert_eq!(holder(&house).await, "");
    assert_eq!(leaders.terms.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn who_loses_the_lease_ends_its_loop_and_stands_again() {
    let house = House::new().await;
    let leaders = Arc::new(Leaders::default());
    let (stop, task) = leaders.stand(&house, "a");
    seconds(5).await;
    assert_eq!(leaders.leading(), 1);
    let at = Ref::new("kube-system", NAME);
    let mut lease = house.admin().get(&LEASE, &at).await.unwrap();
    lease.map_mut("spec").insert("holderIdentity".to_owned(), "somebody".into());
    house.admin().update(&LEASE, &lease).await.unwrap();
    seconds(3).await;
    assert_eq!(leaders.leading(), 0, "it goes on although another leads");
    seconds(20).await;
    assert_eq!((leaders.leading(), holder(&house).await), (1, "a".to_owned()));
    assert_eq!((leaders.terms.load(Ordering::SeqCst), leaders.most.load(Ordering::SeqCst)), (2, 1));
    stop.cancel();
    task.await.unwrap();
}
