//! Single flight: of any number of callers that want the same thing at the same time, one fetches it and
//! all get the result.
//!
//! The fetch is a task of the gateway's own runtime: callers may go away, also the one that began it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt as _, Shared};
use tokio::runtime::Handle;

type Shareable<T> = Shared<BoxFuture<'static, Option<T>>>;

/// A fetch that is under way, if one is.
pub(super) struct Flight<T>(Arc<Mutex<Option<Shareable<T>>>>);

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// The result of the fetch that is under way, or of the one that `begin` returns; `None` when the
    /// task did not end (the runtime shut down). `begin` is called only when none is under way, and may
    /// decline.
    pub(super) async fn join<F>(&self, runtime: &Handle, begin: impl FnOnce() -> Option<F>) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let flight = self.current_or(runtime, begin)?;
        flight.await
    }

    fn current_or<F>(&self, runtime: &Handle, begin: impl FnOnce() -> Option<F>) -> Option<Shareable<T>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = slot.as_ref().filter(|flight| flight.peek().is_none()) {
            return Some(flight.clone());
        }
        let fetch = begin()?;
        let landed = Arc::clone(&self.0);
        let task = runtime.spawn(async move {
            let result = fetch.await;
            // Whoever comes later wants a new fetch, also when nobody waited for this one.
            *landed.lock().unwrap_or_else(PoisonError::into_inner) = None;
            result
        });
        let flight = async move { task.await.ok() }.boxed().shared();
        *slot = Some(flight.clone());
        Some(flight)
    }
}

impl<T> fmt::Debug for Flight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flight")
    }
}
