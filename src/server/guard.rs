//! A store that is not asked while it is known to be down.
//!
//! A read that fails begins an outage. From then on every operation fails at once, so that no request waits
//! for a timeout, and one task repeats that read, ever more slowly, until it is answered. A write that fails
//! may have its own reason, a full disk for one: then a read tells whether it is an outage. Stands
//! around every store that the gateway opens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast};
use tokio::time::sleep;

use super::observed::ObservedStore;
use super::{
    Change, Cursor, Index, Lease, Page, Record, Replaced, SessionStore, StoreError, StoreKey, Stored,
};
use crate::clock::{Clock, UnixTime};
use crate::telemetry::Events;

/// The first pause before a store that is down is asked again; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause: how long after its return a store is still not asked, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Another store, observed, and left in peace while it is down.
#[derive(Debug)]
pub struct GuardedStore {
    inner: Arc<dyn SessionStore>,
    observed: ObservedStore,
    outage: Arc<Outage>,
    runtime: Handle,
}

/// Whether there is an outage, and what was served in it.
#[derive(Debug)]
pub struct Outage {
    clock: Clock,
    events: Events,
    /// Milliseconds of [`UnixTime`]; 0 where there is none.
    since: AtomicU64,
    served: AtomicU64,
    /// Whether a write failed and a read is to tell more.
    suspected: AtomicBool,
    over: Notify,
}

/// A read that failed, to be repeated.
#[derive(Clone, Copy, Debug)]
enum Probe {
    Record(StoreKey),
    Mark(StoreKey),
    Index(Index),
}

impl Probe {
    async fn is_answered(self, store: &dyn SessionStore) -> bool {
        match self {
            Self::Record(key) => store.get(key).await.is_ok(),
            Self::Mark(key) => store.is_marked(key).await.is_ok(),
            Self::Index(index) => store.find_by(index).await.is_ok(),
        }
    }
}

impl Outage {
    fn new(clock: Clock, events: Events) -> Self {
        let (since, served) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { clock, events, since, served, suspected: AtomicBool::new(false), over: Notify::new() }
    }

    /// When the outage began, if there is one: the first failure since the store last answered.
    #[must_use]
    pub fn since(&self) -> Option<UnixTime> {
        let since = self.since.load(Ordering::Relaxed);
        (since != 0).then(|| UnixTime::from_millis(since))
    }

    /// Whether the store is known to be down.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.since.load(Ordering::Relaxed) != 0
    }

    /// A request is served without the store having been asked, though it should have been.
    pub fn note_served(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
        self.events.served_in_outage();
    }

    /// Waits for the end of the outage, if there is one.
    pub async fn over(&self) {
        loop {
            let over = self.over.notified();
            if !self.is_on() {
                return;
            }
            over.await;
        }
    }

    /// Says whether this call began it.
    fn begin(&self) -> bool {
        let now = self.clock.now().as_millis().max(1);
        self.since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
        self.over.notify_waiters();
    }

    /// Waits until the store answers, and tells of it if one repetition was not enough.
    async fn last(&self, store: &dyn SessionStore, probe: Probe) {
        if !probe.is_answered(store).await {
            self.events.store_outage_began();
            self.wait(store, probe).await;
            let length = self.since().map_or(Duration::ZERO, |since| self.clock.now().since(since));
            self.events.store_outage_ended(length, self.served.swap(0, Ordering::Relaxed));
        }
        self.end();
    }

    async fn wait(&self, store: &dyn SessionStore, probe: Probe) {
        let mut pause = FIRST_PAUSE;
        loop {
            sleep(pause).await;
            if probe.is_answered(store).await {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl GuardedStore {
    /// `inner`, whose operations are told to `events`; who asks it in an outage runs on `runtime`.
    #[must_use]
    pub fn new(inner: Arc<dyn SessionStore>, clock: Clock, events: Events, runtime: Handle) -> Self {
        let observed = ObservedStore::new(Arc::clone(&inner), events.clone());
        Self { inner, observed, outage: Arc::new(Outage::new(clock, events)), runtime }
    }

    /// The outage, whether there is one or not.
    #[must_use]
    pub const fn outage(&self) -> &Arc<Outage> {
        &self.outage
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.outage.is_on() { Err(StoreError::new("it is known to be down")) } else { Ok(()) }
    }

    async fn read<T>(
        &self,
        probe: Probe,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.check()?;
        work.await.inspect_err(|_| {
            if self.outage.begin() {
                let (outage, inner) = (Arc::clone(&self.outage), Arc::clone(&self.inner));
                self.runtime.spawn(async move { outage.last(&*inner, probe).await });
            }
        })
    }

    async fn write<T>(
        &self,
        probe: Probe,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.check()?;
        work.await.inspect_err(|_| {
            if !self.outage.suspected.swap(true, Ordering::Relaxed) {
                let (outage, inner) = (Arc::clone(&self.outage), Arc::clone(&self.inner));
                self.runtime.spawn(async move {
                    let is_answered = probe.is_answered(&*inner).await;
                    outage.suspected.store(false, Ordering::Relaxed);
                    if !is_answered && outage.begin() {
                        outage.last(&*inner, probe).await;
                    }
                });
            }
        })
    }
}

#[async_trait]
impl SessionStore for GuardedStore {
    async fn get(&self, key: StoreKey) -> Result<Option<Stored>, StoreError> {
        self.read(Probe::Record(key), self.observed.get(key)).await
    }

    async fn put(&self, record: Record, ttl: Duration) -> Result<(), StoreError> {
        self.write(Probe::Record(record.key), self.observed.put(record, ttl)).await
    }

    async fn replace(
        &self,
        record: Record,
        ttl: Duration,
        expected_version: u64,
        lease: Option<&Lease>,
    ) -> Result<Replaced, StoreError> {
        let work = self.observed.replace(record.clone(), ttl, expected_version, lease);
        self.write(Probe::Record(record.key), work).await
    }

    async fn remove(&self, key: StoreKey) -> Result<bool, StoreError> {
        self.write(Probe::Record(key), self.observed.remove(key)).await
    }

    async fn find_by(&self, index: Index) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        self.read(Probe::Index(index), self.observed.find_by(index)).await
    }

    async fn remove_by(&self, index: Index, and: Option<Index>) -> Result<Vec<StoreKey>, StoreError> {
        self.write(Probe::Index(index), self.observed.remove_by(index, and)).await
    }

    async fn mark(&self, key: StoreKey, ttl: Duration) -> Result<(), StoreError> {
        self.write(Probe::Mark(key), self.observed.mark(key, ttl)).await
    }

    async fn is_marked(&self, key: StoreKey) -> Result<bool, StoreError> {
        self.read(Probe::Mark(key), self.observed.is_marked(key)).await
    }

    async fn put_once(&self, key: StoreKey, ttl: Duration) -> Result<bool, StoreError> {
        self.write(Probe::Mark(key), self.observed.put_once(key, ttl)).await
    }

    async fn lease(&self, key: StoreKey, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        self.write(Probe::Record(key), self.observed.lease(key, ttl)).await
    }

    async fn extend(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        self.write(Probe::Record(lease.key), self.observed.extend(lease, ttl)).await
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        self.write(Probe::Record(lease.key), self.observed.release(lease)).await
    }

    async fn list(&self, cursor: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
        self.check()?;
        self.observed.list(cursor, limit).await
    }

    fn changes(&self) -> Option<broadcast::Receiver<Change>> {
        self.inner.changes()
    }

    /// Always asks: whoever wants to know how the store is wants to know it now.
    async fn ping(&self) -> Result<(), StoreError> {
        self.observed.ping().await
    }
}
