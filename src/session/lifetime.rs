//! How long a session lives: idle and absolute, both decided here (SC-10).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::UnixTime;

/// The two limits of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A session that is not used for this long ends.
    pub idle_timeout: Duration,
    /// A session ends this long after sign-in, whatever happens.
    pub max_lifetime: Duration,
}

/// The times of one session.
#[derive(Debug)]
pub struct Lifetime {
    created_at: UnixTime,
    last_seen: AtomicU64,
    written: AtomicU64,
}

/// What is to be done with a session that is used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it.
    Fresh,
    /// Serve it, and write the time of use back: a tenth of the idle timeout has passed since the
    /// last time it was written. Said once for each tenth.
    WriteBack,
    /// It is over.
    Ended,
}

impl Lifetime {
    /// The times as the store has them.
    #[must_use]
    pub const fn new(created_at: UnixTime, last_seen: UnixTime) -> Self {
        Self {
            created_at,
            last_seen: AtomicU64::new(last_seen.as_millis()),
            written: AtomicU64::new(last_seen.as_millis()),
        }
    }

    /// Notes a use at `now` and says what follows.
    pub fn touch(&self, limits: &Limits, now: UnixTime) -> Verdict {
        if self.expires_at(limits) <= now {
            return Verdict::Ended;
        }
        self.last_seen.fetch_max(now.as_millis(), Ordering::Relaxed);
        let written = self.written.load(Ordering::Relaxed);
        if now.since(UnixTime::from_millis(written)) < limits.idle_timeout / 10 {
            return Verdict::Fresh;
        }
        // Whoever moves the mark writes; the others go on.
        let moved =
            self.written.compare_exchange(written, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() { Verdict::WriteBack } else { Verdict::Fresh }
    }

    /// When the session ends if it is not used again.
    #[must_use]
    pub fn expires_at(&self, limits: &Limits) -> UnixTime {
        expires_at(self.created_at, self.last_seen(), limits)
    }

    /// When it was last used.
    #[must_use]
    pub fn last_seen(&self) -> UnixTime {
        UnixTime::from_millis(self.last_seen.load(Ordering::Relaxed))
    }
}

/// When a session ends that was created and last used then: the earlier of the two limits.
#[must_use]
pub fn expires_at(created_at: UnixTime, last_seen: UnixTime, limits: &Limits) -> UnixTime {
    (last_seen + limits.idle_timeout).min(created_at + limits.max_lifetime)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { idle_timeout: Duration::from_mins(10), max_lifetime: Duration::from_hours(1) };

    fn at(secs: u64) -> UnixTime {
        UnixTime::from_secs(10_000 + secs)
    }

    #[test]
    fn an_idle_session_ends_and_a_used_one_does_not() {
        let idle = Lifetime::new(at(0), at(0));
        assert_eq!(idle.touch(&LIMITS, at(600)), Verdict::Ended);
        let used = Lifetime::new(at(0), at(0));
        assert_ne!(used.touch(&LIMITS, at(599)), Verdict::Ended);
        assert_ne!(used.touch(&LIMITS, at(1198)), Verdict::Ended);
    }

    #[test]
    fn activity_never_outlives_the_absolute_limit() {
        let session = Lifetime::new(at(0), at(0));
        for secs in (500..3600).step_by(500) {
            assert_ne!(session.touch(&LIMITS, at(secs)), Verdict::Ended, "at {secs}");
        }
        assert_eq!(session.touch(&LIMITS, at(3600)), Verdict::Ended);
    }

    #[test]
    fn the_time_of_use_is_written_back_once_for_each_tenth_of_the_idle_timeout() {
        let session = Lifetime::new(at(0), at(0));
        assert_eq!(session.touch(&LIMITS, at(59)), Verdict::Fresh);
        assert_eq!(session.touch(&LIMITS, at(60)), Verdict::WriteBack);
        assert_eq!(session.touch(&LIMITS, at(61)), Verdict::Fresh);
        assert_eq!(session.touch(&LIMITS, at(120)), Verdict::WriteBack);
    }

    #[test]
    fn a_clock_that_jumps_back_neither_ends_a_session_nor_lengthens_it() {
        let session = Lifetime::new(at(0), at(0));
        assert_eq!(session.touch(&LIMITS, at(50)), Verdict::Fresh);
        assert_eq!(session.touch(&LIMITS, at(10)), Verdict::Fresh);
        assert_eq!(session.last_seen(), at(50));
    }
}
