//! When the tokens of a session are to be refreshed.

use std::time::Duration;

use super::Session;
use super::lifetime::SKEW;
use crate::clock::UnixTime;

/// How long before its end a token is refreshed at the earliest.
const AHEAD: Duration = Duration::from_mins(1);

/// A token counts as living at least this long, whatever the provider says: no refresh storm (RF-168).
const LEAST_LIFE: Duration = Duration::from_secs(10);

/// The moments of an access token's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    soon: UnixTime,
    now: UnixTime,
    sent_at: Option<UnixTime>,
}

/// What is to be done about a session's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    No,
    /// A refresh, behind the requests: the token is still good.
    Soon,
    /// A refresh, before anything is served.
    Now,
}

impl Schedule {
    /// The schedule of a session; `None` where there is nothing to refresh with, or the provider does not
    /// say when the token ends.
    #[must_use]
    pub fn of(session: &Session) -> Option<Self> {
        session.refresh_token.as_ref()?;
        let (begins, ends) = access_token_life(session)?;
        let soon = ends - AHEAD.min(ends.since(begins) / 10);
        Some(Self { soon, now: ends, sent_at: session.refresh_sent_at })
    }

    /// Whether anything can be due.
    #[must_use]
    pub fn is_old(&self, now: UnixTime) -> bool {
        now >= self.soon
    }

    /// What is due at a moment.
    ///
    /// Nothing is where a refresh token was sent more than `grace` ago and no answer is known: sent twice, it
    /// could make the provider take all tokens of the sign-in back (RFC 9700 4.14.2).
    #[must_use]
    pub fn due(&self, grace: Duration, now: UnixTime) -> Due {
        // A moment that lies far ahead is of a clock that was set back: nobody knows how long ago it was.
        let is_over = |sent_at| sent_at + grace <= now || now + SKEW < sent_at;
        let is_spent = self.sent_at.is_some_and(|sent_at| grace.is_zero() || is_over(sent_at));
        if is_spent || !self.is_old(now) {
            Due::No
        } else if now < self.now {
            Due::Soon
        } else {
            Due::Now
        }
    }
}

/// Whether the access token of a session is over; one whose end the provider does not say never is.
#[must_use]
pub fn is_access_token_over(session: &Session, now: UnixTime) -> bool {
    access_token_life(session).is_some_and(|(_, ends)| ends <= now)
}

fn access_token_life(session: &Session) -> Option<(UnixTime, UnixTime)> {
    let begins = session.refreshed_at.unwrap_or(session.created_at);
    Some((begins, session.access_expires_at?.max(begins + LEAST_LIFE)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::session::seal::tests::session;

    const BEGIN: u64 = 1_700_000_000;

    fn at(secs: u64) -> UnixTime {
        UnixTime::from_secs(BEGIN + secs)
    }

    fn refreshable(life: u64) -> Session {
        let mut session = session();
        session.created_at = at(0);
        session.access_expires_at = Some(at(life));
        session.refresh_token = Some(Secret::new("rt".to_owned()));
        session
    }

    fn due(session: &Session, secs: u64) -> Due {
        Schedule::of(session).unwrap().due(Duration::ZERO, at(secs))
    }

    #[test]
    fn a_token_is_refreshed_a_minute_or_a_tenth_of_its_life_ahead() {
        let rows = [
            (3600, 3539, Due::No),
            (3600, 3540, Due::Soon),
            (3600, 3599, Due::Soon),
            (3600, 3600, Due::Now),
            (100, 89, Due::No),
            (100, 90, Due::Soon),
            (100, 100, Due::Now),
        ];
        for (life, secs, expected) in rows {
            assert_eq!(due(&refreshable(life), secs), expected, "{secs} s into {life} s");
        }
        let mut second = refreshable(7200);
        second.refreshed_at = Some(at(7100));
        assert_eq!(due(&second, 7189), Due::No, "the second token lives for 100 s");
        assert_eq!(due(&second, 7190), Due::Soon);
    }

    #[test]
    fn rf_168_a_token_that_ends_at_once_causes_no_storm() {
        assert_eq!(due(&refreshable(0), 8), Due::No);
        assert_eq!(due(&refreshable(0), 10), Due::Now);
        let mut unknown = refreshable(1);
        unknown.access_expires_at = None;
        assert_eq!(Schedule::of(&unknown), None);
    }

    #[test]
    fn a_token_that_was_sent_is_sent_again_within_the_grace_only() {
        let mut sent = refreshable(100);
        sent.refresh_sent_at = Some(at(95));
        let schedule = Schedule::of(&sent).unwrap();
        assert_eq!(schedule.due(Duration::ZERO, at(95)), Due::No);
        let grace = Duration::from_secs(30);
        assert_eq!(schedule.due(grace, at(95)), Due::Soon);
        assert_eq!(schedule.due(grace, at(124)), Due::Now);
        assert_eq!(schedule.due(grace, at(125)), Due::No);
    }

    #[test]
    fn a_clock_that_is_set_back_has_no_token_sent_again() {
        let mut sent = refreshable(100);
        sent.refresh_sent_at = Some(at(4000));
        let schedule = Schedule::of(&sent).unwrap();
        let grace = Duration::from_secs(30);
        assert_eq!(schedule.due(grace, at(3939)), Due::No, "how long ago it was nobody knows");
        assert_eq!(schedule.due(grace, at(3940)), Due::Now, "clocks of two gateways differ");
        assert_eq!(schedule.due(Duration::ZERO, at(3999)), Due::No);
    }
}
