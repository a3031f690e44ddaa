//! `gantry trace pod`: the ten steps of a pod's way, joined from the records of the processes that it passed.

use std::path::Path;

use gantry_client::Client;
use gantry_kube::{Object, Ref, resource};
use jiff::Timestamp;
use serde_json::Value;

use crate::Failure;

/// One line of the trace.
#[derive(Clone, Debug, PartialEq)]
struct Passed {
    step: u64,
    what: String,
    process: &'static str,
    at: Timestamp,
}

#[derive(Debug, thiserror::Error)]
enum TraceError {
    #[error("no step of pod {0} is remembered: the record is in memory, bounded, and starts anew with its process")]
    Nothing(Ref),
}

pub async fn pod(kubeconfig: &Path, namespace: &str, name: &str) -> Result<(), Failure> {
    let client = Client::connect(kubeconfig, "gantry-trace").await?;
    let at = Ref::new(namespace, name);
    let object = client.get(&resource::POD, &at).await?;
    let path = format!("/debug/gantry/trace/{}", object.uid());
    let mut passed = Vec::new();
    let mut skews = Vec::new();
    for (process, path) in [("control", path.clone()), ("agent", on_node(&object, &path))] {
        match client.raw(&path).await {
            Ok(bytes) => {
                let record: Value = serde_json::from_slice(&bytes)?;
                passed.extend(read(&record, process));
                if let Some(now) = record["now"].as_str().and_then(|n| n.parse::<Timestamp>().ok()) {
                    skews.push((process, now));
                }
            }
            Err(error) => eprintln!("the {process}'s record cannot be had: {}", gantry_env::chain(&error)),
        }
    }
    passed.sort_by_key(|p| (p.at, p.step));
    if passed.is_empty() {
        return Err(TraceError::Nothing(at).into());
    }
    print!("{}", render(&passed, &skews));
    Ok(())
}

/// The agent's record is behind the API server's proxy to the node.
fn on_node(pod: &Object, path: &str) -> String {
    format!("/api/v1/nodes/{}/proxy{path}", pod.str_at("/spec/nodeName"))
}

fn read(record: &Value, process: &'static str) -> Vec<Passed> {
    let one = |step: &Value| {
        Some(Passed {
            step: step["step"].as_u64()?,
            what: step["what"].as_str().or(step["name"].as_str()).unwrap_or("").to_owned(),
            process,
            at: step["at"].as_str().or(step["time"].as_str())?.parse().ok()?,
        })
    };
    record["steps"].as_array().into_iter().flatten().filter_map(one).collect()
}

fn render(passed: &[Passed], skews: &[(&'static str, Timestamp)]) -> String {
    let (start, mut before) = (passed[0].at, passed[0].at);
    let mut out = format!("{:>4}  {:<9} {:<28} {:>12} {:>10}\n", "STEP", "PROCESS", "WHAT", "SINCE START", "TOOK");
    for p in passed {
        let ms = |from: Timestamp| p.at.duration_since(from).as_micros() as f64 / 1000.0;
        out.push_str(&format!(
            "{:>4}  {:<9} {:<28} {:>9.1} ms {:>7.1} ms\n",
            p.step,
            p.process,
            p.what,
            ms(start),
            ms(before)
        ));
        before = p.at;
    }
    if let [(_, first), (_, second)] = skews {
        let skew = second.duration_since(*first).as_millis();
        out.push_str(&format!("the agent's clock read {skew} ms after control's (the time of two calls included)\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn steps_of_both_processes_stand_in_one_order() {
        let control = json!({"steps": [{"step": 1, "what": "received", "at": "2026-01-01T00:00:00.000000Z"},
                                       {"step": 6, "what": "bound", "at": "2026-01-01T00:00:00.004500Z"}]});
        let agent = json!({"steps": [{"step": 7, "what": "heard", "at": "2026-01-01T00:00:00.005000Z"}]});
        let mut passed = read(&agent, "agent");
        passed.extend(read(&control, "control"));
        passed.sort_by_key(|p| (p.at, p.step));
        let text = render(&passed, &[]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("received") && lines[3].contains("heard") && lines[3].contains("5.0 ms"), "{text}");
    }
}
