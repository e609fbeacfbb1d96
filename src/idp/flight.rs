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
pub struct Flight<T>(Arc<Mutex<Option<Shareable<T>>>>);

impl<T> Default for Flight<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// The result of the fetch that is under way, or of the one that `begin` returns; `None` when the
    /// task did not end (the runtime shut down). `begin` is called only when none is under way, and may
    /// decline.
    pub async fn join<F>(&self, runtime: &Handle, begin: impl FnOnce() -> Option<F>) -> Option<T>
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn all_who_come_while_a_fetch_is_under_way_share_it() {
        let flight = Flight::default();
        let (begun, runtime) = (AtomicUsize::new(0), Handle::current());
        let join = || {
            flight.join(&runtime, || {
                begun.fetch_add(1, Ordering::SeqCst);
                Some(async { 7 })
            })
        };
        assert_eq!(futures::join!(join(), join(), join()), (Some(7), Some(7), Some(7)));
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        assert_eq!(join().await, Some(7));
        assert_eq!(begun.load(Ordering::SeqCst), 2, "a later caller wants a new one");
    }

    #[tokio::test]
    async fn a_fetch_that_nobody_waits_for_ends_and_is_not_served_to_later_callers() {
        let flight = Flight::default();
        let (go, gone) = oneshot::channel::<()>();
        let (ended, end) = oneshot::channel::<()>();
        let first = async move {
            let _ = gone.await;
            let _ = ended.send(());
            1
        };
        assert!(
            flight.join(&Handle::current(), || Some(first)).now_or_never().is_none(),
            "its caller leaves"
        );
        go.send(()).unwrap();
        end.await.unwrap();
        assert_eq!(flight.join(&Handle::current(), || Some(async { 2 })).await, Some(2));
    }

    #[tokio::test]
    async fn a_fetch_may_be_declined() {
        let flight = Flight::<u8>::default();
        assert_eq!(flight.join(&Handle::current(), || None::<std::future::Ready<u8>>).await, None);
    }
}
