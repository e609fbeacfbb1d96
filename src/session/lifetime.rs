//! How long a session lives: idle and absolute, both decided here (SC-10).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Session;
use crate::clock::UnixTime;

/// The limits of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A session that is not used for this long ends.
    pub idle_timeout: Duration,
    /// A session ends this long after sign-in, whatever happens.
    pub max_lifetime: Duration,
    /// The shortest idle timeout of all, those of routes among them: the time of use is written back
    /// after a tenth of it.
    pub shortest_idle: Duration,
}

/// The shorter limits of a route: a session that is past them serves other routes and not this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RouteLimits {
    /// A session that was not used for this long at any time since sign-in is too old here.
    pub idle_timeout: Option<Duration>,
    /// As is one whose sign-in was longer ago than this.
    pub max_lifetime: Option<Duration>,
}

/// Clocks of gateways may differ by this much; a time that lies further ahead is of a clock that was set
/// back since.
pub const SKEW: Duration = Duration::from_mins(1);

/// The times of a session at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When the person signed in.
    pub created_at: UnixTime,
    /// When it was last used.
    pub last_seen: UnixTime,
    /// The longest time between two uses.
    pub longest_idle: Duration,
}

impl Times {
    /// The times in a record.
    #[must_use]
    pub const fn of(session: &Session) -> Self {
        let Session { created_at, last_seen, longest_idle, .. } = session;
        Self { created_at: *created_at, last_seen: *last_seen, longest_idle: *longest_idle }
    }

    /// Puts them into a record.
    pub const fn write_to(self, session: &mut Session) {
        session.created_at = self.created_at;
        session.last_seen = self.last_seen;
        session.longest_idle = self.longest_idle;
    }

    /// What two gateways know together: no use that either saw is forgotten.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        Self {
            created_at: self.created_at.min(other.created_at),
            last_seen: self.last_seen.max(other.last_seen),
            longest_idle: self.longest_idle.max(other.longest_idle),
        }
    }

    /// The same by a clock that was set back: the session is as old as it was at its last use, and no
    /// time has passed since.
    #[must_use]
    pub fn following(self, now: UnixTime) -> Self {
        let ahead = self.last_seen.since(now);
        if ahead <= SKEW {
            return self;
        }
        Self { created_at: self.created_at - ahead, last_seen: now, ..self }
    }
}

/// The times of one session that is in use.
#[derive(Debug)]
pub struct Lifetime {
    created_at: AtomicU64,
    last_seen: AtomicU64,
    longest_idle: AtomicU64,
    written: AtomicU64,
}

/// What is to be done with a session that is used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it.
    Fresh,
    /// Serve it, and write the time of use back: a tenth of the shortest idle timeout has passed since
    /// the last time it was written. Said once for each tenth.
    WriteBack,
    /// It is over.
    Ended,
}

impl Lifetime {
    /// The times as the store has them, at `now`.
    #[must_use]
    pub fn new(stored: Times, now: UnixTime) -> Self {
        let times = stored.following(now);
        // What the store has of another time has to be written anew.
        let written = if times == stored { times.last_seen.as_millis() } else { 0 };
        Self {
            created_at: AtomicU64::new(times.created_at.as_millis()),
            last_seen: AtomicU64::new(times.last_seen.as_millis()),
            longest_idle: AtomicU64::new(millis(times.longest_idle)),
            written: AtomicU64::new(written),
        }
    }

    /// Takes over what the store has by now; nothing that is known here is forgotten.
    pub fn merge(&self, stored: Times, now: UnixTime) {
        let times = stored.following(now);
        self.created_at.fetch_min(times.created_at.as_millis(), Ordering::Relaxed);
        self.longest_idle.fetch_max(millis(times.longest_idle), Ordering::Relaxed);
        self.last_seen.fetch_max(times.last_seen.as_millis(), Ordering::Release);
        if times == stored {
            self.written.fetch_max(times.last_seen.as_millis(), Ordering::Relaxed);
        }
    }

    /// Whether the absolute limit has passed.
    #[must_use]
    pub fn is_too_old(&self, limits: &Limits, now: UnixTime) -> bool {
        self.times().created_at + limits.max_lifetime <= now
    }

