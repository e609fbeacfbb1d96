//! Sessions in an embedded transactional database in `data_dir`: the default.
//!
//! - Writes go through one thread that commits whatever waits in one transaction; a caller is told
//!   after the disk has it (`writer`).
//! - Reads see the last commit and never wait for a write. They run on the runtime's blocking threads,
//!   because a page that is in no cache waits for the disk, and callers may stand on a thread that
//!   serves connections. A read costs a few microseconds and two changes of threads; it happens only
//!   when the cache of ready sessions does not know a session.
//! - After an error of the disk the database is opened again, so that a full disk refuses writes only
//!   (`slot`). Where a file system copies on each write, a full disk may refuse reads, too: that is an
//!   outage, never an absence.
//! - The file is made once and never made again over one that is there (`file`).
//! - A copy is made of one moment while all goes on (`backup`).
//!
//! Callers may be on any Tokio runtime that has timers.

mod backup;
mod file;
mod slot;
mod tables;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_trait::async_trait;
use redb::Error;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, oneshot};

pub use self::backup::{Backup, BackupError};
use self::backup::{Customer, EFFORT};
pub use self::file::OpenError;
use self::slot::Slot;
use self::tables::{Snapshot, Tables};
use self::writer::{Change, Job, Pace, Writer};
use super::{
    Cursor, Index, Lease, Page, Record, Replaced, SessionStore, StoreError, StoreKey, Stored, Take, Taken,
};
use crate::clock::bucket::Rate;
use crate::clock::{Clock, UnixTime};

/// How many changes may wait; further callers wait for a place.
const WAITING_WRITES: usize = 1024;
/// How many reads run at once: more would take the runtime's blocking threads from everybody else.
const READS_AT_ONCE: usize = 32;
/// A disk that takes longer than ten seconds is taken for one that doesn't answer.
const PACE: Pace = Pace {
    idle: Duration::from_secs(1),
    rest: Duration::from_millis(500),
    deadline: Duration::from_secs(10),
};

/// A store on disk.
pub struct DiskStore {
    slot: Arc<Slot>,
    clock: Clock,
    runtime: Handle,
    deadline: Duration,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    backups: Arc<Semaphore>,
    jobs: Option<Sender<Box<dyn Job>>>,
    writer: Option<JoinHandle<()>>,
}

impl DiskStore {
    /// Opens the store in `data_dir`, and makes both where they are not there: the directory for its
    /// owner only, and `sessions.redb` in it. Reads run on `runtime`. Blocks while the file is checked:
    /// about a second at most.
    ///
    /// # Errors
    /// [`OpenError`] that names the file. A file that is damaged or of a newer format stays as it is.
    pub fn open(data_dir: &Path, clock: Clock, runtime: Handle) -> Result<Self, OpenError> {
        let database = file::open_or_create(data_dir)?;
        let path = file::path(data_dir);
        let slot = Slot::new(database, Box::new(move || file::open(&path, false)), PACE.rest);
        Self::start(slot, clock, runtime, PACE).map_err(OpenError::Thread)
    }

    /// Whether there is a store in `data_dir`; nothing is opened.
    ///
    /// # Errors
    /// Where that can't be seen.
    pub fn exists(data_dir: &Path) -> Result<bool, std::io::Error> {
        file::path(data_dir).try_exists()
    }

    /// Where a backup of the store in `data_dir` is made.
    #[must_use]
    pub fn backup_file(data_dir: &Path) -> PathBuf {
        backup::path(data_dir)
    }

    /// Makes a backup in `data_dir`, over the one that is there: a store as it is at this moment, in a
    /// file for its owner only. Others go on meanwhile. Given up when the caller no longer waits.
    ///
    /// # Errors
    /// [`BackupError`]; what was there before is kept.
    pub async fn back_up(&self, data_dir: &Path) -> Result<Backup, BackupError> {
        let place = Arc::clone(&self.backups).try_acquire_owned().ok().ok_or(BackupError::Busy)?;
        let (slot, data_dir, customer) = (Arc::clone(&self.slot), data_dir.to_owned(), Customer::default());
        let gone = customer.gone();
        let writing = self.runtime.spawn_blocking(move || {
            let _place = place;
            let snapshot = slot.snapshot().map_err(StoreError::from)?;
            backup::write(&snapshot, &data_dir, &gone, EFFORT)
        });
        writing.await.map_err(|lost| StoreError::caused_by("the backup stopped", lost))?
    }

    fn start(slot: Slot, clock: Clock, runtime: Handle, pace: Pace) -> Result<Self, std::io::Error> {
        let (slot, (jobs, queue)) = (Arc::new(slot), mpsc::channel());
        let writer = Writer::new(Arc::clone(&slot), queue, clock.clone(), pace);
        let thread = thread::Builder::new().name("store writer".to_owned()).spawn(|| writer.run())?;
        Ok(Self {
            slot,
            clock,
            runtime,
            deadline: pace.deadline,
            reads: Arc::new(Semaphore::new(READS_AT_ONCE)),
            writes: Arc::new(Semaphore::new(WAITING_WRITES)),
            backups: Arc::new(Semaphore::new(1)),
            jobs: Some(jobs),
            writer: Some(thread),
        })
    }

