use std::time::Duration;

use crate::Rng;

/// Exponential back-off with a cap and up to a tenth of jitter.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(first: Duration, cap: Duration) -> Backoff {
        Backoff { first, cap, next: first }
    }

    /// How long to wait before the next try; doubles with each call.
    pub fn next(&mut self, rng: &Rng) -> Duration {
        let wait = self.next;
        self.next = (self.next * 2).min(self.cap);
        wait + wait.mul_f64(rng.fraction() * 0.1)
    }

    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_cap() {
        let (rng, mut backoff) = (Rng::seeded(1), Backoff::new(Duration::from_secs(1), Duration::from_secs(4)));
        let waits: Vec<u64> = (0..4).map(|_| backoff.next(&rng).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 4]);
        backoff.reset();
        assert_eq!(backoff.next(&rng).as_secs(), 1);
    }
}
