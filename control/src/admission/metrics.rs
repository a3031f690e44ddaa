//! How long admission takes, under the name that Kubernetes has for a whole step of it.

use std::time::Duration;

use gantry_env::metrics::{Histogram, Text};

use super::Operation;

const SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
/// In the order of [`Operation`].
const OPERATIONS: [&str; 4] = ["CREATE", "UPDATE", "DELETE", "CONNECT"];

/// The two halves of admission.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Admit,
    Validate,
}

/// In the order of [`Step`].
const STEPS: [&str; 2] = ["admit", "validate"];

/// By operation and step, what was let through and what was refused.
#[derive(Debug)]
pub struct Metrics([[[Histogram; 2]; STEPS.len()]; OPERATIONS.len()]);

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics(std::array::from_fn(|_| std::array::from_fn(|_| std::array::from_fn(|_| Histogram::new(SECONDS)))))
    }
}

impl Metrics {
    pub fn note(&self, operation: Operation, step: Step, refused: bool, took: Duration) {
        self.0[operation as usize][step as usize][usize::from(refused)].observe(took.as_secs_f64());
    }

    pub fn write(&self, text: &mut Text) {
        let name = "apiserver_admission_step_admission_duration_seconds";
        text.family(name, "histogram", "How long admission took");
        for (operation, steps) in OPERATIONS.iter().zip(&self.0) {
            for (step, both) in STEPS.iter().zip(steps) {
                for (rejected, histogram) in ["false", "true"].into_iter().zip(both) {
                    let labels = [("operation", *operation), ("rejected", rejected), ("type", *step)];
                    text.histogram(name, &labels, histogram);
                }
            }
        }
    }
}
