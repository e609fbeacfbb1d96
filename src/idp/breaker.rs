//! A circuit breaker (TE-1): a provider that does not answer is not asked for a while, so that people hear
//! of it at once and nobody waits behind calls that hang.
//!
//! Only what gets no answer counts: an error of the provider's is an answer. Discovery and key sets have
//! pauses of their own.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::UnixTime;

/// So many calls in a row without an answer open the circuit.
const FAILURES: u32 = 10;

/// How long it stays open; then one call is let through to see.
const PAUSE: Duration = Duration::from_secs(5);

/// The calls to one provider.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until: Option<UnixTime>,
}

impl Breaker {
    /// Whether the provider may be asked. Of all who come when the pause is over one may, and the others
    /// once that one had its answer.
    pub(super) fn may_ask(&self, now: UnixTime) -> bool {
        self.with(|state| match state.open_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                state.open_until = Some(now + PAUSE);
                true
            }
        })
    }

    /// There was an answer.
    pub(super) fn answered(&self) {
        self.with(|state| *state = State::default());
    }

    /// There was none; says whether that opened the circuit.
    pub(super) fn failed(&self, now: UnixTime) -> bool {
        self.with(|state| {
            state.failures = state.failures.saturating_add(1);
            if state.failures < FAILURES {
                return false;
            }
            state.open_until.replace(now + PAUSE).is_none()
        })
    }

    fn with<T>(&self, then: impl FnOnce(&mut State) -> T) -> T {
        // What is kept is whole after every step.
        then(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

    fn open() -> Breaker {
        let breaker = Breaker::default();
        let opened: Vec<_> = (0..FAILURES).map(|_| breaker.failed(NOW)).collect();
        assert_eq!(opened.iter().filter(|opened| **opened).count(), 1, "it is told once");
        breaker
    }

    #[test]
    fn ten_calls_in_a_row_without_an_answer_open_the_circuit() {
        let breaker = Breaker::default();
        for _ in 1..FAILURES {
            assert!(!breaker.failed(NOW));
        }
        assert!(breaker.may_ask(NOW), "nine are not enough");
        breaker.answered();
        assert!(!breaker.failed(NOW), "an answer begins the count anew");
        assert!(!open().may_ask(NOW + PAUSE - Duration::from_millis(1)));
    }

    #[test]
    fn after_the_pause_one_call_sees_whether_there_is_an_answer() {
        let breaker = open();
        assert!(breaker.may_ask(NOW + PAUSE));
        assert!(!breaker.may_ask(NOW + PAUSE), "one");
        assert!(!breaker.failed(NOW + PAUSE), "it is open already");
        assert!(!breaker.may_ask(NOW + PAUSE * 2 - Duration::from_millis(1)));
        assert!(breaker.may_ask(NOW + PAUSE * 2));
        breaker.answered();
        assert!(breaker.may_ask(NOW + PAUSE * 2) && breaker.may_ask(NOW + PAUSE * 2));
    }

    #[test]
    fn a_call_that_was_let_through_and_never_ended_holds_nobody_up_for_ever() {
        let breaker = open();
        assert!(breaker.may_ask(NOW + PAUSE));
        assert!(breaker.may_ask(NOW + PAUSE * 2));
    }
}
