//! What ends with a session: one token for each that something holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio_util::sync::CancellationToken;

use crate::store::StoreKey;

/// One cancellation token for each session that something holds, so that a session which left the
/// cache and came back still ends everywhere at once.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<StoreKey, Weak<CancellationToken>>>);

impl Tokens {
    pub(super) fn of(&self, key: StoreKey) -> Arc<CancellationToken> {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = tokens.get(&key).and_then(Weak::upgrade) {
            return token;
        }
        // Doubling is when dead entries are swept, so the sweep costs nothing on average.
        if tokens.len() == tokens.capacity() {
            tokens.retain(|_, token| token.strong_count() > 0);
        }
        let token = Arc::new(CancellationToken::new());
        tokens.insert(key, Arc::downgrade(&token));
        token
    }

    /// The sessions that serve something right now.
    pub(super) fn in_use(&self) -> Vec<StoreKey> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The cache holds one of each; what is served holds another.
        tokens.iter().filter(|(_, token)| token.strong_count() > 1).map(|(key, _)| *key).collect()
    }

    pub(super) fn cancel(&self, key: StoreKey) {
        let token = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        if let Some(token) = token.and_then(|token| token.upgrade()) {
            token.cancel();
        }
    }
}