    /// Notes a use at `now` and says what follows.
    pub fn touch(&self, limits: &Limits, now: UnixTime) -> Verdict {
        self.follow(now);
        if self.expires_at(limits) <= now {
            return Verdict::Ended;
        }
        self.note_use(now);
        let written = self.written.load(Ordering::Relaxed);
        if now.since(UnixTime::from_millis(written)) < limits.shortest_idle / 10 {
            return Verdict::Fresh;
        }
        // Whoever moves the mark writes; the others go on.
        let moved =
            self.written.compare_exchange(written, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() { Verdict::WriteBack } else { Verdict::Fresh }
    }

    fn note_use(&self, now: UnixTime) {
        let last_seen = UnixTime::from_millis(self.last_seen.load(Ordering::Acquire));
        let idle = millis(now.since(last_seen));
        if idle > self.longest_idle.load(Ordering::Relaxed) {
            self.longest_idle.fetch_max(idle, Ordering::Relaxed);
        }
        // Whoever sees this use sees how long nothing was before it.
        self.last_seen.fetch_max(now.as_millis(), Ordering::Release);
    }

    /// The clock was set back since the last use.
    fn follow(&self, now: UnixTime) {
        let last_seen = self.last_seen.load(Ordering::Relaxed);
        let ahead = UnixTime::from_millis(last_seen).since(now);
        if ahead <= SKEW {
            return;
        }
        let moved =
            self.last_seen.compare_exchange(last_seen, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() {
            let earlier = |at| Some((UnixTime::from_millis(at) - ahead).as_millis());
            let _ = self.created_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earlier);
            self.written.store(0, Ordering::Relaxed);
        }
    }

    /// Whether a route with these limits takes the session; asked after [`Lifetime::touch`], so that a
    /// pause counts which this use has ended.
    #[must_use]
    pub fn fits(&self, limits: &RouteLimits, now: UnixTime) -> bool {
        let Times { created_at, longest_idle, .. } = self.times();
        limits.max_lifetime.is_none_or(|max| now.since(created_at) < max)
            && limits.idle_timeout.is_none_or(|idle| longest_idle < idle)
    }

    /// When the session ends if it is not used again.
    #[must_use]
    pub fn expires_at(&self, limits: &Limits) -> UnixTime {
        let Times { created_at, last_seen, .. } = self.times();
        expires_at(created_at, last_seen, limits)
    }

    /// The times as they are now.
    #[must_use]
    pub fn times(&self) -> Times {
        Times {
            created_at: UnixTime::from_millis(self.created_at.load(Ordering::Relaxed)),
            last_seen: UnixTime::from_millis(self.last_seen.load(Ordering::Acquire)),
            longest_idle: Duration::from_millis(self.longest_idle.load(Ordering::Relaxed)),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// When a session ends that was created and last used then: the earlier of the two limits.
#[must_use]
pub fn expires_at(created_at: UnixTime, last_seen: UnixTime, limits: &Limits) -> UnixTime {
    (last_seen + limits.idle_timeout).min(created_at + limits.max_lifetime)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        idle_timeout: Duration::from_mins(10),
        max_lifetime: Duration::from_hours(1),
        shortest_idle: Duration::from_mins(10),
    };

    fn at(secs: u64) -> UnixTime {
        UnixTime::from_secs(1_800_000_000 + secs)
    }

    fn begun(created_at: UnixTime) -> Times {
        Times { created_at, last_seen: created_at, longest_idle: Duration::ZERO }
    }

    fn new() -> Lifetime {
        Lifetime::new(begun(at(0)), at(0))
    }

    #[test]
    fn an_idle_session_ends_and_a_used_one_does_not() {
        assert_eq!(new().touch(&LIMITS, at(600)), Verdict::Ended);
        let used = new();
        assert_ne!(used.touch(&LIMITS, at(599)), Verdict::Ended);
        assert_ne!(used.touch(&LIMITS, at(1198)), Verdict::Ended);
    }

    #[test]
    fn activity_never_outlives_the_absolute_limit() {
        let session = new();
        for secs in (500..3600).step_by(500) {
            assert_ne!(session.touch(&LIMITS, at(secs)), Verdict::Ended, "at {secs}");
        }
        assert_eq!(session.touch(&LIMITS, at(3600)), Verdict::Ended);
    }

    #[test]
    fn the_time_of_use_is_written_back_once_for_each_tenth_of_the_shortest_idle_timeout() {
        for (shortest, tenth) in [(Duration::from_mins(10), 60), (Duration::from_mins(1), 6)] {
            let (limits, session) = (Limits { shortest_idle: shortest, ..LIMITS }, new());
            assert_eq!(session.touch(&limits, at(tenth - 1)), Verdict::Fresh);
            assert_eq!(session.touch(&limits, at(tenth)), Verdict::WriteBack);
            assert_eq!(session.touch(&limits, at(tenth + 1)), Verdict::Fresh);
            assert_eq!(session.touch(&limits, at(2 * tenth)), Verdict::WriteBack);
        }
    }

    #[test]
    fn a_route_refuses_a_session_that_paused_or_is_older_than_it_allows() {
        let minutes = |minutes| Some(Duration::from_mins(minutes));
        let (idle, max) = (
            RouteLimits { idle_timeout: minutes(2), max_lifetime: None },
            RouteLimits { idle_timeout: None, max_lifetime: minutes(5) },
        );
        let session = new();
        let steps = [
            (0, true, true),
            (119, true, true),
            (238, true, true),
            (299, true, true),
            (300, true, false),
            (420, false, false),
            // The use that was refused here, or served elsewhere, makes nothing good.
            (421, false, false),
        ];
        for (secs, by_idle, by_age) in steps {
            session.touch(&LIMITS, at(secs));
            assert_eq!(session.fits(&idle, at(secs)), by_idle, "idle, at {secs}");
            assert_eq!(session.fits(&max, at(secs)), by_age, "age, at {secs}");
            assert!(session.fits(&RouteLimits::default(), at(secs)));
        }
        let reloaded = Lifetime::new(session.times(), at(421));
        assert!(!reloaded.fits(&idle, at(421)), "the pause is remembered by the record");
    }

    #[test]
    fn of_two_gateways_neither_forgets_what_the_other_saw() {
        let (mine, theirs) = (begun(at(0)), Times { last_seen: at(50), ..begun(at(0)) });
        let theirs = Times { longest_idle: Duration::from_secs(40), ..theirs };
        assert_eq!(mine.merged(theirs), theirs);
        assert_eq!(theirs.merged(mine), theirs);
    }

    #[test]
    fn a_clock_that_jumps_back_a_little_neither_ends_a_session_nor_lengthens_it() {
        let session = new();
        assert_eq!(session.touch(&LIMITS, at(50)), Verdict::Fresh);
        assert_eq!(session.touch(&LIMITS, at(10)), Verdict::Fresh);
        assert_eq!(
            session.times(),
            Times { last_seen: at(50), longest_idle: Duration::from_secs(50), ..begun(at(0)) }
        );
    }

    #[test]
    fn a_clock_that_jumps_back_far_leaves_a_session_its_age_and_no_more_than_its_time() {
        let far = Duration::from_hours(24 * 365);
        for name in ["in use", "out of the store"] {
            let session = new();
            for secs in (500..=3000).step_by(500) {
                session.touch(&LIMITS, at(secs));
            }
            let now = at(3000) - far;
            let session = if name == "in use" { session } else { Lifetime::new(session.times(), now) };
            assert_eq!(session.touch(&LIMITS, now), Verdict::WriteBack, "{name}: the store has to know");
            assert_eq!(session.touch(&LIMITS, now + Duration::from_secs(599)), Verdict::WriteBack, "{name}");
            assert_eq!(session.touch(&LIMITS, now + Duration::from_mins(10)), Verdict::Ended, "{name}");
        }
    }

    #[test]
    fn a_clock_that_jumps_ahead_ends_what_its_time_is_over_for_and_nothing_else() {
        let session = new();
        assert_ne!(session.touch(&LIMITS, at(599)), Verdict::Ended);
        assert_eq!(new().touch(&LIMITS, at(u64::from(u32::MAX))), Verdict::Ended);
    }
}
