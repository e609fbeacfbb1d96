//! How long a client is waited for while it sends a body, or does not read an answer (DO-4).
//!
//! Only the time counts in which the gateway waits for the client. While an application takes its time, or does not
//! read, nobody waits for the client, and nothing counts.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep, sleep_until};

/// How a body has to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// How long a client is waited for at once; and in all, before it has sent anything.
    pub(super) idle: Duration,
    /// The bytes with which it earns one more second of that; 0: it need not.
    pub(super) bytes_per_second: u64,
}

/// The waiting for one body.
#[derive(Debug)]
pub(super) struct Upload {
    account: Account,
    /// Whether the client itself waits, for `100 Continue`.
    held: bool,
    /// Kept from wait to wait; there is none for a body that came with its head.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    /// A body of which nothing came yet.
    pub(super) const fn new(pace: Pace, expects_continue: bool) -> Self {
        Self { account: Account::new(pace), held: expects_continue, timer: None }
    }

    /// The client was sent something: it waits no longer.
    pub(super) const fn go_on(&mut self) {
        self.held = false;
    }

    /// Nothing is there: the client is waited for. Ready when it was for too long.
    pub(super) fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.held {
            return Poll::Pending;
        }
        if !self.account.is_waiting() {
            let deadline = self.account.wait(Instant::now()).into();
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(deadline),
                None => self.timer = Some(Box::pin(sleep_until(deadline))),
            }
        }
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
    }

    /// So many bytes came.
    pub(super) fn came(&mut self, bytes: usize) {
        self.held = false;
        // Most bodies are there already, and cost no look at the clock.
        let waited = self.account.is_waiting().then(Instant::now);
        self.account.came(bytes, waited);
    }
}

/// The waiting for a client that does not read.
#[derive(Debug)]
pub(super) struct Download {
    patience: Duration,
    /// Runs while a part of an answer is not taken.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Download {
    /// Nothing is waited for; later each part of an answer at most so long.
    pub(super) const fn new(patience: Duration) -> Self {
        Self { patience, timer: None }
    }

    /// What became of the writing of a part, which may go in pieces: the time runs from the first that was not
    /// taken until `is_whole`. Most parts go at once, and cost no look at the clock.
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        is_whole: impl Fn(&T) -> bool,
    ) -> Poll<io::Result<T>> {
        let Poll::Ready(written) = written else {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.patience)));
            return timer.as_mut().poll(cx).map(|()| Err(io::Error::from(io::ErrorKind::TimedOut)));
        };
        if written.as_ref().is_ok_and(is_whole) {
            self.timer = None;
        }
        Poll::Ready(written)
    }
}

/// What a client has sent, and how long it was waited for.
#[derive(Debug)]
struct Account {
    pace: Pace,
    /// Since when it is waited for.
    since: Option<Instant>,
    waited: Duration,
    bytes: u64,
}

impl Account {
    const fn new(pace: Pace) -> Self {
        Self { pace, since: None, waited: Duration::ZERO, bytes: 0 }
    }

    const fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    /// The client is waited for from now on; says until when.
    fn wait(&mut self, now: Instant) -> Instant {
        self.since = Some(now);
        now + self.left()
    }

    /// So many bytes came, and the wait, if there was one, ended.
    fn came(&mut self, bytes: usize, now: Option<Instant>) {
        if let (Some(since), Some(now)) = (self.since.take(), now) {
            self.waited += now.saturating_duration_since(since);
        }
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// How long the client may be waited for now.
    fn left(&self) -> Duration {
        let Pace { idle, bytes_per_second } = self.pace;
        let Some(earned) = self.bytes.saturating_mul(1000).checked_div(bytes_per_second) else { return idle };
        (idle + Duration::from_millis(earned)).saturating_sub(self.waited).min(idle)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use super::*;

    const PACE: Pace = Pace { idle: Duration::from_secs(30), bytes_per_second: 240 };

    #[tokio::test]
    async fn a_part_of_an_answer_is_taken_in_time_whatever_pieces_it_goes_in() {
        let mut download = Download::new(Duration::from_millis(20));
        let mut write = |written: Poll<io::Result<usize>>| {
            let polled =
                download.poll(&mut Context::from_waker(Waker::noop()), written, |written| *written == 9);
            (polled.map(Result::unwrap), download.timer.as_ref().map(|timer| timer.deadline()))
        };
        assert_eq!(write(Poll::Ready(Ok(9))), (Poll::Ready(9), None), "taken at once");
        let (pending, deadline) = write(Poll::Pending);
        assert!(pending.is_pending() && deadline.is_some());
        assert_eq!(write(Poll::Ready(Ok(5))), (Poll::Ready(5), deadline), "a piece is no new time");
        assert_eq!(write(Poll::Ready(Ok(9))), (Poll::Ready(9), None), "it has gone");
        let stuck = poll_fn(|cx| download.poll(cx, Poll::<io::Result<()>>::Pending, |()| true)).await;
        assert_eq!(stuck.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    /// A client that sends `bytes` each `every`: after how many seconds it was waited for too long, within
    /// an hour.
    fn lasts(pace: Pace, bytes: usize, every: u64) -> Option<u64> {
        let begun = Instant::now();
        let (mut account, mut now) = (Account::new(pace), begun);
        while now < begun + Duration::from_hours(1) {
            let deadline = account.wait(now);
            now += Duration::from_secs(every);
            if deadline <= now {
                return Some((deadline - begun).as_secs());
            }
            account.came(bytes, Some(now));
        }
        None
    }

    #[test]
    fn a_body_comes_in_time_or_is_not_waited_for() {
        let off = Pace { bytes_per_second: 0, ..PACE };
        let rows = [
            ("nothing", PACE, 0, 60, Some(30)),
            ("a byte now and then", PACE, 1, 10, Some(30)),
            ("a byte each second", PACE, 1, 1, Some(30)),
            ("half of what is wanted", PACE, 120, 1, Some(59)),
            ("as much as is wanted", PACE, 240, 1, None),
            ("much, and a long rest each time", PACE, 100_000, 29, None),
            ("much, and a longer rest", PACE, 100_000, 31, Some(30)),
            ("any rate", off, 1, 29, None),
            ("any rate, and a longer rest", off, 1, 31, Some(30)),
        ];
        for (name, pace, bytes, every, wanted) in rows {
            assert_eq!(lasts(pace, bytes, every), wanted, "{name}");
        }
    }

    #[test]
    fn while_nobody_waits_for_the_client_nothing_counts() {
        let (mut account, mut now) = (Account::new(PACE), Instant::now());
        for _ in 0..100 {
            account.wait(now);
            now += Duration::from_secs(1);
            account.came(240, Some(now));
            // The application does not read for so long.
            now += Duration::from_mins(1);
        }
        assert_eq!(account.wait(now), now + PACE.idle);
    }
}
