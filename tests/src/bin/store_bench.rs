//! Durable creates a second in the embedded store, beside bare write + fdatasync of one page on the same disk in the same
//! run: what the disk could do if every create had a sync of its own.

#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use gantry_control::store::{Cache, Compare, Embedded, Expect, Key, Op, Store, StoreError};
use gantry_kube::{Object, Ref, resource};
use gantry_tests::peer::SyncedWrites;
use serde_json::json;
use tokio::time::Instant;

#[derive(Parser)]
struct Options {
    /// Where the store's file is made; on the disk that is to be measured.
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Bytes of one value.
    #[arg(long, default_value_t = 1000)]
    value: usize,
}

#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error("the disk cannot be measured")]
    Disk(#[from] io::Error),
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("a writer panicked")]
    Panicked(#[from] tokio::task::JoinError),
    #[error("a create failed")]
    Create(#[from] gantry_control::store::WriteError),
}

#[tokio::main]
async fn main() -> Result<(), BenchError> {
    let options = Options::parse();
    let folder = tempfile::tempdir_in(&options.folder)?;
    let length = Duration::from_secs(options.seconds);
    println!("bare write + fdatasync: {:>8.0}/s", bare(folder.path(), length)?);
    for writers in [1, 32, 64] {
        let path = folder.path().join(format!("store-{writers}"));
        let store = Arc::new(Embedded::open_file(path)?);
        let (rate, p99) = creates(store, writers, options.value, length).await?;
        println!("store, {writers:>2} writers:      {rate:>8.0}/s   p99 {:>6} us", p99.as_micros());
    }
    for writers in [1, 64] {
        let path = folder.path().join(format!("cache-{writers}"));
        let store: Arc<dyn Store> = Arc::new(Embedded::open_file(path)?);
        let rate = cached(Cache::start(store).await?, writers, options.value, length).await?;
        println!("cache, {writers:>2} writers:      {rate:>8.0}/s");
    }
    Ok(())
}

fn bare(folder: &Path, length: Duration) -> Result<f64, io::Error> {
    let mut disk = SyncedWrites::new(folder)?;
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < length {
        disk.write()?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

async fn creates(
    store: Arc<Embedded>,
    writers: usize,
    size: usize,
    length: Duration,
) -> Result<(f64, Duration), BenchError> {
    let (start, value) = (Instant::now(), Bytes::from(vec![b'x'; size]));
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (store, value) = (store.clone(), value.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                while start.elapsed() < length {
                    let key = Key::new("configmaps", &Ref::new(format!("w{writer}"), format!("c{}", times.len())));
                    let compare = Compare { key: key.clone(), expect: Expect::Absent };
                    let begun = Instant::now();
                    store.write(vec![compare], vec![Op::Put { key, value: value.clone() }]).await?;
                    times.push(begun.elapsed());
                }
                Ok::<_, BenchError>(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    times.sort();
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    Ok((times.len() as f64 / start.elapsed().as_secs_f64(), p99))
}

/// Whole creates through the watch cache: encoded, written, seen by the cache, answered.
async fn cached(cache: Cache, writers: usize, size: usize, length: Duration) -> Result<f64, BenchError> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let cache = cache.clone();
            tokio::spawn(async move {
                let mut count = 0;
                while start.elapsed() < length {
                    let reference = Ref::new(format!("w{writer}"), format!("c{count}"));
                    let object = json!({
                        "apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "x".repeat(size)},
                        "metadata": {"name": reference.name, "namespace": reference.namespace},
                    });
                    let object = Object::from_value(object).unwrap_or_default();
                    cache.create(&resource::CONFIG_MAP, &reference, &object).await?;
                    count += 1;
                }
                Ok::<_, BenchError>(count)
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}
