//! The token request and its answer (RFC 6749 4.1.3, 5.1; TE-2 to TE-5).

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use url::Url;
use url::form_urlencoded::Serializer;

use super::client_auth::{ClientAuth, authenticated};
use super::refresh::FreshTokens;
use super::{ClientId, is_json};
use crate::secret::Secret;
use crate::token::Claims;

/// What a code exchange is made of.
#[derive(Clone, Debug)]
pub struct CodeExchange<'a> {
    /// The token endpoint.
    pub token_endpoint: &'a Url,
    /// The client.
    pub client_id: &'a ClientId,
    /// How it authenticates.
    pub auth: &'a ClientAuth,
    /// The code.
    pub code: &'a Secret<String>,
    /// The PKCE verifier.
    pub verifier: &'a Secret<String>,
    /// Identical to the one sent in the authorization request.
    pub redirect_uri: &'a str,
}

/// A token answer.
#[derive(Clone, Debug)]
pub struct TokenResponse {
    /// The access token.
    pub access_token: Secret<String>,
    /// The ID token, as issued, byte for byte.
    pub id_token: Secret<String>,
    /// The refresh token, if one came.
    pub refresh_token: Option<Secret<String>>,
    /// The access token's life, if stated (TE-5: absent, zero, negative or mistyped is `None`).
    pub expires_in: Option<Duration>,
}

/// Why a token answer was refused. No variant holds the body (TE-6).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// An OAuth error answer; the code is cleaned and cut.
    #[error("the token endpoint answered {status} with error {error:?}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The `error` member.
        error: String,
    },
    /// Not a token answer.
    #[error("the token answer is malformed: {0}")]
    Malformed(&'static str),
    /// 5xx or 429: nobody's fault here.
    #[error("the token endpoint answered {status}")]
    Unavailable {
        /// HTTP status.
        status: u16,
    },
}

/// The token request as a value: POST, form-encoded, `Accept: application/json`.
///
/// RFC 6749 4.1.3 and 2.3.1; TE-2: exactly one way of client authentication.
///
/// # Errors
/// When the endpoint can't stand in a request.
pub fn request(exchange: &CodeExchange<'_>) -> Result<http::Request<Vec<u8>>, http::Error> {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "authorization_code")
        .append_pair("code", exchange.code.expose())
        .append_pair("redirect_uri", exchange.redirect_uri)
        .append_pair("code_verifier", exchange.verifier.expose());
    authenticated(exchange.token_endpoint, exchange.client_id, exchange.auth, form)
}

/// Reads the answer (TE-4): status 200, JSON content type, an object with string `access_token` and
/// `id_token`, `token_type` equal to Bearer in any case.
///
/// # Errors
/// [`ExchangeError`].
pub fn response(answer: &http::Response<bytes::Bytes>) -> Result<TokenResponse, ExchangeError> {
    let FreshTokens { access_token, id_token, refresh_token, expires_in } = tokens(answer)?;
    let id_token = id_token.ok_or(ExchangeError::Malformed("no id_token"))?;
    Ok(TokenResponse { access_token, id_token, refresh_token, expires_in })
}

/// Any answer of the token endpoint, with or without an ID token.
pub(super) fn tokens(answer: &http::Response<bytes::Bytes>) -> Result<FreshTokens, ExchangeError> {
    if answer.status() != StatusCode::OK {
        return Err(refusal(answer));
    }
    if !is_json(answer) {
        return Err(ExchangeError::Malformed("not application/json"));
    }
    let body = Claims::parse(answer.body()).or(Err(ExchangeError::Malformed("not a JSON object")))?;
    check_token_type(&body)?;
    Ok(FreshTokens {
        access_token: token(&body, "access_token")?.ok_or(ExchangeError::Malformed("no access_token"))?,
        id_token: token(&body, "id_token")?,
        refresh_token: token(&body, "refresh_token")?,
        expires_in: expires_in(&body),
    })
}

