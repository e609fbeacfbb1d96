//! Whether somebody was authenticated as a route asks for (AR-12).

use std::time::Duration;

use crate::clock::UnixTime;
use crate::identity::Authentication;
use crate::oidc::step_up::StepUp;

/// What an authentication lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    /// None of the contexts that are asked for.
    #[error("the provider authenticated the person in none of the ways that are asked for (acr)")]
    Acr,
    /// An age is asked for, and nobody says when it was.
    #[error("the provider does not say when it authenticated the person (auth_time)")]
    Time,
    /// It is too long ago.
    #[error("the provider authenticated the person too long ago, or in the future (auth_time)")]
    TooOld,
}

/// Checks an authentication against what is asked.
///
/// OIDC Core 3.1.3.7 (12), (13) and 2; RFC 9470 5: `acr` is one of those that were asked for; with
/// `max_age`, `auth_time` is there and no longer ago. A claim of a wrong type meets nothing.
///
/// # Errors
/// [`Unmet`]; the age first, since a new authentication may bring the context too.
pub fn check(asked: &StepUp, found: &Authentication, now: UnixTime, leeway: Duration) -> Result<(), Unmet> {
    if let Some(max_age) = asked.max_age {
        let time = found.time.ok_or(Unmet::Time)?;
        let is_fresh = now <= time + max_age + leeway && time <= now + leeway;
        if !is_fresh {
            return Err(Unmet::TooOld);
        }
    }
    let is_met = asked.acr.is_empty() || found.acr.as_ref().is_some_and(|acr| asked.acr.contains(acr));
    if is_met { Ok(()) } else { Err(Unmet::Acr) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authentication_meets_what_is_asked_or_lacks_it() {
        let now = UnixTime::from_secs(1_000_000);
        let ago = |seconds: u64| Some(UnixTime::from_secs(1_000_000 - seconds));
        let ahead = |seconds: u64| Some(UnixTime::from_secs(1_000_000 + seconds));
        let (any, mfa): (&[&str], &[&str]) = (&[], &["urn:mfa", "phr"]);
        let rows = [
            ("nothing asked, nothing known", any, None, None, None, Ok(())),
            ("nothing asked, old", any, None, Some("0"), ago(99_999), Ok(())),
            ("one of two", mfa, None, Some("phr"), None, Ok(())),
            ("another", mfa, None, Some("pwd"), None, Err(Unmet::Acr)),
            ("a part of one", mfa, None, Some("urn"), None, Err(Unmet::Acr)),
            ("both in one string", mfa, None, Some("urn:mfa phr"), None, Err(Unmet::Acr)),
            ("case counts", mfa, None, Some("PHR"), None, Err(Unmet::Acr)),
            ("acr missing", mfa, None, None, None, Err(Unmet::Acr)),
            ("fresh", any, Some(300), None, ago(299), Ok(())),
            ("at the end of the leeway", any, Some(300), None, ago(330), Ok(())),
            ("behind the leeway", any, Some(300), None, ago(331), Err(Unmet::TooOld)),
            ("auth_time missing", any, Some(300), Some("phr"), None, Err(Unmet::Time)),
            ("clocks that differ", any, Some(300), None, ahead(30), Ok(())),
            ("in the future", any, Some(300), None, ahead(31), Err(Unmet::TooOld)),
            ("both met", mfa, Some(300), Some("phr"), ago(1), Ok(())),
            ("fresh without the context", mfa, Some(300), Some("pwd"), ago(1), Err(Unmet::Acr)),
            ("old without the context", mfa, Some(300), Some("pwd"), ago(999), Err(Unmet::TooOld)),
        ];
        for (name, asked, max_age, acr, time, wanted) in rows {
            let acrs = asked.iter().map(|&acr| acr.into()).collect();
            let asked = StepUp { acr: acrs, max_age: max_age.map(Duration::from_secs) };
            let found = Authentication { acr: acr.map(Into::into), time };
            assert_eq!(check(&asked, &found, now, Duration::from_secs(30)), wanted, "{name}");
        }
    }
}
