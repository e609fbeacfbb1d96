//! One function for each claim rule; each names its specification section.
//!
//! They take claims whose signature was verified and say yes or why not. A claim that a rule needs and
//! that is missing fails the rule; a claim of a wrong type fails it too (ID-15). Times are compared in
//! milliseconds, with a leeway for clocks that differ.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::claims::{ClaimError, Claims};
use super::printable;
use super::verify::Algorithm;
use crate::clock::UnixTime;
use crate::secret::equal;

/// The most bytes of a `sub` (Core 2).
pub const MAX_SUBJECT_BYTES: usize = 255;

/// Which rule a token broke. Values of claims are shown cut and cleaned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// ID-15: a claim of another JSON type than its specification gives it.
    #[error(transparent)]
    Type(#[from] ClaimError),
    /// A required claim is not there.
    #[error("claim `{0}` is missing")]
    Missing(&'static str),
    /// ID-6.
    #[error("`iss` is {0:?}, not the configured issuer")]
    Issuer(String),
    /// ID-7.
    #[error("`aud` is {0:?}, not this client alone (or with audiences that are trusted)")]
    Audience(Vec<String>),
    /// ID-8.
    #[error("`azp` is {0:?}, not this client")]
    AuthorizedParty(String),
    /// ID-9.
    #[error("the token has expired")]
    Expired,
    /// ID-10.
    #[error("`iat` lies in the future")]
    IssuedInFuture,
    /// ID-10.
    #[error("`iat` lies too far in the past")]
    IssuedTooLongAgo,
    /// ID-10.
    #[error("`nbf` lies in the future")]
    NotYetValid,
    /// ID-11.
    #[error("`nonce` is not the one that was sent")]
    Nonce,
    /// ID-12.
    #[error("`{0}` does not match")]
    Hash(&'static str),
    /// ID-13.
    #[error("`sub` is empty, not ASCII, or longer than 255 bytes")]
    Subject,
    /// RF-4.
    #[error("`{0}` is another one than at sign-in")]
    Changed(&'static str),
    /// ID-14.
    #[error("the token is of type {0:?}, which is for something else")]
    TokenType(String),
    /// ID-14.
    #[error("the token has `events`: it is not an ID token")]
    Events,
    /// A required string is empty.
    #[error("claim `{0}` is empty")]
    Empty(&'static str),
    /// BC-4.
    #[error("`events` does not have the back-channel logout event")]
    NoLogoutEvent,
    /// BC-5.
    #[error("the token has a `nonce`: it is not a logout token")]
    HasNonce,
}

/// The member of `events` that makes a token a logout token (Back-Channel Logout 2.4).
const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Checks that `iss` is the configured issuer.
///
/// OIDC Core 3.1.3.7 (2); ID-6: exactly equal, byte for byte; nothing is normalised.
///
/// # Errors
/// [`RuleError::Issuer`].
pub fn issuer(claims: &Claims, issuer: &str) -> Result<(), RuleError> {
    let found = required(claims, "iss")?;
    if found == issuer { Ok(()) } else { Err(RuleError::Issuer(printable(found, 128))) }
}

/// Checks that `aud` names this client, and beside it only audiences that are trusted by configuration.
///
/// OIDC Core 3.1.3.7 (3); ID-7: reject when the client is not listed, or when an audience is that the
/// client does not trust.
///
/// # Errors
/// [`RuleError::Audience`] with the audiences found.
pub fn audience(claims: &Claims, client_id: &str, trusted: &[Arc<str>]) -> Result<(), RuleError> {
    let found = claims.strings("aud")?.ok_or(RuleError::Missing("aud"))?;
    let is_known = |found: &&str| *found == client_id || trusted.iter().any(|name| **name == **found);
    if found.contains(&client_id) && found.iter().all(is_known) {
        return Ok(());
    }
    Err(RuleError::Audience(found.into_iter().take(4).map(|audience| printable(audience, 64)).collect()))
}

/// Checks `azp`.
///
/// OIDC Core 3.1.3.7 (4) and (5); ID-8: required with more than one audience; if present, this client.
///
/// # Errors
/// [`RuleError::AuthorizedParty`].
pub fn authorized_party(claims: &Claims, client_id: &str) -> Result<(), RuleError> {
    let several = claims.strings("aud")?.is_some_and(|audiences| audiences.len() > 1);
    match claims.string("azp")? {
        None if several => Err(RuleError::Missing("azp")),
        Some(found) if found != client_id => Err(RuleError::AuthorizedParty(printable(found, 64))),
        None | Some(_) => Ok(()),
    }
}

/// Checks that the token has not expired.
///
/// OIDC Core 3.1.3.7 (9), RFC 7519 4.1.4; ID-9: `exp` is required, now is before it.
///
/// # Errors
/// [`RuleError::Expired`].
pub fn expiry(claims: &Claims, now: UnixTime, leeway: Duration) -> Result<(), RuleError> {
    let expires = claims.seconds("exp")?.ok_or(RuleError::Missing("exp"))?;
    if now < UnixTime::from_secs(expires) + leeway { Ok(()) } else { Err(RuleError::Expired) }
}

/// Checks when the token was issued.
///
/// OIDC Core 3.1.3.7 (10), RFC 7519 4.1.6; ID-10: `iat` is required, not in the future, not older than
/// `max_age`.
///
/// # Errors
/// [`RuleError::IssuedInFuture`], [`RuleError::IssuedTooLongAgo`].
pub fn issued_at(
    claims: &Claims,
    now: UnixTime,
    leeway: Duration,
    max_age: Duration,
) -> Result<(), RuleError> {
    let issued = UnixTime::from_secs(claims.seconds("iat")?.ok_or(RuleError::Missing("iat"))?);
    if issued > now + leeway {
        return Err(RuleError::IssuedInFuture);
    }
    if issued + max_age + leeway < now {
        return Err(RuleError::IssuedTooLongAgo);
    }
    Ok(())
}

/// Checks that the token is valid already.
///
/// RFC 7519 4.1.5; ID-10: `nbf`, where there is one, is not in the future.
///
/// # Errors
/// [`RuleError::NotYetValid`].
pub fn not_before(claims: &Claims, now: UnixTime, leeway: Duration) -> Result<(), RuleError> {
    let Some(begins) = claims.seconds("nbf")? else { return Ok(()) };
    if UnixTime::from_secs(begins) > now + leeway { Err(RuleError::NotYetValid) } else { Ok(()) }
}

/// Checks that the token answers this login attempt.
///
/// OIDC Core 3.1.3.7 (11); ID-11: `nonce` is required and equal to the one sent, compared in constant time.
///
/// # Errors
/// [`RuleError::Nonce`].
pub fn nonce(claims: &Claims, sent: &str) -> Result<(), RuleError> {
    let found = required(claims, "nonce")?;
    if !sent.is_empty() && equal(found.as_bytes(), sent.as_bytes()) { Ok(()) } else { Err(RuleError::Nonce) }
}

/// Checks a hash of a value that came with the token: `at_hash` of the access token, `c_hash` of the code.
///
/// OIDC Core 3.1.3.8 and 3.3.2.11; ID-12: where it is present it is the base64url of the left half of the
/// value's hash, made with the hash of the token's own algorithm.
///
/// # Errors
/// [`RuleError::Hash`].
pub fn half_hash(
    claims: &Claims,
    name: &'static str,
    value: &str,
    algorithm: Algorithm,
) -> Result<(), RuleError> {
    let Some(found) = claims.string(name)? else { return Ok(()) };
    let hash = algorithm.hash(value.as_bytes());
    let (left, _) = hash.split_at(hash.len() / 2);
    if equal(found.as_bytes(), URL_SAFE_NO_PAD.encode(left).as_bytes()) {
        return Ok(());
    }
    Err(RuleError::Hash(name))
}

/// Checks that the token is about somebody, and returns who.
///
/// OIDC Core 2; ID-13: `sub` is required, not empty, at most 255 ASCII characters.
///
/// # Errors
/// [`RuleError::Subject`].
pub fn subject(claims: &Claims) -> Result<&str, RuleError> {
    let subject = required(claims, "sub")?;
    let sound = !subject.is_empty() && subject.len() <= MAX_SUBJECT_BYTES && subject.is_ascii();
    if sound { Ok(subject) } else { Err(RuleError::Subject) }
}

/// Checks that a claim, where both tokens have it, is in both the same.
///
/// OIDC Core 12.2; RF-4.
///
/// # Errors
/// [`RuleError::Changed`].
pub fn unchanged(claims: &Claims, first: &Claims, name: &'static str) -> Result<(), RuleError> {
    match (claims.value(name), first.value(name)) {
        (Some(now), Some(then)) if now != then => Err(RuleError::Changed(name)),
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

/// Checks that the header's `typ` does not say that the token is for something else.
///
/// RFC 8725 3.11 and 3.12; ID-14: `logout+jwt`, `at+jwt`, `dpop+jwt` and every other explicit `…+jwt` are
/// refused, with or without `application/`, in any case. ID tokens have `JWT` or no `typ`.
///
/// # Errors
/// [`RuleError::TokenType`].
pub fn id_token_type(typ: Option<&str>) -> Result<(), RuleError> {
    match typ {
        Some(typ) if typ.trim().to_ascii_lowercase().ends_with("+jwt") => {
            Err(RuleError::TokenType(printable(typ, 64)))
        }
        None | Some(_) => Ok(()),
    }
}

/// Checks that the token is no security event.
///
/// Back-Channel Logout 4.1, RFC 8417 2.2; ID-14: a token with an `events` member is no ID token.
///
/// # Errors
/// [`RuleError::Events`].
pub fn no_events(claims: &Claims) -> Result<(), RuleError> {
    if claims.has("events") { Err(RuleError::Events) } else { Ok(()) }
}

/// Checks that the header's `typ` is that of a logout token.
///
/// Back-Channel Logout 2.4; BC-7: `logout+jwt`, with or without `application/`, in any case. Unless
/// `strict`, `JWT` and no `typ` are taken too: providers from before errata set 1 send those.
///
/// # Errors
/// [`RuleError::TokenType`].
pub fn logout_token_type(typ: Option<&str>, strict: bool) -> Result<(), RuleError> {
    let plain = typ.map(str::to_ascii_lowercase);
    match plain.as_deref().map(|typ| typ.strip_prefix("application/").unwrap_or(typ)) {
        Some("logout+jwt") => Ok(()),
        Some("jwt") | None if !strict => Ok(()),
        Some(_) | None => Err(RuleError::TokenType(printable(typ.unwrap_or_default(), 64))),
    }
}

/// Checks that the token is a back-channel logout.
///
/// Back-Channel Logout 2.4; BC-4: `events` is an object with the logout event, whose value is an object.
///
/// # Errors
/// [`RuleError::NoLogoutEvent`].
pub fn logout_event(claims: &Claims) -> Result<(), RuleError> {
    let event = claims.value("events").and_then(|events| events.as_object()?.get(LOGOUT_EVENT));
    if event.is_some_and(serde_json::Value::is_object) { Ok(()) } else { Err(RuleError::NoLogoutEvent) }
}

/// Checks that the token has no `nonce`, of whatever JSON type.
///
/// Back-Channel Logout 2.4; BC-5: otherwise an ID token could pass as a logout token.
///
/// # Errors
/// [`RuleError::HasNonce`].
pub fn no_nonce(claims: &Claims) -> Result<(), RuleError> {
    if claims.has("nonce") { Err(RuleError::HasNonce) } else { Ok(()) }
}

/// A required string claim that is not empty.
///
/// # Errors
/// [`RuleError::Missing`], [`RuleError::Empty`].
pub fn filled<'a>(claims: &'a Claims, name: &'static str) -> Result<&'a str, RuleError> {
    let found = required(claims, name)?;
    if found.is_empty() { Err(RuleError::Empty(name)) } else { Ok(found) }
}

fn required<'a>(claims: &'a Claims, name: &'static str) -> Result<&'a str, RuleError> {
    claims.string(name)?.ok_or(RuleError::Missing(name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);
    const LEEWAY: Duration = Duration::from_mins(1);
    const DAY: Duration = Duration::from_hours(24);

    fn claims(value: Value) -> Claims {
        let Value::Object(object) = value else { panic!("not an object") };
        Claims::new(object)
    }

    /// Rows of a name, the claims, and whether the rule accepts them.
    fn check(rule: impl Fn(&Claims) -> Result<(), RuleError>, rows: &[(&str, Value, bool)]) {
        for (name, value, accepted) in rows {
            let verdict = rule(&claims(value.clone()));
            assert_eq!(verdict.is_ok(), *accepted, "{name}: {verdict:?}");
        }
    }

    #[test]
    fn the_issuer_is_equal_byte_for_byte() {
        check(
            |claims| issuer(claims, "https://op.test"),
            &[
                ("equal", json!({"iss": "https://op.test"}), true),
                ("TK-116 missing", json!({}), false),
                ("TK-116 slash", json!({"iss": "https://op.test/"}), false),
                ("TK-116 upper case", json!({"iss": "HTTPS://OP.TEST"}), false),
                ("TK-116 another", json!({"iss": "https://op2.test"}), false),
                ("TK-116 port", json!({"iss": "https://op.test:443"}), false),
                ("ID-6 array", json!({"iss": ["https://op.test"]}), false),
                ("ID-15 null", json!({"iss": null}), false),
            ],
        );
    }

    #[test]
    fn the_audience_is_this_client_alone() {
        check(
            |claims| audience(claims, "client", &[]),
            &[
                ("string", json!({"aud": "client"}), true),
                ("array of one", json!({"aud": ["client"]}), true),
                ("TK-118 missing", json!({}), false),
                ("TK-118 another", json!({"aud": "other"}), false),
                ("TK-118 empty array", json!({"aud": []}), false),
                ("TK-118 array of another", json!({"aud": ["other"]}), false),
                ("TK-118 substring", json!({"aud": "client2"}), false),
                ("TK-118 case", json!({"aud": "Client"}), false),
                ("TK-119 an audience nobody trusts", json!({"aud": ["client", "other"]}), false),
                ("ID-15 number in the array", json!({"aud": ["client", 1]}), false),
                ("ID-15 object", json!({"aud": {"client": true}}), false),
            ],
        );
    }

    #[test]
    fn a_trusted_audience_stands_beside_this_client_and_never_instead() {
        check(
            |claims| audience(claims, "client", &["other".into(), "third".into()]),
            &[
                ("this client alone", json!({"aud": "client"}), true),
                ("TK-119 trusted beside it", json!({"aud": ["other", "client"]}), true),
                ("both", json!({"aud": ["client", "third", "other"]}), true),
                ("instead", json!({"aud": "other"}), false),
                ("instead, several", json!({"aud": ["other", "third"]}), false),
                ("a stranger among them", json!({"aud": ["client", "other", "stranger"]}), false),
                ("none", json!({"aud": []}), false),
            ],
        );
    }

    #[test]
    fn the_authorized_party_is_this_client() {
        check(
            |claims| authorized_party(claims, "client"),
            &[
                ("absent with one audience", json!({"aud": "client"}), true),
                ("this client", json!({"aud": "client", "azp": "client"}), true),
                ("TK-119 several without azp", json!({"aud": ["client", "other"]}), false),
                ("TK-119 several with another", json!({"aud": ["client", "other"], "azp": "other"}), false),
                ("several with this client", json!({"aud": ["client", "other"], "azp": "client"}), true),
                ("TK-120 another", json!({"aud": "client", "azp": "other"}), false),
                ("TK-120 number", json!({"aud": "client", "azp": 1}), false),
            ],
        );
    }

    #[test]
    fn an_expired_token_is_refused() {
        let now = NOW.as_secs();
        check(
            |claims| expiry(claims, NOW, LEEWAY),
            &[
                ("future", json!({"exp": now + 300}), true),
                ("TK-121 within the leeway", json!({"exp": now - 59}), true),
                ("TK-121 fraction", json!({"exp": 1_700_000_300.5}), true),
                ("TK-121 beyond the leeway", json!({"exp": now - 60}), false),
                ("TK-121 missing", json!({}), false),
                ("TK-121 string", json!({"exp": "1700000300"}), false),
                ("TK-121 null", json!({"exp": null}), false),
                ("TK-121 negative", json!({"exp": -1}), false),
                ("TK-121 zero", json!({"exp": 0}), false),
                ("TK-122 1e300", json!({"exp": 1e300}), true),
                ("TK-122 2^63", json!({"exp": 9_223_372_036_854_775_808_u64}), true),
            ],
        );
    }

    #[test]
    fn a_token_is_issued_neither_in_the_future_nor_long_ago() {
        let now = NOW.as_secs();
        check(
            |claims| issued_at(claims, NOW, LEEWAY, DAY),
            &[
                ("now", json!({"iat": now}), true),
                ("ahead within the leeway", json!({"iat": now + 60}), true),
                ("ahead beyond the leeway", json!({"iat": now + 61}), false),
                ("TK-123 an hour ahead", json!({"iat": now + 3600}), false),
                ("a day and the leeway ago", json!({"iat": now - 86_400 - 60}), true),
                ("TK-123 longer ago", json!({"iat": now - 86_400 - 61}), false),
                ("TK-123 missing", json!({}), false),
                ("TK-123 string", json!({"iat": "1700000000"}), false),
                ("1e300", json!({"iat": 1e300}), false),
            ],
        );
    }

    #[test]
    fn a_token_that_begins_later_is_refused() {
        let now = NOW.as_secs();
        check(
            |claims| not_before(claims, NOW, LEEWAY),
            &[
                ("absent", json!({}), true),
                ("past", json!({"nbf": now - 1}), true),
                ("within the leeway", json!({"nbf": now + 60}), true),
                ("TK-123 an hour ahead", json!({"nbf": now + 3600}), false),
                ("TK-123 string", json!({"nbf": "9999999999"}), false),
                ("null", json!({"nbf": null}), false),
            ],
        );
    }

    #[test]
    fn the_nonce_is_the_one_that_was_sent() {
        check(
            |claims| nonce(claims, "n-0S6_WzA2Mj"),
            &[
                ("equal", json!({"nonce": "n-0S6_WzA2Mj"}), true),
                ("TK-124 missing", json!({}), false),
                ("TK-124 another", json!({"nonce": "n-0S6_WzA2Mj1"}), false),
                ("TK-124 case", json!({"nonce": "N-0S6_WzA2Mj"}), false),
                ("TK-124 array", json!({"nonce": ["n-0S6_WzA2Mj"]}), false),
                ("TK-124 empty", json!({"nonce": ""}), false),
            ],
        );
        assert!(nonce(&claims(json!({"nonce": ""})), "").is_err(), "an empty nonce proves nothing");
    }

    #[test]
    fn a_hash_covers_the_left_half() {
        // The access token and at_hash of OpenID Connect Core, appendix A.3.
        let token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        check(
            |claims| half_hash(claims, "at_hash", token, Algorithm::RS256),
            &[
                ("the specification's example", json!({"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"}), true),
                ("TK-126 absent", json!({}), true),
                ("TK-126 another", json!({"at_hash": "77QmUPtjPfzWtF2AnpK9RR"}), false),
                ("TK-126 empty", json!({"at_hash": ""}), false),
                ("TK-126 number", json!({"at_hash": 77}), false),
                (
                    "TK-126 the whole hash",
                    json!({"at_hash": URL_SAFE_NO_PAD.encode(Algorithm::RS256.hash(token.as_bytes()))}),
                    false,
                ),
            ],
        );
        let sha384 = json!({"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"});
        assert!(half_hash(&claims(sha384), "at_hash", token, Algorithm::ES384).is_err(), "another hash");
    }

    #[test]
    fn the_subject_is_a_short_ascii_string() {
        check(
            |claims| subject(claims).map(drop),
            &[
                ("usual", json!({"sub": "248289761001"}), true),
                ("255 characters", json!({"sub": "s".repeat(255)}), true),
                ("TK-127 missing", json!({}), false),
                ("TK-127 empty", json!({"sub": ""}), false),
                ("TK-127 300 characters", json!({"sub": "s".repeat(300)}), false),
                ("TK-127 object", json!({"sub": {}}), false),
                ("TK-127 null", json!({"sub": null}), false),
                ("not ASCII", json!({"sub": "é"}), false),
            ],
        );
    }

    #[test]
    fn tokens_for_something_else_are_refused_by_type() {
        let rows = [
            ("absent", None, true),
            ("JWT", Some("JWT"), true),
            ("TK-128 logout token", Some("logout+jwt"), false),
            ("TK-128 access token", Some("at+jwt"), false),
            ("DPoP proof", Some("dpop+jwt"), false),
            ("media type", Some("application/at+jwt"), false),
            ("upper case", Some("AT+JWT"), false),
        ];
        for (name, typ, accepted) in rows {
            assert_eq!(id_token_type(typ).is_ok(), accepted, "{name}");
        }
    }

    #[test]
    fn security_events_are_refused_whatever_the_member_holds() {
        check(
            no_events,
            &[
                ("absent", json!({}), true),
                (
                    "TK-128 logout event",
                    json!({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
                    false,
                ),
                ("null", json!({"events": null}), false),
            ],
        );
    }
}