    /// Makes a change and waits until it is on the disk.
    async fn write<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables<'_>, UnixTime) -> Result<T, Error> + Send + 'static,
    {
        self.within_deadline(async {
            let place = place_in(&self.writes).await?;
            let (caller, answer) = oneshot::channel();
            let job = Box::new(Change::new(change, caller, place));
            let queued = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
            if !queued {
                return Err(StoreError::new("the writer has stopped"));
            }
            answer.await.unwrap_or_else(|lost| Err(StoreError::caused_by("the writer has stopped", lost)))
        })
        .await
    }

    /// Reads what was committed last.
    async fn read<T, F>(&self, look: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Snapshot<'_>, UnixTime) -> Result<T, Error> + Send + 'static,
    {
        self.within_deadline(async {
            let place = place_in(&self.reads).await?;
            let (slot, clock) = (Arc::clone(&self.slot), self.clock.clone());
            let reading = self.runtime.spawn_blocking(move || {
                let _place = place;
                slot.read(|snapshot| look(snapshot, clock.now()))
            });
            let outcome = reading.await.map_err(|lost| StoreError::caused_by("reading stopped", lost))?;
            Ok(outcome?)
        })
        .await
    }

    async fn within_deadline<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::time::timeout(self.deadline, work)
            .await
            .unwrap_or_else(|late| Err(StoreError::caused_by("the disk does not answer", late)))
    }
}

async fn place_in(queue: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, StoreError> {
    Arc::clone(queue)
        .acquire_owned()
        .await
        .map_err(|closed| StoreError::caused_by("the store is closed", closed))
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore").finish_non_exhaustive()
    }
}

impl Drop for DiskStore {
    /// Waits until what was queued is written and the database is closed.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            // It can't have panicked over a change; if it did anyway there is nobody left to tell.
            let _ended = writer.join();
        }
    }
}

#[async_trait]
impl SessionStore for DiskStore {
    async fn get(&self, key: StoreKey) -> Result<Option<Stored>, StoreError> {
        self.read(move |snapshot, now| snapshot.record(key, now)).await
    }

    async fn put(&self, record: Record, ttl: Duration) -> Result<(), StoreError> {
        self.write(move |tables, now| tables.store(&record, 1, now + ttl)).await
    }

    async fn replace(
        &self,
        record: Record,
        ttl: Duration,
        expected_version: u64,
        lease: Option<&Lease>,
    ) -> Result<Replaced, StoreError> {
        let lease = lease.cloned();
        self.write(move |tables, now| {
            let Some(version) = tables.version(record.key, now)? else {
                return Ok(Replaced::Gone);
            };
            let held = lease.map_or(Ok(true), |lease| {
                Ok::<_, Error>(lease.key == record.key && tables.holds(&lease, now)?)
            })?;
            if version != expected_version || !held {
                return Ok(Replaced::Conflict);
            }
            let version = version.saturating_add(1);
            tables.store(&record, version, now + ttl)?;
            Ok(Replaced::Done(version))
        })
        .await
    }

    async fn remove(&self, key: StoreKey) -> Result<bool, StoreError> {
        self.write(move |tables, now| Ok(tables.take(key)?.is_some_and(|ends_at| now < ends_at))).await
    }

    async fn find_by(&self, index: Index) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        self.read(move |snapshot, now| snapshot.under(index, now)).await
    }

    async fn remove_by(&self, index: Index, and: Option<Index>) -> Result<Vec<StoreKey>, StoreError> {
        self.write(move |tables, now| tables.take_by(index, and, now)).await
    }

    async fn mark(&self, key: StoreKey, ttl: Duration) -> Result<(), StoreError> {
        self.write(move |tables, now| tables.mark(key, now + ttl, now).map(drop)).await
    }

    async fn is_marked(&self, key: StoreKey) -> Result<bool, StoreError> {
        self.read(move |snapshot, now| snapshot.is_marked(key, now)).await
    }

    async fn put_once(&self, key: StoreKey, ttl: Duration) -> Result<bool, StoreError> {
        self.write(move |tables, now| tables.mark_once(key, now + ttl, now)).await
    }

    async fn lease(&self, key: StoreKey, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        self.write(move |tables, now| tables.lease(key, now + ttl, now)).await
    }

    async fn extend(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let lease = lease.clone();
        self.write(move |tables, now| {
            let held = tables.holds(&lease, now)?;
            if held {
                tables.hold(&lease, now + ttl)?;
            }
            Ok(held)
        })
        .await
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        self.write(move |tables, now| {
            if tables.holds(&lease, now)? {
                tables.let_go(lease.key)?;
            }
            Ok(())
        })
        .await
    }

    async fn list(&self, cursor: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
        let after = cursor.map(|cursor| cursor.key()).transpose()?;
        self.read(move |snapshot, now| snapshot.page(after, limit.max(1), now)).await
    }

    async fn take(&self, _: StoreKey, _: Rate, _: Take) -> Result<Taken, StoreError> {
        Ok(Taken::Uncounted)
    }

    fn changes(&self) -> Option<broadcast::Receiver<super::Change>> {
        None
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.write(|tables, _| tables.try_room()).await
    }
}

#[cfg(test)]
impl DiskStore {
    /// How many rows of any kind there are.
    pub(super) fn rows(&self) -> usize {
        self.slot.read(|snapshot| Ok(snapshot.rows())).unwrap()
    }
}

#[cfg(test)]
mod power_cuts;
#[cfg(test)]
mod tests;
