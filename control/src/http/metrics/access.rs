//! Who came in, and who was let through.

use std::time::Duration;

use gantry_env::metrics::{Counter, Histogram, Text};

/// A millisecond and its doubles.
const SECONDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
/// Users that are told apart, as in Kubernetes; of all others it is told how many they are.
const USERS: [&str; 7] =
    ["admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default", "email_id", "other"];

/// How often something ended so, and how long it took.
#[derive(Debug)]
struct Outcome {
    name: &'static str,
    count: Counter,
    seconds: Histogram,
}

impl Outcome {
    fn new(name: &'static str) -> Outcome {
        Outcome { name, count: Counter::default(), seconds: Histogram::new(SECONDS) }
    }

    fn note(&self, took: Duration) {
        self.count.inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

#[derive(Debug)]
pub struct Access {
    /// Known, and refused.
    authentications: [Outcome; 2],
    /// Allowed, and allowed by no rule.
    authorizations: [Outcome; 2],
    users: [Counter; USERS.len()],
}

impl Default for Access {
    fn default() -> Access {
        Access {
            authentications: [Outcome::new("success"), Outcome::new("failure")],
            authorizations: [Outcome::new("allowed"), Outcome::new("no-opinion")],
            users: Default::default(),
        }
    }
}

impl Access {
    /// Somebody came; absent: it could not be said who.
    pub fn authenticated(&self, user: Option<&str>, took: Duration) {
        self.authentications[usize::from(user.is_none())].note(took);
        let Some(user) = user else { return };
        let known = USERS[..5].iter().position(|known| *known == user);
        let at = known.unwrap_or(if user.contains('@') { 5 } else { 6 });
        self.users[at].inc();
    }

    pub fn authorized(&self, allowed: bool, took: Duration) {
        self.authorizations[usize::from(!allowed)].note(took);
    }

    pub fn write(&self, text: &mut Text) {
        text.family("authenticated_user_requests", "counter", "Requests by user, where the user is one of a few");
        for (user, count) in USERS.iter().zip(&self.users).filter(|(_, count)| count.get() > 0) {
            text.count("authenticated_user_requests", &[("username", user)], count.get());
        }
        let [attempts, durations] = ["authentication_attempts", "authentication_duration_seconds"];
        outcomes(text, (attempts, "Requests by whether it was known whose they are"), durations, &self.authentications);
        let [attempts, durations] = ["authorization_attempts_total", "authorization_duration_seconds"];
        outcomes(text, (attempts, "Requests by whether a rule allows them"), durations, &self.authorizations);
    }
}

fn outcomes(text: &mut Text, (attempts, help): (&str, &str), durations: &str, all: &[Outcome; 2]) {
    text.family(attempts, "counter", help);
    for outcome in all {
        text.count(attempts, &[("result", outcome.name)], outcome.count.get());
    }
    text.family(durations, "histogram", "How long it took to say so");
    for outcome in all {
        text.histogram(durations, &[("result", outcome.name)], &outcome.seconds);
    }
}
