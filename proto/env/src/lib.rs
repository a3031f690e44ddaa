//! What a process takes from its surroundings: the one clock, the one die, the addresses behind names; and what it tells of
//! itself in numbers. Wall time and chance reach every crate through [`Env`], so that a test can replay a
//! run: tokio's paused timers drive the clock, a seed drives the dice. Waiting itself is always tokio's.

#![forbid(unsafe_code)]

mod backoff;
mod chain;
mod clock;
pub mod metrics;
mod names;
mod rng;

pub use backoff::Backoff;
pub use chain::chain;
pub use clock::{Clock, format_micros, format_seconds};
pub use names::resolve;
pub use rng::Rng;

/// Wall time and chance, passed down from `main` (or from a test).
#[derive(Clone, Debug)]
pub struct Env {
    pub clock: Clock,
    pub rng: Rng,
}

impl Env {
    /// The machine's own clock and entropy.
    pub fn system() -> Env {
        Env { clock: Clock::system(), rng: Rng::from_os() }
    }

    /// A clock that starts at `start` and follows tokio's (paused) time, and dice from `seed`.
    pub fn simulated(start: jiff::Timestamp, seed: u64) -> Env {
        Env { clock: Clock::simulated(start), rng: Rng::seeded(seed) }
    }
}
