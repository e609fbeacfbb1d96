//! The `UserInfo` request and answer (OpenID Connect Core 5.3, UI-1 to UI-3).

use http::StatusCode;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use url::Url;

use super::{TokenError, Trust};
use crate::clock::UnixTime;
use crate::secret::Secret;
use crate::token::rules::{self, RuleError};
use crate::token::verify::Verified;
use crate::token::{Claims, KeySet};
use crate::web::media_type;

/// Members that a `UserInfo` answer never overrides (UI-3).
pub const PROTECTED: &[&str] = &[
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "nbf",
    "nonce",
    "acr",
    "amr",
    "auth_time",
    "azp",
    "sid",
    "at_hash",
    "jti",
];

/// Why an answer was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserinfoError {
    /// UI-1.
    #[error("userinfo is about another subject than the ID token")]
    SubjectMismatch,
    /// Not a userinfo answer.
    #[error("the userinfo answer is malformed: {0}")]
    Malformed(&'static str),
    /// UI-2: plain JSON, where signing was agreed on.
    #[error("the userinfo answer is not signed")]
    Unsigned,
    /// UI-2: a signed answer that does not hold.
    #[error("the signed userinfo answer is refused: {0}")]
    Signed(#[from] TokenError),
    /// Another status than 200.
    #[error("the userinfo endpoint answered {status}")]
    Status {
        /// HTTP status.
        status: u16,
    },
}

/// The request: GET with the token in the `Authorization` header only.
///
/// # Errors
/// When endpoint or token can't stand in a request.
pub fn request(endpoint: &Url, access_token: &Secret<String>) -> Result<http::Request<Vec<u8>>, http::Error> {
    let mut authorization = HeaderValue::try_from(format!("Bearer {}", access_token.expose()))?;
    authorization.set_sensitive(true);
    http::Request::get(endpoint.as_str())
        .header(ACCEPT, "application/json, application/jwt")
        .header(AUTHORIZATION, authorization)
        .body(Vec::new())
}

/// An answer as it was sent; nothing of it counts yet.
#[derive(Debug)]
pub enum Answer {
    /// JSON.
    Plain(Claims),
    /// A JWT, not verified.
    Signed(Secret<String>),
}

/// Reads the answer: JSON, or a JWT (`application/jwt`). `signed` says that signing was agreed on.
///
/// Core 5.3.2; UI-2: a client that registered for signed answers takes no other.
///
/// # Errors
/// [`UserinfoError`].
pub fn response(answer: &http::Response<bytes::Bytes>, signed: bool) -> Result<Answer, UserinfoError> {
    if answer.status() != StatusCode::OK {
        return Err(UserinfoError::Status { status: answer.status().as_u16() });
    }
    match media_type(answer.headers()).as_deref() {
        Some("application/jwt") => signed_answer(answer.body()),
        Some("application/json") if signed => Err(UserinfoError::Unsigned),
        Some("application/json") => plain_answer(answer.body()),
        Some(_) | None => Err(UserinfoError::Malformed("neither application/json nor application/jwt")),
    }
}

fn plain_answer(body: &[u8]) -> Result<Answer, UserinfoError> {
    Claims::parse(body).map(Answer::Plain).or(Err(UserinfoError::Malformed("not a JSON object")))
}

fn signed_answer(body: &[u8]) -> Result<Answer, UserinfoError> {
    let token = std::str::from_utf8(body).or(Err(UserinfoError::Malformed("not a token")))?;
    Ok(Answer::Signed(Secret::new(token.trim_ascii().to_owned())))
}

/// Verifies a signed answer: signature, type, issuer, audience, and the times that it has.
///
/// Core 5.3.2 and 5.3.4; UI-2: `iss` and `aud` are there and are checked; `exp` and `iat` need not be.
///
/// # Errors
/// [`TokenError`].
pub fn verify(
    raw: &Secret<String>,
    keys: &KeySet,
    trust: &Trust<'_>,
    now: UnixTime,
) -> Result<Claims, TokenError> {
    let token = trust.verified(raw, keys)?;
    check_claims(&token, trust, now)?;
    Ok(token.claims)
}

fn check_claims(token: &Verified, trust: &Trust<'_>, now: UnixTime) -> Result<(), RuleError> {
    let claims = &token.claims;
    rules::id_token_type(token.typ.as_deref())?;
    rules::no_events(claims)?;
    trust.check_parties(claims)?;
    if claims.has("exp") {
        rules::expiry(claims, now, trust.leeway)?;
    }
    rules::not_before(claims, now, trust.leeway)
}

/// Lets claims through that are about the subject of the ID token.
///
/// Core 5.3.2, 5.3.4; UI-1: `sub` MUST be there and be exactly that of the ID token, or nothing of the
/// answer is used.
///
/// # Errors
/// [`UserinfoError`].
pub fn about(sub: &str, claims: Claims) -> Result<Claims, UserinfoError> {
    match claims.string("sub") {
        Ok(Some(found)) if found == sub => Ok(claims),
        Ok(Some(_)) => Err(UserinfoError::SubjectMismatch),
        Ok(None) | Err(_) => Err(UserinfoError::Malformed("`sub` is missing or not a string")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::CONTENT_TYPE;
    use serde_json::{Value, json};

    use super::*;
    use crate::oidc::{ClientId, Issuer};
    use crate::token::Algorithm;
    use crate::token::sign::SigningKey;

    fn answer(status: u16, content_type: &str, body: &'static str) -> http::Response<bytes::Bytes> {
        http::Response::builder()
            .status(status)
            .header(CONTENT_TYPE, content_type)
            .body(bytes::Bytes::from(body))
            .unwrap()
    }

    #[test]
    fn the_token_goes_in_the_header_alone() {
        let request = request(&"https://op.test/me".parse().unwrap(), &Secret::new("at".to_owned())).unwrap();
        assert_eq!(
            (request.method(), request.uri().to_string().as_str()),
            (&http::Method::GET, "https://op.test/me")
        );
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer at");
        assert!(request.headers()[AUTHORIZATION].is_sensitive());
        assert!(request.body().is_empty());
    }

    /// What is taken of a plain answer.
    fn read(answer: &http::Response<bytes::Bytes>) -> Result<Claims, UserinfoError> {
        match response(answer, false)? {
            Answer::Plain(claims) => about("alice", claims),
            Answer::Signed(_) => panic!("it is plain"),
        }
    }

    #[test]
    fn answers_about_the_same_subject_are_read() {
        let body = r#"{"sub":"alice","email":"a@x.example","_claim_names":{"x":"src1"}}"#;
        let claims = read(&answer(200, "application/json;charset=UTF-8", body)).unwrap();
        assert_eq!(claims.string("email"), Ok(Some("a@x.example")));
    }

    #[test]
    fn all_other_answers_are_refused() {
        let json = "application/json";
        let rows = [
            ("TK-134 sub differs", answer(200, json, r#"{"sub":"aliceinvalid"}"#)),
            ("sub in another case", answer(200, json, r#"{"sub":"Alice"}"#)),
            ("TK-134 sub missing", answer(200, json, "{}")),
            ("TK-134 sub number", answer(200, json, r#"{"sub":1}"#)),
            ("sub twice", answer(200, json, r#"{"sub":"bob","sub":"alice"}"#)),
            ("TK-134 array", answer(200, json, r#"[{"sub":"alice"}]"#)),
            ("TK-134 401", answer(401, json, r#"{"sub":"alice"}"#)),
            ("TK-134 500", answer(500, json, r#"{"sub":"alice"}"#)),
            ("204", answer(204, json, r#"{"sub":"alice"}"#)),
            ("TK-134 HTML", answer(200, "text/html", r#"{"sub":"alice"}"#)),
        ];
        for (name, answer) in rows {
            assert!(read(&answer).is_err(), "{name}");
        }
    }

    #[test]
    fn where_signing_was_agreed_on_nothing_else_is_read() {
        let plain = answer(200, "application/json", r#"{"sub":"alice"}"#);
        assert!(matches!(response(&plain, true), Err(UserinfoError::Unsigned)), "TK-135");
        for signed in [false, true] {
            let jwt = answer(200, "application/jwt", "a.b.c\n");
            let Ok(Answer::Signed(token)) = response(&jwt, signed) else { panic!("signed: {signed}") };
            assert_eq!(token.expose(), "a.b.c");
        }
        assert!(response(&answer(200, "application/jws", "a.b.c"), true).is_err());
    }

    #[test]
    fn a_signed_answer_holds_only_for_this_client_at_this_issuer() {
        const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);
        let key = SigningKey::generate(Algorithm::ES256, Some("k1")).unwrap();
        let set = json!({ "keys": [key.public_jwk().unwrap()] }).to_string();
        let keys = KeySet::parse(set.as_bytes()).unwrap();
        let (issuer, client_id) = (Issuer("https://op.test".into()), ClientId("client".into()));
        let trust = Trust {
            issuer: &issuer,
            client_id: &client_id,
            trusted_audiences: &[],
            algorithms: &[Algorithm::ES256],
            leeway: Duration::from_secs(30),
        };
        let good = json!({ "iss": "https://op.test", "aud": "client", "sub": "alice" });
        let verdict = |changes: Value, typ: &str, algorithms: &[Algorithm]| {
            let mut claims = good.clone();
            claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            let header = json!({ "alg": "ES256", "kid": "k1", "typ": typ }).to_string();
            let token = key.sign_parts(header.as_bytes(), claims.to_string().as_bytes()).unwrap();
            verify(&Secret::new(token), &keys, &Trust { algorithms, ..trust }, NOW)
        };
        let es256 = [Algorithm::ES256];
        assert!(verdict(json!({}), "JWT", &es256).is_ok(), "neither iat nor exp is needed");
        assert!(verdict(json!({ "exp": NOW.as_secs() + 60 }), "JWT", &es256).is_ok());
        let rows = [
            ("TK-135 another issuer", json!({ "iss": "https://op2.test" })),
            ("no issuer", json!({ "iss": null })),
            ("TK-135 another audience", json!({ "aud": "other" })),
            ("an audience too many", json!({ "aud": ["client", "other"] })),
            ("expired", json!({ "exp": NOW.as_secs() - 60 })),
            ("exp of a wrong type", json!({ "exp": "1" })),
            ("not valid yet", json!({ "nbf": NOW.as_secs() + 60 })),
            ("a logout token", json!({ "events": {} })),
        ];
        for (name, changes) in rows {
            assert!(verdict(changes, "JWT", &es256).is_err(), "{name}");
        }
        assert!(verdict(json!({}), "at+jwt", &es256).is_err(), "an access token");
        assert!(verdict(json!({}), "JWT", &[Algorithm::RS256]).is_err(), "another algorithm is pinned");
    }

    #[test]
    fn protected_members_are_never_taken_from_userinfo() {
        let mut id_token = Claims::parse(br#"{"sub":"alice","iss":"https://op.test"}"#).unwrap();
        let body = r#"{"sub":"alice","iss":"x","exp":1,"acr":"x","sid":"x","groups":["g"]}"#;
        id_token.absorb(read(&answer(200, "application/json", body)).unwrap(), PROTECTED);
        let merged = Claims::parse(br#"{"sub":"alice","iss":"https://op.test","groups":["g"]}"#).unwrap();
        assert_eq!(id_token, merged, "TK-134");
    }
}
