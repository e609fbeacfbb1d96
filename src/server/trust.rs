//! How long a session in memory is believed without the store being asked.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::UnixTime;

/// What is known of one session's being as the store has it.
#[derive(Debug)]
pub(super) struct Trust {
    /// How often something was heard that the session in memory may not know of.
    doubts: AtomicU32,
    /// How many of them the store was asked about since.
    settled: AtomicU32,
    /// The generation of the whole cache in which it was asked.
    generation: AtomicU64,
    /// When it was asked, in milliseconds of [`UnixTime`].
    asked_at: AtomicU64,
}

/// The state of things before the store is asked: only what was known then does the answer settle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) doubts: u32,
    pub(super) generation: u64,
    pub(super) at: UnixTime,
}

impl Trust {
    /// A session that the answer to a question brought.
    pub(super) const fn new(question: Question) -> Self {
        let Question { doubts, generation, at } = question;
        Self {
            doubts: AtomicU32::new(doubts),
            settled: AtomicU32::new(doubts),
            generation: AtomicU64::new(generation),
            asked_at: AtomicU64::new(at.as_millis()),
        }
    }

    /// How many doubts there were.
    pub(super) fn doubts(&self) -> u32 {
        self.doubts.load(Ordering::Acquire)
    }

    /// Something happened to the record.
    pub(super) fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::AcqRel);
    }

    /// The store has the session as it is in memory.
    pub(super) fn settle(&self, question: Question) {
        self.asked_at.store(question.at.as_millis(), Ordering::Relaxed);
        self.generation.store(question.generation, Ordering::Relaxed);
        self.settled.store(question.doubts, Ordering::Release);
    }

    /// Whether nothing was heard since the store was asked.
    pub(super) fn is_settled(&self, generation: u64) -> bool {
        self.settled.load(Ordering::Acquire) == self.doubts.load(Ordering::Relaxed)
            && self.generation.load(Ordering::Relaxed) == generation
    }

    /// Whether the store was asked less than `staleness` ago. A clock that was set back tells nothing.
    pub(super) fn is_recent(&self, staleness: Duration, now: UnixTime) -> bool {
        let asked_at = UnixTime::from_millis(self.asked_at.load(Ordering::Relaxed));
        asked_at <= now && now.since(asked_at) < staleness
    }
}
