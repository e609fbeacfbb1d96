//! What became of the requests.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::Outcome;

/// The longest latency that is told, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// Counts answers. There is one thread: the lock is never waited for.
pub struct Tally {
    from: Instant,
    counts: Mutex<Counts>,
}

struct Counts {
    latencies: Histogram<u64>,
    last: Instant,
    answers: u64,
    connections: u64,
    errors: u64,
    first_error: Option<String>,
}

impl Tally {
    /// Counts what is begun `from` then on.
    pub fn new(from: Instant) -> Outcome<Self> {
        let latencies = Histogram::new_with_bounds(1, LONGEST, 3)?;
        let counts =
            Counts { latencies, last: from, answers: 0, connections: 0, errors: 0, first_error: None };
        Ok(Self { from, counts: Mutex::new(counts) })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A right answer to what was begun then.
    pub fn succeed(&self, begun: Instant) {
        let (now, mut counts) = (Instant::now(), self.counts());
        counts.answers += 1;
        if self.from <= begun {
            let nanos = u64::try_from((now - begun).as_nanos()).unwrap_or(u64::MAX);
            counts.latencies.saturating_record(nanos);
            counts.last = now;
        }
    }

    /// A wrong answer, or none.
    pub fn fail(&self, why: String) {
        let mut counts = self.counts();
        counts.errors += 1;
        counts.first_error.get_or_insert(why);
    }

    /// A connection was made, behind those that were there at the start.
    pub fn connect(&self) {
        self.counts().connections += 1;
    }

    /// All of it.
    pub fn report(&self) -> Value {
        let counts = self.counts();
        let seconds = (counts.last - self.from).as_secs_f64();
        let requests = counts.latencies.len();
        #[expect(clippy::cast_precision_loss, reason = "nobody counts so far")]
        let rate = if requests == 0 { 0.0 } else { requests as f64 / seconds };
        let micros = |nanos| Duration::from_nanos(nanos).as_secs_f64() * 1e6;
        let at = |quantile| tenth(micros(counts.latencies.value_at_quantile(quantile)));
        json!({
            "requests": requests,
            "seconds": (seconds * 1e4).round() / 1e4,
            "rps": tenth(rate),
            "p50_us": at(0.5),
            "p99_us": at(0.99),
            "p999_us": at(0.999),
            "max_us": tenth(micros(counts.latencies.max())),
            "errors": counts.errors,
            "first_error": counts.first_error,
            "answers": counts.answers,
            "reconnects": counts.connections,
        })
    }
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
