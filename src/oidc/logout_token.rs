//! Logout token validation (OpenID Connect Back-Channel Logout 1.0, 2.4 and 2.6; BC-2 to BC-7).

use std::sync::Arc;
use std::time::Duration;

use super::{Issuer, TokenError, Trust};
use crate::clock::UnixTime;
use crate::secret::Secret;
use crate::token::jws::Jws;
use crate::token::rules::{self, RuleError};
use crate::token::verify::Verified;
use crate::token::{Claims, KeySet};

/// The most time between the making of a logout token and its coming (BC-3).
pub const MAX_AGE: Duration = Duration::from_mins(5);

/// What a logout token has to match.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    /// Issuer, client, algorithms (the same as for ID tokens, BC-2) and clock skew.
    pub trust: Trust<'a>,
    /// Whether `exp` and `typ: logout+jwt` are demanded, as the specification does since its errata
    /// set 1; older providers send neither (BC-3, BC-7).
    pub strict: bool,
}

/// A logout token that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutToken {
    /// Whose sessions end.
    pub whose: Whose,
    /// The token's id: it works once for each issuer (BC-8).
    pub jti: Arc<str>,
    /// When it was made, by the provider's clock.
    pub issued_at: UnixTime,
}

/// Whose sessions a logout token ends (BC-6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The session of this `sid`.
    Sid(Arc<str>),
    /// Every session of this `sub`.
    Sub(Arc<str>),
    /// Those that match both.
    Both {
        /// The provider's session.
        sid: Arc<str>,
        /// The user.
        sub: Arc<str>,
    },
}

/// The issuer that an unverified token names: it only chooses whose keys are tried, and nothing is
/// fetched for an issuer that is not configured (SF-3).
#[must_use]
pub fn claimed_issuer(raw: &str) -> Option<Issuer> {
    let jws = Jws::parse(raw).ok()?;
    let claims = Claims::parse(&jws.payload).ok()?;
    claims.string("iss").ok().flatten().map(|issuer| Issuer(issuer.into()))
}

/// Verifies signature and claims, in the order of Back-Channel Logout 2.6.
///
/// # Errors
/// [`TokenError`].
pub fn verify(
    raw: &Secret<String>,
    keys: &KeySet,
    expected: &Expected<'_>,
    now: UnixTime,
) -> Result<LogoutToken, TokenError> {
    let token = expected.trust.verified(raw, keys)?;
    Ok(check(&token, expected, now)?)
}

fn check(token: &Verified, expected: &Expected<'_>, now: UnixTime) -> Result<LogoutToken, RuleError> {
    let (claims, leeway) = (&token.claims, expected.trust.leeway);
    rules::logout_token_type(token.typ.as_deref(), expected.strict)?;
    expected.trust.check_parties(claims)?;
    rules::issued_at(claims, now, leeway, MAX_AGE)?;
    if expected.strict || claims.has("exp") {
        rules::expiry(claims, now, leeway)?;
    }
    rules::not_before(claims, now, leeway)?;
    rules::logout_event(claims)?;
    rules::no_nonce(claims)?;
    let issued_at = UnixTime::from_secs(claims.seconds("iat")?.unwrap_or_default());
    Ok(LogoutToken { whose: whose(claims)?, jti: rules::filled(claims, "jti")?.into(), issued_at })
}

