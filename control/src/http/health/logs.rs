//! Whether what the process says still goes out. A log that nobody reads any more blocks whoever says something, and the
//! lock of the standard error output with it.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// A log that takes nothing for this long is blocked.
const TIMEOUT: Duration = Duration::from_secs(2);

/// One at a time: a blocked log blocks one thread of ours and no more.
#[derive(Clone, Debug)]
pub(super) struct Logs(Arc<Semaphore>);

impl Default for Logs {
    fn default() -> Logs {
        Logs(Arc::new(Semaphore::new(1)))
    }
}

impl Logs {
    pub async fn check(&self) -> Result<(), String> {
        self.check_with(|| std::io::stderr().flush()).await
    }

    async fn check_with(&self, flush: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> Result<(), String> {
        let blocked = || "logging blocked".to_owned();
        let flushed = async {
            let turn = self.0.clone().acquire_owned().await.map_err(|_| blocked())?;
            let flushed = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                flush()
            });
            flushed.await.map_err(|_| blocked())?.map_err(|error| error.to_string())
        };
        tokio::time::timeout(TIMEOUT, flushed).await.unwrap_or_else(|_| Err(blocked()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_blocked_log_is_told_and_takes_one_thread() {
        let logs = Logs::default();
        assert_eq!(logs.check_with(|| Ok(())).await, Ok(()));
        let (go, wait) = std::sync::mpsc::sync_channel::<()>(1);
        let blocked = {
            let logs = logs.clone();
            tokio::spawn(async move { logs.check_with(move || wait.recv().map_err(std::io::Error::other)).await })
        };
        assert_eq!(blocked.await.unwrap(), Err("logging blocked".to_owned()));
        assert_eq!(logs.0.available_permits(), 0, "the first is still at it");
        go.send(()).unwrap();
        assert_eq!(logs.check_with(|| Ok(())).await, Ok(()));
    }
}
