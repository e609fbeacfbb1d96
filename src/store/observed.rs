//! A store that tells how its operations went: how long each took, and which failed.
//!
//! Stands around every store that the gateway opens, so that no backend counts anything itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::{
    Change, Cursor, Index, Lease, Page, Record, Replaced, SessionStore, StoreError, StoreKey, Stored, Take,
    Taken,
};
use crate::clock::bucket::Rate;
use crate::telemetry::Events;

/// Another store, observed.
#[derive(Debug)]
pub struct ObservedStore {
    inner: Arc<dyn SessionStore>,
    events: Events,
}

impl ObservedStore {
    /// `inner`, whose operations are told to `events`.
    #[must_use]
    pub fn new(inner: Arc<dyn SessionStore>, events: Events) -> Self {
        Self { inner, events }
    }

    async fn observe<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let start = Instant::now();
        let result = work.await;
        self.events.store_took(operation, start.elapsed());
        result.inspect_err(|error| self.events.store_failed(operation, error))
    }
}

#[async_trait]
impl SessionStore for ObservedStore {
    async fn get(&self, key: StoreKey) -> Result<Option<Stored>, StoreError> {
        self.observe("get", self.inner.get(key)).await
    }

    async fn put(&self, record: Record, ttl: Duration) -> Result<(), StoreError> {
        self.observe("put", self.inner.put(record, ttl)).await
    }

    async fn replace(
        &self,
        record: Record,
        ttl: Duration,
        expected_version: u64,
        lease: Option<&Lease>,
    ) -> Result<Replaced, StoreError> {
        self.observe("replace", self.inner.replace(record, ttl, expected_version, lease)).await
    }

    async fn remove(&self, key: StoreKey) -> Result<bool, StoreError> {
        self.observe("remove", self.inner.remove(key)).await
    }

    async fn find_by(&self, index: Index) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        self.observe("find_by", self.inner.find_by(index)).await
    }

    async fn remove_by(&self, index: Index, and: Option<Index>) -> Result<Vec<StoreKey>, StoreError> {
        self.observe("remove_by", self.inner.remove_by(index, and)).await
    }

    async fn mark(&self, key: StoreKey, ttl: Duration) -> Result<(), StoreError> {
        self.observe("mark", self.inner.mark(key, ttl)).await
    }

    async fn is_marked(&self, key: StoreKey) -> Result<bool, StoreError> {
        self.observe("is_marked", self.inner.is_marked(key)).await
    }

    async fn put_once(&self, key: StoreKey, ttl: Duration) -> Result<bool, StoreError> {
        self.observe("put_once", self.inner.put_once(key, ttl)).await
    }

    async fn lease(&self, key: StoreKey, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        self.observe("lease", self.inner.lease(key, ttl)).await
    }

    async fn extend(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        self.observe("extend", self.inner.extend(lease, ttl)).await
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        self.observe("release", self.inner.release(lease)).await
    }

    async fn list(&self, cursor: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
        self.observe("list", self.inner.list(cursor, limit)).await
    }

    async fn take(&self, key: StoreKey, rate: Rate, take: Take) -> Result<Taken, StoreError> {
        self.observe("take", self.inner.take(key, rate, take)).await
    }

    fn changes(&self) -> Option<broadcast::Receiver<Change>> {
        self.inner.changes()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.observe("ping", self.inner.ping()).await
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock::bucket::Rate;
    use crate::clock::{Clock, UnixTime};
    use crate::store::memory::MemoryStore;

    const HOUR: Duration = Duration::from_hours(1);

    async fn call_everything(store: &dyn SessionStore) -> usize {
        let (key, index) = (StoreKey([1; 32]), Index([2; 32]));
        let record = Record { key, indexes: vec![index], payload: Bytes::from_static(b"sealed") };
        let lease = Lease { key, fence: 1 };
        let failed = [
            store.get(key).await.is_err(),
            store.put(record.clone(), HOUR).await.is_err(),
            store.replace(record, HOUR, 1, None).await.is_err(),
            store.remove(key).await.is_err(),
            store.find_by(index).await.is_err(),
            store.remove_by(index, None).await.is_err(),
            store.mark(key, HOUR).await.is_err(),
            store.is_marked(key).await.is_err(),
            store.put_once(key, HOUR).await.is_err(),
            store.lease(key, HOUR).await.is_err(),
            store.extend(&lease, HOUR).await.is_err(),
            store.release(lease).await.is_err(),
            store.list(None, 1).await.is_err(),
            store.take(key, Rate { count: 1, per: HOUR }, Take::One).await.is_err(),
            store.ping().await.is_err(),
        ];
        failed.into_iter().filter(|failed| *failed).count()
    }

    const OPERATIONS: [&str; 15] = [
        "get",
        "put",
        "replace",
        "remove",
        "find_by",
        "remove_by",
        "mark",
        "is_marked",
        "put_once",
        "lease",
        "extend",
        "release",
        "list",
        "take",
        "ping",
    ];

    #[tokio::test]
    async fn every_operation_is_timed_under_its_own_name() {
        let events = Events::quiet();
        let memory = Arc::new(MemoryStore::new(Clock::manual(UnixTime::from_secs(1_000))));
        let failed = call_everything(&ObservedStore::new(memory, events.clone())).await;
        assert_eq!(failed, 0);
        let metrics = events.metrics().render();
        for operation in OPERATIONS {
            let line = format!("store_seconds_count{{operation=\"{operation}\"}} 1\n");
            assert!(metrics.contains(&line), "{operation}: {metrics}");
        }
        assert!(!metrics.contains("store_errors_total{"), "{metrics}");
    }
    #[tokio::test]
    async fn every_operation_that_fails_is_counted_and_stays_an_error() {
        let events = Events::quiet();
        let memory = Arc::new(MemoryStore::new(Clock::manual(UnixTime::from_secs(1_000))));
        memory.break_down();
        let failed = call_everything(&ObservedStore::new(memory, events.clone())).await;
        assert_eq!(failed, OPERATIONS.len());
        let metrics = events.metrics().render();
        for operation in OPERATIONS {
            let line = format!("store_errors_total{{operation=\"{operation}\"}} 1\n");
            assert!(metrics.contains(&line), "{operation}: {metrics}");
        }
    }
}
