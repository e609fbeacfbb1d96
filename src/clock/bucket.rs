//! A bucket of permissions that fills itself again: so many at once, then one each period.

use std::time::Duration;

use super::UnixTime;

/// So many in a span of time: all of them at once if need be, and one is regained as soon as its share of
/// the span has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In what span.
    pub per: Duration,
}

impl Rate {
    /// After how long one is regained: whole milliseconds, at least one.
    #[must_use]
    pub fn period(self) -> Duration {
        let millis = (self.per / self.count.max(1)).as_millis();
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX).max(1))
    }
}

/// `available` of `capacity`, one more each `period` since `counted_at`.
#[derive(Debug)]
pub struct Bucket {
    capacity: u32,
    period: Duration,
    available: u32,
    counted_at: UnixTime,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub const fn new((capacity, period): (u32, Duration), now: UnixTime) -> Self {
        Self { capacity, period, available: capacity, counted_at: now }
    }

    /// A full bucket that is refilled at a rate.
    #[must_use]
    pub fn of(rate: Rate, now: UnixTime) -> Self {
        Self::new((rate.count, rate.period()), now)
    }

    /// Takes one; `false` where there is none.
    pub fn take(&mut self, now: UnixTime) -> bool {
        self.refill(now);
        let taken = self.available.checked_sub(1);
        self.available = taken.unwrap_or(0);
        taken.is_some()
    }

    /// Gives one back that was taken for nothing.
    pub const fn put_back(&mut self) {
        if self.available < self.capacity {
            self.available += 1;
        }
    }

    /// Whether there is none to take.
    pub fn is_empty(&mut self, now: UnixTime) -> bool {
        self.refill(now);
        self.available == 0
    }

    /// How long until there is one to take; zero where there is.
    pub fn wait(&mut self, now: UnixTime) -> Duration {
        if self.is_empty(now) { (self.counted_at + self.period).since(now) } else { Duration::ZERO }
    }

    fn refill(&mut self, now: UnixTime) {
        // A clock that was set back starts to count anew, else nothing would be regained for as long.
        if now < self.counted_at {
            self.counted_at = now;
        }
        let period = self.period.as_millis().max(1);
        let gained = now.since(self.counted_at).as_millis() / period;
        let missing = self.capacity - self.available;
        match u32::try_from(gained) {
            Ok(gained) if gained < missing => {
                self.available += gained;
                self.counted_at = self.counted_at + self.period * gained;
            }
            _ => {
                self.available = self.capacity;
                self.counted_at = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_what_it_holds_and_fills_up_again_one_by_one() {
        let start = UnixTime::from_secs(1_000_000);
        let mut bucket = Bucket::new((2, Duration::from_secs(10)), start);
        let rows = [
            ("first", 0, true),
            ("second", 0, true),
            ("third", 0, false),
            ("not yet", 9, false),
            ("one regained", 10, true),
            ("no more", 10, false),
            ("never more than it holds", 1000, true),
            ("the second of those", 1000, true),
            ("and no third", 1000, false),
        ];
        for (name, at, wanted) in rows {
            let now = start + Duration::from_secs(at);
            assert_eq!(bucket.is_empty(now), !wanted, "{name}: looking takes nothing");
            assert_eq!(bucket.take(now), wanted, "{name}");
        }
    }

    #[test]
    fn a_bucket_says_how_long_to_wait() {
        let start = UnixTime::from_secs(1_000_000);
        let mut bucket = Bucket::of(Rate { count: 2, per: Duration::from_secs(20) }, start);
        assert_eq!(bucket.wait(start), Duration::ZERO);
        assert!(bucket.take(start) && bucket.take(start + Duration::from_secs(4)));
        let rows = [("at once", 4, 6), ("later", 9, 1), ("there is one", 10, 0), ("long after", 99, 0)];
        for (name, at, wanted) in rows {
            let now = start + Duration::from_secs(at);
            assert_eq!(bucket.wait(now), Duration::from_secs(wanted), "{name}");
        }
        let mut back = Bucket::of(Rate { count: 1, per: Duration::from_secs(20) }, start);
        assert!(back.take(start) && !back.take(start));
        back.put_back();
        back.put_back();
        assert!(back.take(start) && !back.take(start), "what is given back is there once");
        assert_eq!(back.wait(UnixTime::from_secs(1)), Duration::from_secs(20), "the clock was set back");
    }

    #[test]
    fn a_rate_is_regained_in_whole_milliseconds() {
        let rows = [
            ("five in five minutes", 5, 300_000, 60_000),
            ("no whole number", 7, 1_000, 142),
            ("faster than a millisecond", 5_000, 1_000, 1),
            ("none at all", 0, 1_000, 1_000),
        ];
        for (name, count, per, wanted) in rows {
            let rate = Rate { count, per: Duration::from_millis(per) };
            assert_eq!(rate.period(), Duration::from_millis(wanted), "{name}");
        }
    }
}
