//! The `UserInfo` request and answer (OpenID Connect Core 5.3, UI-1 to UI-3).

use http::StatusCode;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use url::Url;

use super::is_json;
use crate::secret::Secret;
use crate::token::Claims;

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
        .header(ACCEPT, "application/json")
        .header(AUTHORIZATION, authorization)
        .body(Vec::new())
}

/// Reads the answer and compares `sub` with that of the ID token.
///
/// Core 5.3.2, 5.3.4; UI-1: `sub` MUST be there and be exactly that of the ID token, or nothing of the
/// answer is used. A signed answer (`application/jwt`) is refused: only JSON is read.
///
/// # Errors
/// [`UserinfoError`].
pub fn response(answer: &http::Response<bytes::Bytes>, sub: &str) -> Result<Claims, UserinfoError> {
    if answer.status() != StatusCode::OK {
        return Err(UserinfoError::Status { status: answer.status().as_u16() });
    }
    if !is_json(answer) {
        return Err(UserinfoError::Malformed("not application/json"));
    }
    let claims = Claims::parse(answer.body()).or(Err(UserinfoError::Malformed("not a JSON object")))?;
    match claims.string("sub") {
        Ok(Some(found)) if found == sub => Ok(claims),
        Ok(Some(_)) => Err(UserinfoError::SubjectMismatch),
        Ok(None) | Err(_) => Err(UserinfoError::Malformed("`sub` is missing or not a string")),
    }
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;

    use super::*;

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

    #[test]
    fn answers_about_the_same_subject_are_read() {
        let body = r#"{"sub":"alice","email":"a@x.example","_claim_names":{"x":"src1"}}"#;
        let claims = response(&answer(200, "application/json;charset=UTF-8", body), "alice").unwrap();
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
            ("TK-135 signed", answer(200, "application/jwt", r#"{"sub":"alice"}"#)),
        ];
        for (name, answer) in rows {
            assert!(response(&answer, "alice").is_err(), "{name}");
        }
    }

    #[test]
    fn protected_members_are_never_taken_from_userinfo() {
        let mut id_token = Claims::parse(br#"{"sub":"alice","iss":"https://op.test"}"#).unwrap();
        let body = r#"{"sub":"alice","iss":"x","exp":1,"acr":"x","sid":"x","groups":["g"]}"#;
        id_token.absorb(response(&answer(200, "application/json", body), "alice").unwrap(), PROTECTED);
        let merged = Claims::parse(br#"{"sub":"alice","iss":"https://op.test","groups":["g"]}"#).unwrap();
        assert_eq!(id_token, merged, "TK-134");
    }
}
