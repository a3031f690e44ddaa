use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::NodeError;

/// Commands of one container that are being started at once: what its supervisor starts at the most.
const STARTING_MAX: usize = 32;
/// Commands that may wait for that. Each is a task of a few kilobytes, and has no descriptors yet.
const WAITING_MAX: usize = 4096;

/// Whose turn it is to start a command in a container.
#[derive(Debug)]
pub struct Turns {
    starting: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// Held until the command has been started, or has not.
#[derive(Debug)]
pub struct Turn {
    _starting: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns {
            starting: Arc::new(Semaphore::new(STARTING_MAX)),
            all: Arc::new(Semaphore::new(STARTING_MAX + WAITING_MAX)),
        }
    }
}

impl Turns {
    /// Waits, in the order of those who came; refused where too many wait already.
    pub async fn wait(&self, container: &str) -> Result<Turn, NodeError> {
        let busy = || NodeError::Busy { container: container.to_owned(), most: WAITING_MAX };
        let all = Arc::clone(&self.all).try_acquire_owned().map_err(|_| busy())?;
        let starting = Arc::clone(&self.starting).acquire_owned().await.map_err(|_| NodeError::Interrupted)?;
        Ok(Turn { _starting: starting, _all: all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn so_many_start_more_wait_in_their_order_and_the_rest_are_refused() {
        let turns = Turns::default();
        let now = || turns.wait("c").now_or_never();
        let mut held: Vec<_> = (0..STARTING_MAX).map(|_| now().unwrap().unwrap()).collect();
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(turns.wait("c"))).collect();
        assert!(waiting.iter_mut().all(|wait| wait.now_or_never().is_none()));
        assert!(matches!(now(), Some(Err(NodeError::Busy { .. }))));
        held.pop();
        assert!(waiting[1..].iter_mut().all(|wait| wait.now_or_never().is_none()), "the first one's turn");
        assert!((&mut waiting[0]).now_or_never().unwrap().is_ok());
        // Whoever gives up waiting makes room.
        drop(waiting);
        assert!(now().unwrap().is_ok());
    }
}
