//! A node's `/metrics/resource` as it is read, and what two readings amount to. Pure.

use std::collections::BTreeMap;

const NANOS_PER_SECOND: f64 = 1e9;
/// Closer readings make no rate.
const WINDOW_MIN_MILLIS: i64 = 900;

/// What one thing had used at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    pub at_millis: i64,
    pub cpu_nanos: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub started_millis: Option<i64>,
}

/// Namespace and name.
type PodName = (String, String);

/// One reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    pub node: Point,
    /// By pod and container.
    pub pods: BTreeMap<PodName, BTreeMap<String, Point>>,
}

/// What one thing uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    pub at_millis: i64,
    pub window_millis: i64,
    pub cpu_nano_cores: u64,
    pub memory_bytes: u64,
}

/// What the containers of a pod use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodMeasure {
    pub at_millis: i64,
    pub window_millis: i64,
    pub containers: Vec<(String, Measure)>,
}

/// Reads the text form of Prometheus; what is no sample of the wanted names is passed over. Numbers without a time of their
/// own are those of `received_millis`.
pub fn parse(text: &str, received_millis: i64) -> Scrape {
    let mut scrape = Scrape::default();
    for line in text.lines() {
        let Some(sample) = sample(line, received_millis) else { continue };
        let (is_node, name) = match sample.name.split_once('_') {
            Some(("node", name)) => (true, name),
            Some(("container", name)) => (false, name),
            _ => continue,
        };
        let point = if is_node {
            &mut scrape.node
        } else {
            let label = |key: &str| sample.labels.get(key).cloned().unwrap_or_default();
            let pod = scrape.pods.entry((label("namespace"), label("pod"))).or_default();
            pod.entry(label("container")).or_default()
        };
        match name {
            "cpu_usage_seconds_total" => {
                point.cpu_nanos = Some((sample.value * NANOS_PER_SECOND).round() as u64);
                // The processor's time is the one that the rate goes by.
                point.at_millis = sample.at_millis;
            }
            "memory_working_set_bytes" => point.memory_bytes = Some(sample.value as u64),
            "start_time_seconds" => point.started_millis = Some((sample.value * 1000.0) as i64),
            _ => {}
        }
    }
    scrape
}

struct Sample<'a> {
    name: &'a str,
    labels: BTreeMap<&'a str, String>,
    value: f64,
    at_millis: i64,
}

fn sample(line: &str, received_millis: i64) -> Option<Sample<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let mut words = rest.split_whitespace();
    let value: f64 = words.next()?.parse().ok()?;
    let at_millis = words.next().and_then(|word| word.parse().ok()).unwrap_or(received_millis);
    (value.is_finite() && value >= 0.0).then_some(Sample { name, labels, value, at_millis })
}

/// `a="b",c="d"} …`: the labels, and what follows them.
fn labels(text: &str) -> Option<(BTreeMap<&str, String>, &str)> {
    let (mut labels, mut rest) = (BTreeMap::new(), text);
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (mut value, mut escaped, mut end) = (String::new(), false, None);
        for (i, c) in quoted.char_indices() {
            match c {
                'n' if escaped => value.push('\n'),
                _ if escaped => value.push(c),
                '\\' => {
                    escaped = true;
                    continue;
                }
                '"' => {
                    end = Some(i);
                    break;
                }
                _ => value.push(c),
            }
            escaped = false;
        }
        labels.insert(name, value);
        rest = &quoted[end? + 1..];
    }
}

fn between(older: Option<&Point>, newer: &Point) -> Option<Measure> {
    let (cpu, memory_bytes) = (newer.cpu_nanos?, newer.memory_bytes?);
    let same_run = |older: &&Point| older.started_millis == newer.started_millis;
    let from = match older.filter(same_run).and_then(|older| Some((older.at_millis, older.cpu_nanos?))) {
        Some(from) => from,
        // It was started meanwhile: then it had used nothing.
        None => (newer.started_millis?, 0),
    };
    let window_millis = newer.at_millis.checked_sub(from.0).filter(|window| *window >= WINDOW_MIN_MILLIS)?;
    let used = cpu.checked_sub(from.1)?;
    let cpu_nano_cores = u64::try_from(u128::from(used) * 1000 / u128::try_from(window_millis).ok()?).ok()?;
    Some(Measure { at_millis: newer.at_millis, window_millis, cpu_nano_cores, memory_bytes })
}

pub fn node(older: &Scrape, newer: &Scrape) -> Option<Measure> {
    between(Some(&older.node), &newer.node)
}