/// Back-Channel Logout 2.4: `sub`, `sid`, or both; BC-6: as non-empty strings.
fn whose(claims: &Claims) -> Result<Whose, RuleError> {
    match (claims.has("sid"), claims.has("sub")) {
        (true, false) => Ok(Whose::Sid(rules::filled(claims, "sid")?.into())),
        (false, true) => Ok(Whose::Sub(rules::subject(claims)?.into())),
        (true, true) => {
            Ok(Whose::Both { sid: rules::filled(claims, "sid")?.into(), sub: rules::subject(claims)?.into() })
        }
        (false, false) => Err(RuleError::Missing("sub")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use serde_json::{Value, json};

    use super::*;
    use crate::oidc::ClientId;
    use crate::token::Algorithm;
    use crate::token::sign::SigningKey;

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);
    const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

    static KEY: LazyLock<SigningKey> =
        LazyLock::new(|| SigningKey::generate(Algorithm::ES256, Some("k1")).unwrap());

    fn claims() -> Value {
        json!({"iss": "https://op.test", "aud": "client", "sub": "alice", "sid": "s1", "jti": "j1",
               "iat": NOW.as_secs(), "exp": NOW.as_secs() + 120, "events": {EVENT: {}}})
    }

    fn with(member: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[member] = value;
        claims
    }

    fn without(members: &[&str]) -> Value {
        let mut claims = claims();
        for member in members {
            claims.as_object_mut().unwrap().remove(*member);
        }
        claims
    }

    fn verdict(typ: Option<&str>, claims: &Value, strict: bool) -> Result<LogoutToken, TokenError> {
        let mut header = json!({"alg": "ES256", "kid": "k1"});
        if let Some(typ) = typ {
            header["typ"] = typ.into();
        }
        let token = KEY.sign_parts(header.to_string().as_bytes(), claims.to_string().as_bytes()).unwrap();
        let keys = json!({"keys": [KEY.public_jwk().unwrap()]});
        let keys = KeySet::parse(keys.to_string().as_bytes()).unwrap();
        let trust = Trust {
            issuer: &Issuer("https://op.test".into()),
            client_id: &ClientId("client".into()),
            trusted_audiences: &[],
            algorithms: &[Algorithm::ES256],
            leeway: Duration::from_secs(30),
        };
        verify(&Secret::new(token), &keys, &Expected { trust, strict }, NOW)
    }

    #[test]
    fn each_rule_of_a_logout_token_is_kept_in_strict_and_compatible_mode() {
        let logout = Some("logout+jwt");
        let secs = NOW.as_secs();
        let (yes, no) = ((true, true), (false, false));
        let compatible = (false, true);
        let cases = [
            ("as specified", logout, claims(), yes),
            ("BC-7 with application/", Some("application/logout+jwt"), claims(), yes),
            ("BC-7 any case", Some("Logout+JWT"), claims(), yes),
            ("LO-190 typ JWT", Some("JWT"), claims(), compatible),
            ("LO-190 typ absent", None, claims(), compatible),
            ("LO-190 typ at+jwt", Some("at+jwt"), claims(), no),
            ("LO-190 typ secevent+jwt", Some("secevent+jwt"), claims(), no),
            ("LO-178 iss missing", logout, without(&["iss"]), no),
            ("LO-178 iss with slash", logout, with("iss", json!("https://op.test/")), no),
            ("LO-178 iss array", logout, with("iss", json!(["https://op.test"])), no),
            ("LO-178 aud missing", logout, without(&["aud"]), no),
            ("LO-178 aud other", logout, with("aud", json!("other")), no),
            ("LO-178 aud array without client", logout, with("aud", json!(["other"])), no),
            ("LO-178 aud array of the client", logout, with("aud", json!(["client"])), yes),
            ("LO-179 iat missing", logout, without(&["iat"]), no),
            ("LO-179 iat future", logout, with("iat", json!(secs + 3600)), no),
            ("LO-179 iat an hour old", logout, with("iat", json!(secs - 3600)), no),
            ("LO-179 exp past", logout, with("exp", json!(secs - 60)), no),
            ("LO-179 exp string", logout, with("exp", json!("9999999999")), no),
            ("LO-179 jti missing", logout, without(&["jti"]), no),
            ("LO-179 jti empty", logout, with("jti", json!("")), no),
            ("LO-179 jti number", logout, with("jti", json!(1)), no),
            ("LO-180 exp missing", logout, without(&["exp"]), compatible),
            ("LO-181 events missing", logout, without(&["events"]), no),
            ("LO-181 events other member", logout, with("events", json!({"x": {}})), no),
            ("LO-181 event true", logout, with("events", json!({EVENT: true})), no),
            ("LO-181 event array", logout, with("events", json!({EVENT: []})), no),
            ("LO-181 event string", logout, with("events", json!({EVENT: "{}"})), no),
            ("LO-181 events array", logout, with("events", json!([EVENT])), no),
            ("LO-181 more members and claims", logout, with("events", json!({EVENT: {"a": 1}, "x": 1})), yes),
            ("LO-182 nonce string", logout, with("nonce", json!("n")), no),
            ("LO-182 nonce null", logout, with("nonce", Value::Null), no),
            ("LO-182 nonce number", logout, with("nonce", json!(0)), no),
            ("LO-182 nonce empty", logout, with("nonce", json!("")), no),
            ("LO-184 neither sub nor sid", logout, without(&["sub", "sid"]), no),
            ("LO-184 both empty", logout, json!({"sub": "", "sid": ""}), no),
            ("LO-184 sid number", logout, with("sid", json!(7)), no),
            ("LO-184 sid empty beside sub", logout, with("sid", json!("")), no),
            ("sub only", logout, without(&["sid"]), yes),
            ("sid only", logout, without(&["sub"]), yes),
        ];
        for (name, typ, claims, (strict, compatible)) in cases {
            let found = (verdict(typ, &claims, true).is_ok(), verdict(typ, &claims, false).is_ok());
            assert_eq!(found, (strict, compatible), "{name}");
        }
    }

    #[test]
    fn a_token_says_whose_sessions_end() {
        let whose = |claims: &Value| verdict(Some("logout+jwt"), claims, true).unwrap().whose;
        assert_eq!(whose(&without(&["sub"])), Whose::Sid("s1".into()));
        assert_eq!(whose(&without(&["sid"])), Whose::Sub("alice".into()));
        assert_eq!(whose(&claims()), Whose::Both { sid: "s1".into(), sub: "alice".into() });
    }

    #[test]
    fn the_issuer_of_an_unverified_token_is_read_and_nothing_more() {
        let token = KEY.sign(&claims()).unwrap();
        assert_eq!(claimed_issuer(&token), Some(Issuer("https://op.test".into())));
        for odd in ["", "a.b.c", "e30.e30.e30"] {
            assert_eq!(claimed_issuer(odd), None, "{odd}");
        }
    }
}
