//! When each token was last used: kept in memory, written to the database once a minute and at the
//! end, so that no request waits for a write. A crash loses a minute of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetloop_protocol::{Digest, UnixMillis};
use tokio::sync::watch;

use crate::store::{Store, StoreError, tokens};

/// The time between two writes.
const EVERY: Duration = Duration::from_secs(60);

/// Times of tokens that the hub knows, by their SHA-256; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LastUse(Arc<Mutex<HashMap<Digest, UnixMillis>>>);

impl LastUse {
    /// A live token was used.
    pub fn note(&self, token: Digest, now: UnixMillis) {
        self.times().insert(token, now);
    }

    /// When it was used since the last write.
    pub fn of(&self, token: Digest) -> Option<UnixMillis> {
        self.times().get(&token).copied()
    }

    /// Writes what there is, once a minute until the hub stops.
    pub async fn run(self, store: Store, mut stopping: watch::Receiver<bool>) {
        loop {
            // Cancel-safe: a timer and a watch.
            let is_last = tokio::select! {
                () = tokio::time::sleep(EVERY) => false,
                _ = stopping.wait_for(|stop| *stop) => true,
            };
            if let Err(error) = self.write(&store).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "cannot write when tokens were used; trying again");
            }
            if is_last {
                return;
            }
        }
    }

    pub(crate) async fn write(&self, store: &Store) -> Result<(), StoreError> {
        let times: Vec<_> = self.times().iter().map(|(token, at)| (*token, *at)).collect();
        if times.is_empty() {
            return Ok(());
        }
        let written = times.clone();
        store.write(move |tx| tokens::used(tx, &times)).await?;
        // What was used meanwhile stays for the next time.
        let mut now = self.times();
        for (token, at) in written {
            if now.get(&token) == Some(&at) {
                now.remove(&token);
            }
        }
        Ok(())
    }

    fn times(&self) -> MutexGuard<'_, HashMap<Digest, UnixMillis>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
