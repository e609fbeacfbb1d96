//! The one thread that writes: it takes whatever waits, and commits it in one durable transaction.
//!
//! While one commit waits for the disk the next callers gather, so that the cost of a sync is shared
//! by all of them and none waits for more than two. What has ended is swept along with the changes,
//! and in small transactions of its own while there are none.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use redb::Error;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::slot::{Fault, Slot};
use super::tables::Tables;
use crate::clock::{Clock, UnixTime};
use crate::store::StoreError;

/// How many changes go into one transaction at most.
const BATCH: usize = 256;
/// How many ended entries a change takes away: more than the one that it may add.
const SWEPT_BY_A_CHANGE: usize = 4;
/// How many ended entries a transaction without changes takes away: few, because a change that comes
/// meanwhile waits for it.
const SWEPT_AT_ONCE: usize = 32;
/// Between two sweeps of what has ended, while there is more.
const BREATH: Duration = Duration::from_millis(20);

/// The store's measures of time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Without changes for this long, the writer looks for what has ended.
    pub(super) idle: Duration,
    /// After a failure changes are refused for this long: opening the database again for each of
    /// them would keep the readers out.
    pub(super) rest: Duration,
    /// A caller waits for no longer than this.
    pub(super) deadline: Duration,
}

/// A change that waits for its transaction.
pub(super) trait Job: Send {
    /// Makes the change; its result is kept until it is durable.
    fn run(&mut self, tables: &mut Tables<'_>, now: UnixTime) -> Result<(), Error>;

    /// Tells the caller.
    fn answer(self: Box<Self>, outcome: &Result<(), Fault>);
}

/// A change made by a closure.
pub(super) struct Change<T, F> {
    work: Option<F>,
    result: Option<T>,
    caller: oneshot::Sender<Result<T, StoreError>>,
    /// The caller's place in the queue, free again with the answer.
    _place: OwnedSemaphorePermit,
}

impl<T, F> Change<T, F> {
    pub(super) fn new(
        work: F,
        caller: oneshot::Sender<Result<T, StoreError>>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self { work: Some(work), result: None, caller, _place: place }
    }
}

impl<T, F> Job for Change<T, F>
where
    T: Send,
    F: FnOnce(&mut Tables<'_>, UnixTime) -> Result<T, Error> + Send,
{
    fn run(&mut self, tables: &mut Tables<'_>, now: UnixTime) -> Result<(), Error> {
        if let Some(work) = self.work.take() {
            self.result = Some(work(tables, now)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: &Result<(), Fault>) {
        let answer = match (outcome, self.result) {
            (Ok(()), Some(result)) => Ok(result),
            (Ok(()), None) => Err(StoreError::new("the change was not made")),
            (Err(fault), _) => Err(fault.clone().into()),
        };
        // A caller that went away does not undo its change.
        let _gone = self.caller.send(answer);
    }
}

/// The writing thread's state.
pub(super) struct Writer {
    slot: Arc<Slot>,
    jobs: Receiver<Box<dyn Job>>,
    clock: Clock,
    pace: Pace,
    failed_at: Option<Instant>,
}

impl Writer {
    pub(super) fn new(slot: Arc<Slot>, jobs: Receiver<Box<dyn Job>>, clock: Clock, pace: Pace) -> Self {
        Self { slot, jobs, clock, pace, failed_at: None }
    }

    /// Works until the store is dropped and nothing waits any more, then closes the database.
    pub(super) fn run(mut self) {
        self.end_leases();
        let mut patience = self.pace.idle;
        loop {
            patience = match self.jobs.recv_timeout(patience) {
                Ok(first) => self.serve(first),
                Err(RecvTimeoutError::Timeout) => self.sweep(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
        }
        self.slot.close();
    }

    /// The file is open once at a time, so whoever held a lease is gone. Where this fails they run out.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the methods are not general in their lifetimes"
    )]
    fn end_leases(&self) {
        if matches!(self.slot.read(|snapshot| snapshot.has_leases()), Ok(true)) {
            let _run_out = self.slot.write(|tables| tables.let_go_of_all());
        }
    }

    fn serve(&mut self, first: Box<dyn Job>) -> Duration {
        let mut batch = vec![first];
        batch.extend(self.jobs.try_iter().take(BATCH - 1));
        let swept = batch.len() * SWEPT_BY_A_CHANGE;
        let outcome = self.commit(&mut batch, swept);
        for job in batch {
            job.answer(&outcome);
        }
        self.pace.idle
    }

    /// Takes away some of what has ended; says how long to wait for a change before the next.
    fn sweep(&mut self) -> Duration {
        let now = self.clock.now();
        let found = self.slot.read(|snapshot| snapshot.has_ended(now));
        // An error shows itself to the next caller, who is told.
        if !matches!(found, Ok(true)) {
            return self.pace.idle;
        }
        self.commit(&mut [], SWEPT_AT_ONCE).map_or(self.pace.idle, |()| BREATH)
    }

    fn commit(&mut self, batch: &mut [Box<dyn Job>], swept: usize) -> Result<(), Fault> {
        if self.failed_at.is_some_and(|at| at.elapsed() < self.pace.rest) {
            return Err(Fault::Resting);
        }
        let outcome = self.slot.write(|tables| {
            tables.sweep(self.clock.now(), swept)?;
            batch.iter_mut().try_for_each(|job| job.run(tables, self.clock.now()))
        });
        self.failed_at = outcome.is_err().then(Instant::now);
        outcome
    }
}
