//! What the runtime does when the kernel says that something of the host's network has changed. While nothing does, nobody looks.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Weak;
use std::time::Duration;

use gantry_env::chain;
use gantry_netlink::nft::Changes;
use tokio::io::unix::AsyncFd;

use crate::network::NetworkError;
use crate::node::{Node, blocking};

/// Between two looks at the pods' rules where the first found them changed: whoever changes them again and again is not kept
/// company without a rest.
const RULES_REST: Duration = Duration::from_millis(200);
/// Where the first could not look.
const RULES_RETRY: Duration = Duration::from_secs(5);

/// The kernel's notifications of one kind.
pub struct Heard {
    changes: Changes,
    readable: AsyncFd<OwnedFd>,
}

impl Heard {
    pub fn of(changes: Result<Changes, gantry_netlink::Error>) -> Result<Heard, NetworkError> {
        let changes = changes.map_err(NetworkError::Netlink)?;
        let copy = changes.as_fd().try_clone_to_owned().and_then(crate::sys::async_fd);
        Ok(Heard { changes, readable: copy.map_err(NetworkError::Notifications)? })
    }

    /// Waits for the next.
    async fn next(&mut self) -> io::Result<()> {
        let mut ready = self.readable.readable().await?;
        let drained = self.changes.drain();
        ready.clear_ready();
        if let Err(error) = drained {
            tracing::warn!(error = %chain(&error), "the kernel's notifications not read");
        }
        Ok(())
    }
}

/// Makes the pods' rules again where someone changed them, for as long as the runtime serves.
pub async fn keep_rules(mut heard: Heard, node: Weak<Node>) {
    while heard.next().await.is_ok() {
        // As it was found changed, or could not be looked at, it is looked at again.
        loop {
            let Some(node) = node.upgrade() else { return };
            match blocking(move || Ok(node.network.heal()?)).await {
                Ok(false) => break,
                Ok(true) => tokio::time::sleep(RULES_REST).await,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "table gantry-pods not looked at");
                    tokio::time::sleep(RULES_RETRY).await;
                }
            }
        }
    }
}

/// Lets others have the addresses of pods that were let go, as their links end.
pub async fn forget_links(mut heard: Heard, node: Weak<Node>) {
    while heard.next().await.is_ok() {
        let Some(node) = node.upgrade() else { return };
        if let Err(error) = blocking(move || Ok(node.network.forget_gone()?)).await {
            tracing::warn!(error = %chain(&error), "address of a pod that is gone is kept back");
        }
    }
}