/// None where any of its containers cannot be told of: half a pod would pass for a whole one.
pub fn pod(older: &Scrape, newer: &Scrape, namespace: &str, name: &str) -> Option<PodMeasure> {
    let key = (namespace.to_owned(), name.to_owned());
    let (now, before) = (newer.pods.get(&key)?, older.pods.get(&key));
    let mut containers = Vec::with_capacity(now.len());
    for (container, point) in now {
        containers.push((container.clone(), between(before.and_then(|before| before.get(container)), point)?));
    }
    let first = containers.iter().map(|(_, measure)| measure).min_by_key(|measure| measure.at_millis)?;
    Some(PodMeasure { at_millis: first.at_millis, window_millis: first.window_millis, containers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(at: i64, cpu: f64, memory: u64, start: i64) -> String {
        let labels = "{container=\"c\",namespace=\"n\",pod=\"p\"}";
        format!(
            "# HELP container_cpu_usage_seconds_total x\n# TYPE container_cpu_usage_seconds_total counter\n\
             container_cpu_usage_seconds_total{labels} {cpu} {at}\n\
             container_memory_working_set_bytes{labels} {memory} {at}\n\
             container_start_time_seconds{labels} {start}\n\
             pod_cpu_usage_seconds_total{{namespace=\"n\",pod=\"p\"}} 9 {at}\n\
             node_cpu_usage_seconds_total {cpu} {at}\nnode_memory_working_set_bytes 7 {at}\n"
        )
    }

    fn of(older: &str, newer: &str) -> Option<(u64, u64, i64)> {
        let (older, newer) = (parse(older, 0), parse(newer, 0));
        let pod = pod(&older, &newer, "n", "p")?;
        let [(name, measure)] = pod.containers.as_slice() else { panic!("{pod:?}") };
        assert_eq!((name.as_str(), pod.window_millis), ("c", measure.window_millis));
        Some((measure.cpu_nano_cores, measure.memory_bytes, measure.window_millis))
    }

    #[test]
    fn two_readings_are_a_rate() {
        let before = text(10_000, 1.0, 1, 5);
        assert_eq!(of(&before, &text(14_000, 2.0, 64, 5)), Some((250_000_000, 64, 4000)));
        assert_eq!(of(&before, &text(10_000, 1.0, 64, 5)), None, "the same reading twice");
        assert_eq!(of("", &text(14_000, 2.0, 64, 12)), Some((1_000_000_000, 64, 2000)), "it was started meanwhile");
        assert_eq!(of(&before, &text(14_000, 0.5, 64, 13)), Some((500_000_000, 64, 1000)), "it was started again");
        assert_eq!(of(&before, &text(14_000, 0.5, 64, 5)), None, "a counter does not go back");
        let node = node(&parse(&before, 0), &parse(&text(14_000, 2.0, 64, 5), 0)).unwrap();
        assert_eq!((node.cpu_nano_cores, node.memory_bytes), (250_000_000, 7));
        // Half a pod is none.
        let other = "container_memory_working_set_bytes{container=\"d\",namespace=\"n\",pod=\"p\"} 1 14000\n";
        assert_eq!(of(&before, &(text(14_000, 2.0, 64, 5) + other)), None);
    }

    #[test]
    fn labels_are_read_as_they_are_written() {
        let (labels, rest) = labels("a=\"b\\\"c\",d=\"\\\\\\n}\",e=\"\"} 1 2").unwrap();
        assert_eq!(
            (labels["a"].as_str(), labels["d"].as_str(), labels["e"].as_str(), rest),
            ("b\"c", "\\\n}", "", " 1 2")
        );
        for bad in ["a", "a=\"", "a=\"b", "a=b}", "a=\"b\\\"}"] {
            assert!(super::labels(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_node_says_is_no_panic(older in ".{0,200}", newer in ".{0,200}", at in 0..100_000_i64) {
            let (older, newer) = (parse(&older, at), parse(&format!("node_cpu_usage_seconds_total {newer}"), at));
            let _ = node(&older, &newer);
        }

        #[test]
        fn what_was_used_is_the_rate_over_its_window(cpu in 0..1_000_000_u64, more in 0..1_000_000_u64, window in 1000..100_000_i64) {
            let seconds = |millis: u64| millis as f64 / 1000.0;
            let (before, after) = (text(5000, seconds(cpu), 1, 1), text(5000 + window, seconds(cpu + more), 1, 1));
            let (rate, _, over) = of(&before, &after).unwrap();
            let used = rate as f64 * over as f64 / 1e9;
            prop_assert!((used - more as f64).abs() < 0.1, "{used} for {more}");
        }
    }
}
