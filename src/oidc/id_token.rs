//! ID token validation, in the order of OpenID Connect Core 3.1.3.7.

use std::time::Duration;

use super::{TokenError, Trust};
use crate::clock::UnixTime;
use crate::secret::Secret;
use crate::token::rules::{self, RuleError};
use crate::token::verify::Verified;
use crate::token::{Claims, KeySet};

/// What an ID token has to match.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    /// Issuer, client, algorithms and clock skew.
    pub trust: Trust<'a>,
    /// The nonce that was sent (ID-11).
    pub nonce: &'a Secret<String>,
    /// The access token that came with it, for `at_hash` (ID-12).
    pub access_token: &'a Secret<String>,
    /// The code that it was given for, for `c_hash` (ID-12).
    pub code: &'a Secret<String>,
}

/// How old an ID token may be at sign-in: as old as the login attempt that it answers (ID-10).
pub const MAX_AGE: Duration = super::callback::ATTEMPT_LIFETIME;

/// Verifies signature and claims (ID-1 to ID-15), in the order of Core 3.1.3.7, except that the signature
/// (6 to 8) comes first: until it holds, the claims are only what somebody wrote.
///
/// # Errors
/// [`TokenError`].
pub fn verify(
    raw: &Secret<String>,
    keys: &KeySet,
    expected: &Expected<'_>,
    now: UnixTime,
) -> Result<Claims, TokenError> {
    let token = expected.trust.verified(raw, keys)?;
    check_claims(&token, expected, now)?;
    Ok(token.claims)
}

/// What the ID token of a refresh has to match.
#[derive(Clone, Debug)]
pub struct ExpectedAgain<'a> {
    /// Issuer, client, algorithms and clock skew.
    pub trust: Trust<'a>,
    /// The claims of the ID token at sign-in.
    pub first: &'a Claims,
    /// The access token that came with it, for `at_hash` (ID-12).
    pub access_token: &'a Secret<String>,
}

/// Verifies the ID token of a refresh as that of a sign-in, and that it is about the same person, sign-in
/// and client (Core 12.2; RF-4).
///
/// # Errors
/// [`TokenError`].
pub fn verify_again(
    raw: &Secret<String>,
    keys: &KeySet,
    expected: &ExpectedAgain<'_>,
    now: UnixTime,
) -> Result<Claims, TokenError> {
    let token = expected.trust.verified(raw, keys)?;
    check_again(&token, expected, now)?;
    Ok(token.claims)
}

fn check_again(token: &Verified, expected: &ExpectedAgain<'_>, now: UnixTime) -> Result<(), RuleError> {
    let claims = &token.claims;
    check_parties_and_times(token, &expected.trust, now)?;
    rules::subject(claims)?;
    rules::half_hash(claims, "at_hash", expected.access_token.expose(), token.algorithm)?;
    // Core 12.2: the person may not change, and where these are there, neither may they.
    rules::unchanged(claims, expected.first, "sub")?;
    rules::unchanged(claims, expected.first, "auth_time")?;
    rules::unchanged(claims, expected.first, "nonce")
}

fn check_claims(token: &Verified, expected: &Expected<'_>, now: UnixTime) -> Result<(), RuleError> {
    let claims = &token.claims;
    check_parties_and_times(token, &expected.trust, now)?;
    // (11)
    rules::nonce(claims, expected.nonce.expose())?;
    // Core 2, 3.1.3.8, 3.3.2.11
    rules::subject(claims)?;
    rules::half_hash(claims, "at_hash", expected.access_token.expose(), token.algorithm)?;
    rules::half_hash(claims, "c_hash", expected.code.expose(), token.algorithm)
}

