//! What other gateways do to the sessions of the store, as this one hears of it.
//!
//! A session that ended elsewhere ends here at once, with the connections that it serves. One that was written
//! elsewhere is read anew by the next request. Where the feed was interrupted, every session is
//! held against the store before it serves the next request, and those with open connections at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Sessions;
use crate::store::{Change, StoreError, StoreKey};

/// How many open sessions are asked for at a time after an interruption.
const CHECKS: usize = 8;

/// The pause before that is tried again.
const PAUSE: Duration = Duration::from_secs(1);

impl Sessions {
    /// Listens from now on, where the store is shared.
    pub fn start(self: &Arc<Self>) {
        let Some(changes) = self.store.changes() else { return };
        self.runtime.spawn(Arc::clone(self).listen(changes));
        self.runtime.spawn(Arc::clone(self).keep_checking());
    }

    async fn listen(self: Arc<Self>, mut changes: Receiver<Change>) {
        loop {
            match changes.recv().await {
                Ok(Change::Removed(key)) => self.forget(key),
                Ok(Change::Written(key)) => self.reread(key),
                Ok(Change::Missed) | Err(RecvError::Lagged(_)) => self.missed(),
                // The store is gone, and everything with it.
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn missed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.missed.notify_one();
    }

    async fn keep_checking(self: Arc<Self>) {
        loop {
            self.missed.notified().await;
            while self.check_open().await.is_err() {
                tokio::time::sleep(PAUSE).await;
                self.outage.over().await;
            }
        }
    }

    /// Ends what is served here of sessions that are gone.
    async fn check_open(&self) -> Result<(), StoreError> {
        for some in self.tokens.in_use().chunks(CHECKS) {
            let checks: Vec<_> = some.iter().map(|key| self.check_one(*key)).collect();
            for check in join_all(checks).await {
                check?;
            }
        }
        Ok(())
    }

    async fn check_one(&self, key: StoreKey) -> Result<(), StoreError> {
        if self.store.get(key).await?.is_none() {
            self.forget(key);
        }
        Ok(())
    }
}