/// What an answer says that is not the wanted one.
pub(super) fn refusal(answer: &http::Response<bytes::Bytes>) -> ExchangeError {
    let status = answer.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return ExchangeError::Unavailable { status: status.as_u16() };
    }
    if !status.is_client_error() {
        return ExchangeError::Malformed("an unexpected status");
    }
    ExchangeError::Refused { status: status.as_u16(), error: super::error_in(answer) }
}

fn check_token_type(body: &Claims) -> Result<(), ExchangeError> {
    match body.string("token_type") {
        Ok(Some(kind)) if kind.eq_ignore_ascii_case("bearer") => Ok(()),
        Ok(_) | Err(_) => Err(ExchangeError::Malformed("token_type is not Bearer")),
    }
}

/// RFC 6749 A.12, A.17: tokens are one or more of the printable ASCII characters and the space. An
/// optional one may be `null`.
fn token(body: &Claims, name: &str) -> Result<Option<Secret<String>>, ExchangeError> {
    let text = match body.value(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text,
        Some(_) => return Err(ExchangeError::Malformed("a token is not a string")),
    };
    if text.is_empty() || !text.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        return Err(ExchangeError::Malformed("a token is empty or not printable ASCII"));
    }
    Ok(Some(Secret::new(text.clone())))
}

