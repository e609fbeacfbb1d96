//! Sessions in this process's memory: for trials and tests; a restart forgets them.
//!
//! One lock around ordered maps, held for microseconds and never across an await. What has ended is
//! absent at once; its memory is given back by the writes that follow, a few entries each, so that
//! no write pays for many. Every write adds at most one entry that will end and takes away up to
//! [`SWEPT_BY_A_WRITE`] that have, so what has ended can't pile up under load.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::{
    Change, Cursor, Index, Lease, Page, Record, Replaced, SessionStore, StoreError, StoreKey, Stored, Take,
    Taken,
};
use crate::clock::bucket::Rate;
use crate::clock::{Clock, UnixTime};

/// How many entries that have ended a write takes away: more than the one it may add.
const SWEPT_BY_A_WRITE: usize = 8;

/// A store in memory.
pub struct MemoryStore {
    pub(super) clock: Clock,
    state: Mutex<State>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, state: Mutex::new(State::default()) }
    }

    fn read<T>(&self, look: impl FnOnce(&State, UnixTime) -> T) -> Result<T, StoreError> {
        self.locked(|state, now| look(state, now))
    }

    fn write<T>(&self, change: impl FnOnce(&mut State, UnixTime) -> T) -> Result<T, StoreError> {
        self.locked(|state, now| {
            state.sweep(now);
            change(state, now)
        })
    }

    /// A panic under the lock may have left half a change behind: from then on the store says that
    /// it is unavailable rather than answer from it.
    fn locked<T>(&self, work: impl FnOnce(&mut State, UnixTime) -> T) -> Result<T, StoreError> {
        let mut state =
            self.state.lock().map_err(|_poisoned| StoreError::new("an earlier operation panicked"))?;
        // Read under the lock, so that operations see times in the order in which they run.
        let now = self.clock.now();
        Ok(work(&mut state, now))
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl SessionStore for MemoryStore {
    async fn get(&self, key: StoreKey) -> Result<Option<Stored>, StoreError> {
        self.read(|state, now| state.live(key, now).cloned())
    }

    async fn put(&self, record: Record, ttl: Duration) -> Result<(), StoreError> {
        self.write(|state, now| state.store(Stored { record, version: 1, expires_at: now + ttl }))
    }

    async fn replace(
        &self,
        record: Record,
        ttl: Duration,
        expected_version: u64,
        lease: Option<&Lease>,
    ) -> Result<Replaced, StoreError> {
        self.write(|state, now| {
            let Some(version) = state.live(record.key, now).map(|stored| stored.version) else {
                return Replaced::Gone;
            };
            let held = lease.is_none_or(|lease| lease.key == record.key && state.holds(lease, now));
            if version != expected_version || !held {
                return Replaced::Conflict;
            }
            let version = version.saturating_add(1);
            state.store(Stored { record, version, expires_at: now + ttl });
            Replaced::Done(version)
        })
    }

    async fn remove(&self, key: StoreKey) -> Result<bool, StoreError> {
        self.write(|state, now| state.take(key).is_some_and(|stored| now < stored.expires_at))
    }

    async fn find_by(&self, index: Index) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        self.read(|state, now| {
            state.under(index, now).map(|stored| (stored.record.key, stored.version)).collect()
        })
    }

    async fn remove_by(&self, index: Index, and: Option<Index>) -> Result<Vec<StoreKey>, StoreError> {
        self.write(|state, now| {
            let matches = |stored: &&Stored| and.is_none_or(|and| stored.record.indexes.contains(&and));
            let keys: Vec<_> =
                state.under(index, now).filter(matches).map(|stored| stored.record.key).collect();
            for key in &keys {
                state.take(*key);
            }
            keys
        })
    }

    async fn mark(&self, key: StoreKey, ttl: Duration) -> Result<(), StoreError> {
        self.write(|state, now| {
            state.mark(key, now + ttl, now);
        })
    }

    async fn is_marked(&self, key: StoreKey) -> Result<bool, StoreError> {
        self.read(|state, now| state.is_marked(key, now))
    }

    async fn put_once(&self, key: StoreKey, ttl: Duration) -> Result<bool, StoreError> {
        self.write(|state, now| !state.is_marked(key, now) && state.mark(key, now + ttl, now))
    }

    async fn lease(&self, key: StoreKey, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        self.write(|state, now| state.lease(key, now + ttl, now))
    }

    async fn extend(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        self.write(|state, now| {
            let held = state.holds(lease, now);
            if held {
                state.hold(lease, now + ttl);
            }
            held
        })
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        self.write(|state, now| {
            if state.holds(&lease, now) {
                state.let_go(lease.key);
            }
        })
    }

    async fn list(&self, cursor: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
        let after = cursor.map(|cursor| cursor.key()).transpose()?;
        self.read(|state, now| state.page(after, limit.max(1), now))
    }

    async fn take(&self, _: StoreKey, _: Rate, _: Take) -> Result<Taken, StoreError> {
        self.read(|_, _| Taken::Uncounted)
    }

    fn changes(&self) -> Option<broadcast::Receiver<Change>> {
        None
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.read(|_, _| ())
    }
}

/// What an entry of the expiry queue is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Record,
    Mark,
    Lease,
}

#[derive(Clone, Copy)]
struct Held {
    fence: u64,
    ends_at: UnixTime,
}

