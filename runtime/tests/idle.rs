//! A runtime to which nothing happens does nothing.

mod ground;

use std::collections::BTreeMap;
use std::time::Duration;

use ground::with;

/// Longer than every interval that somebody might think little enough of.
const WINDOW: Duration = Duration::from_secs(6);
/// Threads of tokio's for calls that block end after ten idle seconds, which wakes each of them once.
const WINDOWS_MAX: u32 = 10;

/// How often each thread of a process has gone to sleep: as often as it was woken. By its name and number.
fn switches(pid: u32, except: i32) -> BTreeMap<String, u64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let read = |path: std::path::PathBuf| {
        let status = std::fs::read_to_string(path.join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let id: i32 = field("Pid:")?.parse().ok()?;
        let count = field("voluntary_ctxt_switches:")?.parse().ok()?;
        (id != except).then(|| (format!("{} {id}", field("Name:").unwrap_or("")), count))
    };
    threads.filter_map(|entry| read(entry.path())).collect()
}

#[test]
fn nothing_wakes_a_runtime_to_which_nothing_happens() {
    with(|ground| async move {
        let (runtime, client) = ground.serve().await;
        let config = ground.plain_pod("pod");
        let pod = client.run_pod(&config).await;
        let id = client.started(&pod, ground.plain_container("c", &["sleep", "1000"]), &config).await;
        client.exec(&id, &["true"]).await;
        let supervisor = client.supervisor_pid(&pod).await.cast_unsigned();
        // The one that measures sleeps too, and is not counted; no timer of tokio's is set for it.
        let measured = tokio::task::spawn_blocking(move || {
            let own = rustix::thread::gettid().as_raw_nonzero().get();
            let all = || [switches(std::process::id(), own), switches(supervisor, 0)];
            for window in 1..=WINDOWS_MAX {
                let before = all();
                std::thread::sleep(WINDOW);
                let after = all();
                let woken: Vec<String> = before
                    .iter()
                    .zip(&after)
                    .flat_map(|(before, after)| {
                        let of = |(thread, count): (&String, &u64)| {
                            let times = count - before.get(thread).copied().unwrap_or(0);
                            (times > 0).then(|| format!("{thread}: {times}"))
                        };
                        after.iter().filter_map(of).collect::<Vec<_>>()
                    })
                    .collect();
                println!(
                    "window {window} of {} s: {} threads, woken: {woken:?}",
                    WINDOW.as_secs(),
                    after[0].len() + after[1].len()
                );
                if woken.is_empty() && before == after {
                    return true;
                }
            }
            false
        });
        assert!(measured.await.unwrap(), "something wakes it in each of {WINDOWS_MAX} windows");
        client.remove_pod(&pod).await;
        ground::finish(runtime).await;
    });
}
