//! How many objects a second the API takes: `cargo run --example load -- KUBECONFIG CLIENTS COUNT`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gantry_client::Client;
use gantry_kube::{Object, resource};
use serde_json::json;
use tokio::time::Instant;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_default();
    let mut number = |or| arguments.next().and_then(|n| n.parse().ok()).unwrap_or(or);
    let (clients, count) = (number(32_usize), number(10_000_usize));
    let Ok(config) = kube::config::Kubeconfig::read_from(&path) else { return eprintln!("no kubeconfig in {path:?}") };
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    let mut connections = Vec::new();
    for _ in 0..clients {
        match kube::Config::from_custom_kubeconfig(config.clone(), &Default::default()).await {
            Ok(config) => connections.extend(kube::Client::try_from(config).ok()),
            Err(error) => return eprintln!("{error}"),
        }
    }
    let started = Instant::now();
    for connection in connections {
        let (client, next) = (Client::new(connection, "load"), next.clone());
        tasks.push(tokio::spawn(async move {
            let mut failed = 0;
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return failed;
                }
                let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": format!("load-{i}"), "namespace": "default", "labels": {"load": "yes"}},
                    "data": {"value": "x".repeat(900)}});
                let object = Object::from_value(object).unwrap_or_default();
                failed += usize::from(client.create(&resource::CONFIG_MAP, &object).await.is_err());
            }
        }));
    }
    let mut failed = 0;
    for task in tasks {
        failed += task.await.unwrap_or(count);
    }
    let took = started.elapsed();
    println!("{count} creates, {failed} failed, {:.0} a second", count as f64 / took.as_secs_f64());
}
