//! A bucket of permissions that fills itself again: so many at once, then one each period.

use std::time::Duration;

use super::UnixTime;

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

    /// Takes one; `false` where there is none.
    pub fn take(&mut self, now: UnixTime) -> bool {
        self.refill(now);
        let taken = self.available.checked_sub(1);
        self.available = taken.unwrap_or(0);
        taken.is_some()
    }

    /// Whether there is none to take.
    pub fn is_empty(&mut self, now: UnixTime) -> bool {
        self.refill(now);
        self.available == 0
    }

    fn refill(&mut self, now: UnixTime) {
        // A clock that was set back starts to count anew, else nothing would be regained for as long.
        if now < self.counted_at {
            self.counted_at = now;
        }
        while self.available < self.capacity && now.since(self.counted_at) >= self.period {
            self.available += 1;
            self.counted_at = self.counted_at + self.period;
        }
        if self.available == self.capacity {
            self.counted_at = now;
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
}