/// TE-5: what is no positive number says nothing; too large a one saturates.
fn expires_in(body: &Claims) -> Option<Duration> {
    let seconds = body.seconds("expires_in").ok().flatten()?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use http::header::{AUTHORIZATION, CONTENT_TYPE};
    use serde_json::json;

    use super::*;

    fn sent(client_id: &str, auth: &ClientAuth) -> http::Request<Vec<u8>> {
        request(&CodeExchange {
            token_endpoint: &"https://op.test/token?tenant=1".parse().unwrap(),
            client_id: &ClientId(client_id.into()),
            auth,
            code: &Secret::new("c/1 +".to_owned()),
            verifier: &Secret::new("v1".to_owned()),
            redirect_uri: "https://app.test/oauth2/callback",
        })
        .unwrap()
    }

    fn fields(request: &http::Request<Vec<u8>>) -> Vec<(String, String)> {
        url::form_urlencoded::parse(request.body()).into_owned().collect()
    }

    fn answer(status: u16, content_type: &str, body: &str) -> http::Response<bytes::Bytes> {
        http::Response::builder()
            .status(status)
            .header(CONTENT_TYPE, content_type)
            .body(bytes::Bytes::from(body.to_owned()))
            .unwrap()
    }

    fn tokens() -> Value {
        json!({"access_token": "at", "id_token": "a.b.c", "token_type": "Bearer"})
    }

    fn with(member: &str, value: Value) -> String {
        let mut tokens = tokens();
        tokens[member] = value;
        tokens.to_string()
    }

    fn without(member: &str) -> String {
        let mut tokens = tokens();
        tokens.as_object_mut().unwrap().remove(member);
        tokens.to_string()
    }

    #[test]
    fn the_code_goes_with_its_verifier_and_redirect_uri() {
        let request = sent("client", &ClientAuth::None);
        assert_eq!(request.method(), http::Method::POST);
        assert_eq!(request.uri(), "https://op.test/token?tenant=1");
        assert_eq!(request.headers()[CONTENT_TYPE], "application/x-www-form-urlencoded");
        let wanted = [
            ("grant_type", "authorization_code"),
            ("code", "c/1 +"),
            ("redirect_uri", "https://app.test/oauth2/callback"),
            ("code_verifier", "v1"),
            ("client_id", "client"),
        ];
        assert_eq!(fields(&request), wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(!request.headers().contains_key(AUTHORIZATION));
    }

    #[test]
    fn a_token_answer_is_read() {
        let body = json!({"access_token": "at", "id_token": "a.b.c", "token_type": "bearer",
            "refresh_token": "r t!#~", "expires_in": 300, "scope": "openid"});
        let tokens = response(&answer(200, "Application/JSON; charset=utf-8", &body.to_string())).unwrap();
        assert_eq!(tokens.access_token.expose(), "at");
        assert_eq!(tokens.id_token.expose(), "a.b.c");
        assert_eq!(tokens.refresh_token.unwrap().expose(), "r t!#~");
        assert_eq!(tokens.expires_in, Some(Duration::from_mins(5)));
    }

    #[test]
    fn what_is_no_token_answer_is_refused() {
        let rows = [
            ("TK-131 no id_token", without("id_token")),
            ("TK-131 no access_token", without("access_token")),
            ("no token_type", without("token_type")),
            ("TK-131 token_type mac", with("token_type", json!("mac"))),
            ("token_type of another type", with("token_type", json!(["Bearer"]))),
            ("access_token of another type", with("access_token", json!(1))),
            ("access_token empty", with("access_token", json!(""))),
            ("access_token with a newline", with("access_token", json!("a\r\nX: y"))),
            ("id_token null", with("id_token", Value::Null)),
            ("refresh_token of another type", with("refresh_token", json!({}))),
            ("TK-131 array", "[]".to_owned()),
            (
                "TK-131 duplicate keys",
                r#"{"access_token":"a","access_token":"b","id_token":"a.b.c","token_type":"Bearer"}"#
                    .to_owned(),
            ),
        ];
        for (name, body) in rows {
            let verdict = response(&answer(200, "application/json", &body));
            assert!(matches!(verdict, Err(ExchangeError::Malformed(_))), "{name}: {verdict:?}");
        }
        let html = response(&answer(200, "text/html", &tokens().to_string()));
        assert!(matches!(html, Err(ExchangeError::Malformed(_))), "TK-131 HTML");
    }

    #[test]
    fn other_statuses_are_told_apart_by_whose_fault_they_are() {
        let refused = |status, error: &str| ExchangeError::Refused { status, error: error.to_owned() };
        let rows = [
            (400, r#"{"error":"invalid_grant","error_description":"secret"}"#, refused(400, "invalid_grant")),
            (401, r#"{"error":"<b>"}"#, refused(401, "unknown")),
            (400, r#"{"error":7}"#, refused(400, "unknown")),
            (404, "<html>", refused(404, "unknown")),
            (500, r#"{"error":"server_error"}"#, ExchangeError::Unavailable { status: 500 }),
            (503, "", ExchangeError::Unavailable { status: 503 }),
            (429, "", ExchangeError::Unavailable { status: 429 }),
            (302, "", ExchangeError::Malformed("an unexpected status")),
            (201, "{}", ExchangeError::Malformed("an unexpected status")),
        ];
        for (status, body, wanted) in rows {
            assert_eq!(
                response(&answer(status, "application/json", body)).unwrap_err(),
                wanted,
                "{status} {body}"
            );
        }
    }

    #[test]
    fn a_life_is_a_positive_number_or_unknown() {
        let rows = [
            ("absent", without("expires_in"), None),
            ("zero", with("expires_in", json!(0)), None),
            ("negative", with("expires_in", json!(-5)), None),
            ("string", with("expires_in", json!("300")), None),
            ("null", with("expires_in", Value::Null), None),
            ("1e300", with("expires_in", json!(1e300)), Some(Duration::from_secs(u64::MAX))),
            ("fraction", with("expires_in", json!(59.9)), Some(Duration::from_secs(59))),
        ];
        for (name, body, wanted) in rows {
            let tokens = response(&answer(200, "application/json", &body)).unwrap();
            assert_eq!(tokens.expires_in, wanted, "TE-5 {name}");
        }
    }

    #[test]
    fn nothing_of_a_token_answer_prints() {
        let tokens = response(&answer(200, "application/json", &tokens().to_string())).unwrap();
        let printed = format!("{tokens:?}");
        assert!(!printed.contains("a.b.c") && !printed.contains("at\""), "{printed}");
    }
}
