//! For tests: a store in memory as one of several gateways has it, with a feed of what the others do.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::memory::MemoryStore;
use super::{
    Change, Cursor, Index, Lease, Page, Record, Replaced, SessionStore, StoreError, StoreKey, Stored, Take,
    Taken,
};
use crate::clock::bucket::{Bucket, Rate};

/// One gateway's side of a shared store.
pub(crate) struct Peer {
    pub(crate) memory: Arc<MemoryStore>,
    /// What this gateway hears.
    pub(crate) heard: broadcast::Sender<Change>,
    /// What the other one hears.
    told: broadcast::Sender<Change>,
    /// How often it was read.
    reads: AtomicUsize,
    /// Whether the other one is told nothing.
    pub(crate) is_silent: AtomicBool,
    /// Whether writes fail, and reads don't.
    pub(crate) is_full: AtomicBool,
    /// How many of the next reads fail.
    pub(crate) failures: AtomicUsize,
    /// A record that can't be read.
    pub(crate) damaged: Mutex<Option<StoreKey>>,
    /// The rates that both count.
    rates: Arc<Mutex<HashMap<StoreKey, Bucket>>>,
}

/// A store that two gateways share.
pub(crate) fn pair(memory: MemoryStore) -> [Arc<Peer>; 2] {
    let memory = Arc::new(memory);
    let [one, other] = [0; 2].map(|_| broadcast::channel(64).0);
    let rates = Arc::new(Mutex::new(HashMap::new()));
    let peer = |heard: &broadcast::Sender<Change>, told: &broadcast::Sender<Change>| {
        Arc::new(Peer {
            memory: Arc::clone(&memory),
            heard: heard.clone(),
            told: told.clone(),
            reads: AtomicUsize::new(0),
            is_silent: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            failures: AtomicUsize::new(0),
            damaged: Mutex::new(None),
            rates: Arc::clone(&rates),
        })
    };
    [peer(&one, &other), peer(&other, &one)]
}

impl Peer {
    /// How often it was read since this was last asked.
    pub(crate) fn take_reads(&self) -> usize {
        self.reads.swap(0, Ordering::SeqCst)
    }

    fn tell(&self, change: Change) {
        if !self.is_silent.load(Ordering::SeqCst) {
            let _ = self.told.send(change);
        }
    }

    fn reading(&self) -> Result<(), StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let left = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() { Err(StoreError::new("one of a few")) } else { Ok(()) }
    }

    fn writing(&self) -> Result<(), StoreError> {
        if self.is_full.load(Ordering::SeqCst) { Err(StoreError::new("full")) } else { Ok(()) }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peer")
    }
}

#[async_trait]
impl SessionStore for Peer {
    async fn get(&self, key: StoreKey) -> Result<Option<Stored>, StoreError> {
        self.reading()?;
        if *self.damaged.lock().unwrap() == Some(key) {
            return Err(StoreError::new("damaged"));
        }
        // As a network would, so that questions at the same time can meet.
        tokio::task::yield_now().await;
        self.memory.get(key).await
    }

    async fn put(&self, record: Record, ttl: Duration) -> Result<(), StoreError> {
        self.writing()?;
        self.memory.put(record, ttl).await
    }

    async fn replace(
        &self,
        record: Record,
        ttl: Duration,
        version: u64,
        lease: Option<&Lease>,
    ) -> Result<Replaced, StoreError> {
        self.writing()?;
        let key = record.key;
        let replaced = self.memory.replace(record, ttl, version, lease).await;
        self.tell(Change::Written(key));
        replaced
    }

    async fn remove(&self, key: StoreKey) -> Result<bool, StoreError> {
        self.writing()?;
        let removed = self.memory.remove(key).await;
        self.tell(Change::Removed(key));
        removed
    }

    async fn find_by(&self, index: Index) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        self.reading()?;
        self.memory.find_by(index).await
    }

    async fn remove_by(&self, index: Index, and: Option<Index>) -> Result<Vec<StoreKey>, StoreError> {
        self.writing()?;
        let removed = self.memory.remove_by(index, and).await?;
        for key in &removed {
            self.tell(Change::Removed(*key));
        }
        Ok(removed)
    }

    async fn mark(&self, key: StoreKey, ttl: Duration) -> Result<(), StoreError> {
        self.writing()?;
        self.memory.mark(key, ttl).await
    }

    async fn is_marked(&self, key: StoreKey) -> Result<bool, StoreError> {
        self.reading()?;
        self.memory.is_marked(key).await
    }

    async fn put_once(&self, key: StoreKey, ttl: Duration) -> Result<bool, StoreError> {
        self.writing()?;
        self.memory.put_once(key, ttl).await
    }

    async fn lease(&self, key: StoreKey, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        self.writing()?;
        self.memory.lease(key, ttl).await
    }

    async fn extend(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        self.writing()?;
        self.memory.extend(lease, ttl).await
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        self.writing()?;
        self.memory.release(lease).await
    }

    async fn list(&self, cursor: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
        self.memory.list(cursor, limit).await
    }

    async fn take(&self, key: StoreKey, rate: Rate, take: Take) -> Result<Taken, StoreError> {
        self.writing()?;
        let now = self.memory.clock.now();
        let mut rates = self.rates.lock().unwrap();
        let bucket = rates.entry(key).or_insert_with(|| Bucket::of(rate, now));
        let wait = bucket.wait(now);
        if take == Take::One {
            bucket.take(now);
        }
        Ok(if wait.is_zero() { Taken::Yes } else { Taken::NotFor(wait) })
    }

    fn changes(&self) -> Option<broadcast::Receiver<Change>> {
        Some(self.heard.subscribe())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.memory.ping().await
    }
}
