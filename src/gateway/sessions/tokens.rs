//! What is one for a session, however often it is made ready: the token that ends with it, and its times.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio_util::sync::CancellationToken;

use crate::clock::UnixTime;
use crate::session::Lifetime;
use crate::session::lifetime::Times;
use crate::store::StoreKey;

/// One cancellation token and one lifetime for each session that something holds, so that a session which
/// left the cache and came back still ends everywhere at once, and no use of it is forgotten.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<StoreKey, Held>>);

#[derive(Debug)]
struct Held {
    ended: Weak<CancellationToken>,
    lifetime: Weak<Lifetime>,
}

impl Tokens {
    pub(super) fn of(
        &self,
        key: StoreKey,
        stored: Times,
        now: UnixTime,
    ) -> (Arc<CancellationToken>, Arc<Lifetime>) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Held { ended, lifetime }) = tokens.get(&key)
            && let (Some(ended), Some(lifetime)) = (ended.upgrade(), lifetime.upgrade())
        {
            lifetime.merge(stored, now);
            return (ended, lifetime);
        }
        // Doubling is when dead entries are swept, so the sweep costs nothing on average.
        if tokens.len() == tokens.capacity() {
            tokens.retain(|_, held| held.ended.strong_count() > 0);
        }
        let (ended, lifetime) = (Arc::new(CancellationToken::new()), Arc::new(Lifetime::new(stored, now)));
        let held = Held { ended: Arc::downgrade(&ended), lifetime: Arc::downgrade(&lifetime) };
        tokens.insert(key, held);
        (ended, lifetime)
    }

    /// The sessions that serve something right now.
    pub(super) fn in_use(&self) -> Vec<StoreKey> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A ready session holds one; what it serves holds another.
        tokens.iter().filter(|(_, held)| held.ended.strong_count() > 1).map(|(key, _)| *key).collect()
    }

    pub(super) fn cancel(&self, key: StoreKey) {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        if let Some(ended) = held.and_then(|held| held.ended.upgrade()) {
            ended.cancel();
        }
    }
}