/// What holds for every ID token, at sign-in and after.
fn check_parties_and_times(token: &Verified, trust: &Trust<'_>, now: UnixTime) -> Result<(), RuleError> {
    let claims = &token.claims;
    rules::id_token_type(token.typ.as_deref())?;
    rules::no_events(claims)?;
    // 3.1.3.7 (2) to (5)
    trust.check_parties(claims)?;
    rules::authorized_party(claims, &trust.client_id.0)?;
    // (9) and (10)
    rules::expiry(claims, now, trust.leeway)?;
    rules::issued_at(claims, now, trust.leeway, MAX_AGE)?;
    rules::not_before(claims, now, trust.leeway)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use serde_json::{Value, json};

    use super::*;
    use crate::oidc::{ClientId, Issuer};
    use crate::token::Algorithm;
    use crate::token::sign::SigningKey;

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

    static KEY: LazyLock<SigningKey> =
        LazyLock::new(|| SigningKey::generate(Algorithm::ES256, Some("k1")).unwrap());

    fn keys() -> KeySet {
        let set = json!({"keys": [KEY.public_jwk().unwrap()]});
        KeySet::parse(set.to_string().as_bytes()).unwrap()
    }

    fn claims() -> Value {
        json!({"iss": "https://op.test", "aud": "client", "sub": "alice", "nonce": "n1",
               "iat": NOW.as_secs(), "exp": NOW.as_secs() + 300})
    }

    fn with(member: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[member] = value;
        claims
    }

    fn without(member: &str) -> Value {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(member);
        claims
    }

    fn verdict(token: String, keys: &KeySet) -> Result<Claims, TokenError> {
        let trust = Trust {
            issuer: &Issuer("https://op.test".into()),
            client_id: &ClientId("client".into()),
            trusted_audiences: &[],
            algorithms: &[Algorithm::ES256],
            leeway: Duration::from_mins(1),
        };
        let expected = Expected {
            trust,
            nonce: &Secret::new("n1".to_owned()),
            access_token: &Secret::new("at".to_owned()),
            code: &Secret::new("c1".to_owned()),
        };
        verify(&Secret::new(token), keys, &expected, NOW)
    }

    #[test]
    fn a_good_token_gives_its_claims() {
        let verified = verdict(KEY.sign(&claims()).unwrap(), &keys()).unwrap();
        assert_eq!(verified.string("sub"), Ok(Some("alice")));
    }

    #[test]
    fn each_rule_is_in_force() {
        let rows = [
            ("ID-6 iss", with("iss", json!("https://op.test/")), "`iss`"),
            ("ID-7 aud", with("aud", json!(["client", "other"])), "`aud`"),
            ("ID-8 azp", with("azp", json!("other")), "`azp`"),
            ("ID-9 exp", with("exp", json!(NOW.as_secs() - 61)), "expired"),
            ("ID-10 iat missing", without("iat"), "`iat` is missing"),
            ("TK-123 iat a day ago", with("iat", json!(NOW.as_secs() - 86_400)), "past"),
            ("ID-10 nbf", with("nbf", json!(NOW.as_secs() + 3600)), "`nbf`"),
            ("ID-11 nonce", with("nonce", json!("n11")), "`nonce`"),
            ("ID-11 no nonce", without("nonce"), "`nonce` is missing"),
            ("ID-12 at_hash", with("at_hash", json!("AAAA")), "`at_hash`"),
            ("ID-12 c_hash", with("c_hash", json!("AAAA")), "`c_hash`"),
            ("ID-13 sub", without("sub"), "`sub` is missing"),
            ("ID-13 sub empty", with("sub", json!("")), "`sub`"),
            ("ID-14 events", with("events", json!({})), "`events`"),
            ("ID-15 exp string", with("exp", json!("1700000300")), "claim `exp`"),
        ];
        for (name, claims, told) in rows {
            let error = verdict(KEY.sign(&claims).unwrap(), &keys()).unwrap_err();
            let (text, is_of_time) = match &error {
                TokenError::Rejected(text) => (text, false),
                TokenError::Clock(text) => (text, true),
                TokenError::UnknownKey { .. } => panic!("{name}: {error}"),
            };
            assert!(text.contains(told), "{name}: {text}");
            assert_eq!(is_of_time, ["expired", "past", "`nbf`"].contains(&told), "{name}");
        }
        let header = json!({"alg": "ES256", "kid": "k1", "typ": "logout+jwt"}).to_string();
        let token = KEY.sign_parts(header.as_bytes(), claims().to_string().as_bytes()).unwrap();
        assert!(matches!(verdict(token, &keys()), Err(TokenError::Rejected(_))), "ID-14 typ");
    }

    #[test]
    fn an_unknown_key_is_told_apart_from_a_bad_signature() {
        let token = KEY.sign(&claims()).unwrap();
        let unknown = verdict(token.clone(), &KeySet::default()).unwrap_err();
        assert!(matches!(unknown, TokenError::UnknownKey { kid: Some(kid) } if kid == "k1"));
        let stranger = SigningKey::generate(Algorithm::ES256, Some("k1")).unwrap();
        let bad = verdict(stranger.sign(&claims()).unwrap(), &keys()).unwrap_err();
        assert!(matches!(bad, TokenError::Rejected(text) if text == "the signature is wrong"));
    }

    #[test]
    fn no_error_holds_the_token() {
        let token = KEY.sign(&with("iss", json!("https://evil.test"))).unwrap();
        let told = format!("{:?}", verdict(token.clone(), &keys()).unwrap_err());
        assert!(token.split('.').all(|part| !told.contains(part)), "{told}");
    }
}
