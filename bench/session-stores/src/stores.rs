//! The stores, opened as the gateway opens them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis::clock::Clock;
use portcullis::store::SessionStore;
use portcullis::store::disk::DiskStore;
use portcullis::store::memory::MemoryStore;
use tokio::runtime::Handle;

use crate::Outcome;

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Memory,
    Disk,
}

impl Kind {
    pub fn parse(name: &str) -> Outcome<Self> {
        match name {
            "memory" => Ok(Self::Memory),
            "disk" => Ok(Self::Disk),
            other => Err(format!("there is no store {other}").into()),
        }
    }

    /// Opens it; what it keeps on disk is in `folder`.
    pub async fn open(self, folder: &Path, clock: Clock) -> Outcome<Arc<dyn SessionStore>> {
        Ok(match self {
            Self::Memory => Arc::new(MemoryStore::new(clock)),
            Self::Disk => Arc::new(DiskStore::open(folder, clock, Handle::current())?),
        })
    }

    /// How long records live that are to end while they are watched, and whether the clock is moved for it
    /// rather than waited for.
    pub const fn short_life(self) -> (Duration, bool) {
        match self {
            Self::Memory | Self::Disk => (Duration::from_hours(1), true),
        }
    }

    /// Between two sign-ins while records are swept: the disk store sweeps in the gaps, the one in memory
    /// along with writes.
    pub const fn pause_between_sign_ins(self) -> Duration {
        match self {
            Self::Memory => Duration::ZERO,
            Self::Disk => Duration::from_millis(25),
        }
    }
}