#[derive(Default)]
struct State {
    records: BTreeMap<StoreKey, Stored>,
    by_index: BTreeSet<(Index, StoreKey)>,
    marks: HashMap<StoreKey, UnixTime>,
    leases: HashMap<StoreKey, Held>,
    /// Every entry above with its end, soonest first.
    ends: BTreeSet<(UnixTime, Kind, StoreKey)>,
    /// One counter for all keys: it grows on each of them, and needs no memory of leases that ended.
    last_fence: u64,
}

impl State {
    fn live(&self, key: StoreKey, now: UnixTime) -> Option<&Stored> {
        self.records.get(&key).filter(|stored| now < stored.expires_at)
    }

    fn under(&self, index: Index, now: UnixTime) -> impl Iterator<Item = &Stored> {
        let all = (index, StoreKey([0; 32]))..=(index, StoreKey([0xff; 32]));
        self.by_index.range(all).filter_map(move |(_, key)| self.live(*key, now))
    }

    /// Writes a record over whatever was there.
    fn store(&mut self, stored: Stored) {
        let key = stored.record.key;
        self.take(key);
        self.by_index.extend(stored.record.indexes.iter().map(|index| (*index, key)));
        self.ends.insert((stored.expires_at, Kind::Record, key));
        self.records.insert(key, stored);
    }

    /// Removes a record and every trace of it.
    fn take(&mut self, key: StoreKey) -> Option<Stored> {
        let stored = self.records.remove(&key)?;
        for index in &stored.record.indexes {
            self.by_index.remove(&(*index, key));
        }
        self.ends.remove(&(stored.expires_at, Kind::Record, key));
        Some(stored)
    }

    fn is_marked(&self, key: StoreKey, now: UnixTime) -> bool {
        self.marks.get(&key).is_some_and(|until| now < *until)
    }

    /// Marks a key until `until`; says whether that changed anything.
    fn mark(&mut self, key: StoreKey, until: UnixTime, now: UnixTime) -> bool {
        let before = self.marks.get(&key).copied();
        if until <= now || before.is_some_and(|before| until <= before) {
            return false;
        }
        self.unmark(key);
        self.marks.insert(key, until);
        self.ends.insert((until, Kind::Mark, key));
        true
    }

    fn unmark(&mut self, key: StoreKey) {
        if let Some(until) = self.marks.remove(&key) {
            self.ends.remove(&(until, Kind::Mark, key));
        }
    }

    fn lease(&mut self, key: StoreKey, ends_at: UnixTime, now: UnixTime) -> Option<Lease> {
        let taken = self.leases.get(&key).is_some_and(|held| now < held.ends_at);
        if taken || ends_at <= now {
            return None;
        }
        self.let_go(key);
        self.last_fence = self.last_fence.saturating_add(1);
        let lease = Lease { key, fence: self.last_fence };
        self.hold(&lease, ends_at);
        Some(lease)
    }

    fn holds(&self, lease: &Lease, now: UnixTime) -> bool {
        self.leases.get(&lease.key).is_some_and(|held| held.fence == lease.fence && now < held.ends_at)
    }

    /// Notes the holder of a lease, until `ends_at` at least.
    fn hold(&mut self, lease: &Lease, ends_at: UnixTime) {
        let before = self.let_go(lease.key);
        let ends_at = before.map_or(ends_at, |held| held.ends_at.max(ends_at));
        self.leases.insert(lease.key, Held { fence: lease.fence, ends_at });
        self.ends.insert((ends_at, Kind::Lease, lease.key));
    }

    fn let_go(&mut self, key: StoreKey) -> Option<Held> {
        let held = self.leases.remove(&key)?;
        self.ends.remove(&(held.ends_at, Kind::Lease, key));
        Some(held)
    }

    fn page(&self, after: Option<StoreKey>, limit: usize, now: UnixTime) -> Page {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut live = self
            .records
            .range((after, Bound::Unbounded))
            .map(|(_, stored)| stored)
            .filter(|stored| now < stored.expires_at);
        let records: Vec<_> = live.by_ref().take(limit).cloned().collect();
        let next = live.next().and(records.last()).map(|last| Cursor::after(last.record.key));
        Page { records, next }
    }

    /// Takes away a few of the entries that have ended.
    fn sweep(&mut self, now: UnixTime) {
        for _ in 0..SWEPT_BY_A_WRITE {
            let Some((_, kind, key)) = self.ends.first().copied().filter(|(at, ..)| *at <= now) else {
                return;
            };
            match kind {
                Kind::Record => drop(self.take(key)),
                Kind::Mark => self.unmark(key),
                Kind::Lease => drop(self.let_go(key)),
            }
        }
    }
}

#[cfg(test)]
impl MemoryStore {
    /// Makes every later operation fail, as an outage would.
    pub(crate) fn break_down(&self) {
        use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

        let panic_under_the_lock =
            AssertUnwindSafe(|| self.write(|_, _| resume_unwind(Box::new("an outage"))));
        assert!(catch_unwind::<_, Result<(), StoreError>>(panic_under_the_lock).is_err());
    }

    /// Makes operations succeed again.
    pub(crate) fn mend(&self) {
        self.state.clear_poison();
    }

    /// How many entries of any kind there are.
    pub(super) fn rows(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.records.len() + state.by_index.len() + state.marks.len() + state.leases.len() + state.ends.len()
    }
}
