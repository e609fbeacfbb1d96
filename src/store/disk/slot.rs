//! The open database, and what becomes of it after an error of the disk.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use redb::{Database, Error, ReadableDatabase as _};

use super::file::OpenError;
use super::tables::{Snapshot, Tables};
use crate::store::StoreError;

/// Opens the database again after it failed.
pub(super) type Reopen = Box<dyn Fn() -> Result<Database, OpenError> + Send + Sync>;

/// The database, as long as it can be used. It is closed and opened again after an error of the disk:
/// after the first one it refuses everything, also what could still be read.
pub(super) struct Slot {
    database: RwLock<Result<Database, String>>,
    reopen: Reopen,
}

impl Slot {
    pub(super) fn new(database: Database, reopen: Reopen) -> Self {
        Self { database: RwLock::new(Ok(database)), reopen }
    }

    /// Looks into the database as it is now.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Snapshot<'_>) -> Result<T, Error>) -> Result<T, Fault> {
        let slot = self.lock();
        let transaction = usable(&slot)?.begin_read().map_err(Error::from)?;
        Ok(look(&Snapshot(&transaction))?)
    }

    /// Makes one durable change: when this returns `Ok` it is on the disk.
    pub(super) fn write(
        &self,
        change: impl FnOnce(&mut Tables<'_>) -> Result<(), Error>,
    ) -> Result<(), Fault> {
        let slot = self.lock();
        let mut transaction = usable(&slot)?.begin_write().map_err(Error::from)?;
        // The state of the allocator goes with each commit, so that opening after a crash or after an
        // error doesn't have to walk the whole file.
        transaction.set_quick_repair(true);
        change(&mut Tables::open(&transaction)?)?;
        Ok(transaction.commit().map_err(Error::from)?)
    }

    fn lock(&self) -> RwLockReadGuard<'_, Result<Database, String>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the database and opens it again. Whoever wants to read waits.
    pub(super) fn recover(&self) {
        self.replace_with(|| (self.reopen)().map_err(|error| error.to_string()));
    }

    /// Closes the database, so that the next start finds nothing to mend.
    pub(super) fn close(&self) {
        self.replace_with(|| Err("the store is closed".to_owned()));
    }

    fn replace_with(&self, next: impl FnOnce() -> Result<Database, String>) {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if let Ok(database) = std::mem::replace(&mut *slot, Err("the store is being opened".to_owned())) {
            // An error here is the one that led here; what was committed is safe without it.
            let _told_already = database.close();
        }
        *slot = next();
    }
}

fn usable<'a>(slot: &'a RwLockReadGuard<'_, Result<Database, String>>) -> Result<&'a Database, Fault> {
    slot.as_ref().map_err(|reason| Fault::Closed(reason.clone()))
}

/// Why a transaction failed; every caller in it is told.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Closed(String),
    Database(Arc<Error>),
    Panic,
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
            Fault::Closed(reason) => Self::new(reason),
            Fault::Database(error) => Self::caused_by("the database failed", error),
            Fault::Panic => Self::new("the database panicked"),
            Fault::Resting => Self::new("a write failed a moment ago"),
        }
    }
}
