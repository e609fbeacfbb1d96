//! The open database, and what becomes of it after an error of the disk.
//!
//! After one error the database refuses everything, also what could still be read: a disk that is
//! full would take all sessions with it. So it is closed and opened again, and what can be read is
//! read; only changes fail until there is space.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use redb::{Database, Error, ReadTransaction, ReadableDatabase as _};

use super::file::OpenError;
use super::tables::{Snapshot, Tables};
use crate::store::StoreError;

/// Opens the database again after it failed.
pub(super) type Reopen = Box<dyn Fn() -> Result<Database, OpenError> + Send + Sync>;

/// Holds the database while it can be used, and mends it when it can't.
pub(super) struct Slot {
    content: RwLock<Content>,
    reopen: Reopen,
    /// Between two attempts to open a database that can't be opened.
    rest: Duration,
}

struct Content {
    state: State,
    /// Changes with the database, so that of many who saw one fail only the first opens the next.
    generation: u64,
}

enum State {
    Open(Database),
    Failed { reason: String, at: Instant },
    Closed,
}

/// Why a transaction failed. Every caller in it is told, hence cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// There is no open database.
    Shut(String),
    /// The database said no.
    Database(Arc<Error>),
    /// A change panicked.
    Panic,
    /// An earlier transaction failed, and the next attempt is a moment away.
    Resting,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Shut(reason) => Self::new(reason),
            Fault::Database(error) => Self::caused_by("the database failed", error),
            Fault::Panic => Self::new("a change to the database panicked"),
            Fault::Resting => Self::new("a write failed a moment ago"),
        }
    }
}

impl Slot {
    pub(super) fn new(database: Database, reopen: Reopen, rest: Duration) -> Self {
        let content = Content { state: State::Open(database), generation: 0 };
        Self { content: RwLock::new(content), reopen, rest }
    }

    /// Looks into the database as it is now; once more if it had to be opened again.
    pub(super) fn read<T>(&self, look: impl Fn(&Snapshot<'_>) -> Result<T, Error>) -> Result<T, Fault> {
        let attempt = || self.attempt(|database| look(&Snapshot(&database.begin_read()?)));
        let (generation, outcome) = attempt();
        if outcome.is_ok() {
            return outcome;
        }
        self.recover(generation);
        attempt().1
    }

    /// The database as it is now, for as long as the transaction is kept. It holds nothing up: when the
    /// database has to be opened again, the transaction fails from then on.
    pub(super) fn snapshot(&self) -> Result<ReadTransaction, Fault> {
        self.attempt(|database| Ok(database.begin_read()?)).1
    }

    /// Makes one durable change: when this returns `Ok` it is on the disk.
    pub(super) fn write(
        &self,
        change: impl FnOnce(&mut Tables<'_>) -> Result<(), Error>,
    ) -> Result<(), Fault> {
        let guarded = AssertUnwindSafe(|| self.attempt(|database| commit(database, change)));
        // Only the one writer writes, so without an outcome the generation is still the present one.
        let (generation, outcome) =
            catch_unwind(guarded).unwrap_or_else(|_panic| (self.lock().generation, Err(Fault::Panic)));
        if outcome.is_err() {
            self.recover(generation);
        }
        outcome
    }

    fn attempt<T>(&self, work: impl FnOnce(&Database) -> Result<T, Error>) -> (u64, Result<T, Fault>) {
        let content = self.lock();
        let outcome = match &content.state {
            State::Open(database) => work(database).map_err(Fault::from),
            State::Failed { reason, .. } => Err(Fault::Shut(reason.clone())),
            State::Closed => Err(Fault::Shut("the store is closed".to_owned())),
        };
        (content.generation, outcome)
    }

    fn lock(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the database again, unless somebody did since `generation`. Meanwhile readers wait.
    fn recover(&self, generation: u64) {
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        let resting = match &content.state {
            State::Open(_) => false,
            State::Failed { at, .. } => at.elapsed() < self.rest,
            State::Closed => true,
        };
        if resting || content.generation != generation {
            return;
        }
        content.shut();
        content.generation += 1;
        content.state = match (self.reopen)() {
            Ok(database) => State::Open(database),
            Err(error) => State::Failed { reason: error.to_string(), at: Instant::now() },
        };
    }

    /// Closes the database for good, so that the next start finds nothing to mend.
    pub(super) fn close(&self) {
        self.content.write().unwrap_or_else(PoisonError::into_inner).shut();
    }
}

impl Content {
    fn shut(&mut self) {
        if let State::Open(database) = std::mem::replace(&mut self.state, State::Closed) {
            // After a failure this only says so again; what was committed is safe without it.
            let _known = database.close();
        }
    }
}

fn commit(
    database: &Database,
    change: impl FnOnce(&mut Tables<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut transaction = database.begin_write()?;
    // The state of the allocator goes with each commit, so that opening the file after a crash or an
    // error doesn't have to walk all of it.
    transaction.set_quick_repair(true);
    change(&mut Tables::open(&transaction)?)?;
    Ok(transaction.commit()?)
}
