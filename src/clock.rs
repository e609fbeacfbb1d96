//! Time as a value.
//!
//! Owns the only readings of the wall clock. Everything that depends on time takes a [`UnixTime`]
//! as an argument or holds a [`Clock`], so that a test can move it.

pub mod bucket;

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The end of time: later than any moment that a clock shows.
    pub const MAX: Self = Self(u64::MAX);

    /// The moment `millis` milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The moment `secs` seconds after the epoch; too large a number saturates.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for UnixTime {
    type Output = Self;

    /// Saturates at [`UnixTime::MAX`].
    fn add(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

impl Sub<Duration> for UnixTime {
    type Output = Self;

    /// Saturates at the epoch.
    fn sub(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(millis))
    }
}

impl fmt::Debug for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}

/// Where the time comes from: the machine, or a test.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicU64>),
    /// Panics while that is set.
    #[cfg(test)]
    Breaks(Arc<AtomicBool>),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `now` until [`Clock::advance`] moves it; clones move together.
    #[must_use]
    pub fn manual(now: UnixTime) -> Self {
        Self(Source::Manual(Arc::new(AtomicU64::new(now.0))))
    }

    /// The machine's clock, that panics while `broken` is set.
    #[cfg(test)]
    pub(crate) const fn breaks(broken: Arc<AtomicBool>) -> Self {
        Self(Source::Breaks(broken))
    }

    /// The present moment.
    #[must_use]
    #[cfg_attr(test, expect(clippy::missing_panics_doc, reason = "only the one for tests does"))]
    pub fn now(&self) -> UnixTime {
        match &self.0 {
            Source::System => system_now(),
            Source::Manual(millis) => UnixTime(millis.load(Ordering::SeqCst)),
            #[cfg(test)]
            Source::Breaks(broken) => {
                assert!(!broken.load(Ordering::SeqCst), "the clock is broken");
                system_now()
            }
        }
    }

    /// Moves a manual clock forward; a system clock stays as it is.
    pub fn advance(&self, duration: Duration) {
        if let Source::Manual(millis) = &self.0 {
            let now = UnixTime(millis.load(Ordering::SeqCst)) + duration;
            millis.store(now.0, Ordering::SeqCst);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one reader of the wall clock")]
fn system_now() -> UnixTime {
    // A clock set before 1970 reads as the epoch: everything looks unexpired for no longer than
    // its own lifetime, and nothing panics.
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_saturate_instead_of_wrapping() {
        assert_eq!(UnixTime::MAX + Duration::from_secs(1), UnixTime::MAX);
        assert_eq!(UnixTime::from_secs(1) - Duration::from_secs(2), UnixTime::from_secs(0));
        assert_eq!(UnixTime::from_secs(u64::MAX), UnixTime::MAX);
    }

    #[test]
    fn clones_of_a_manual_clock_move_together() {
        let clock = Clock::manual(UnixTime::from_secs(100));
        let twin = clock.clone();
        clock.advance(Duration::from_secs(5));
        assert_eq!(twin.now(), UnixTime::from_secs(105));
    }
}
