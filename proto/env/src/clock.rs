use jiff::Timestamp;
use tokio::time::Instant;

/// Wall time: the machine's, or one derived from tokio's timers.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Simulated { origin: Instant, start: Timestamp },
}

impl Clock {
    pub fn system() -> Clock {
        Clock(Source::System)
    }

    /// Must be called inside a tokio runtime.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads tokio's clock for wall time")]
    pub fn simulated(start: Timestamp) -> Clock {
        Clock(Source::Simulated { origin: Instant::now(), start })
    }

    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::now(),
            Source::Simulated { origin, start } => *start + origin.elapsed(),
        }
    }

    /// metav1.Time: RFC 3339 in whole seconds.
    pub fn now_rfc3339(&self) -> String {
        format_seconds(self.now())
    }

    /// metav1.MicroTime: RFC 3339 with six digits of fraction.
    pub fn now_rfc3339_micro(&self) -> String {
        format_micros(self.now())
    }
}

/// `2026-01-02T03:04:05Z`.
pub fn format_seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-01-02T03:04:05.000006Z`.
pub fn format_micros(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_follows_the_timers() {
        let clock = Clock::simulated(Timestamp::UNIX_EPOCH);
        tokio::time::advance(std::time::Duration::from_millis(61_500)).await;
        assert_eq!(clock.now_rfc3339(), "1970-01-01T00:01:01Z");
        assert_eq!(clock.now_rfc3339_micro(), "1970-01-01T00:01:01.500000Z");
    }
}
