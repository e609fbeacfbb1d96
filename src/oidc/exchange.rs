//! The token request and its answer (RFC 6749 4.1.3, 5.1; TE-2 to TE-5).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde_json::Value;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::{ClientId, is_json};
use crate::secret::Secret;
use crate::token::Claims;

/// How the client shows who it is at the token endpoint.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// `client_secret_basic`: id and secret form-urlencoded, then base64 (RFC 6749 2.3.1).
    Basic(Secret<String>),
    /// `client_secret_post`.
    Post(Secret<String>),
    /// `none`: a public client; PKCE alone.
    None,
}

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

/// A form to an endpoint at which the client shows who it is, in exactly one way (TE-2).
///
/// # Errors
/// When the endpoint can't stand in a request.
pub(super) fn authenticated(
    endpoint: &Url,
    client_id: &ClientId,
    auth: &ClientAuth,
    mut form: Serializer<'_, String>,
) -> Result<http::Request<Vec<u8>>, http::Error> {
    match auth {
        ClientAuth::Basic(_) => {}
        ClientAuth::Post(secret) => {
            form.append_pair("client_id", &client_id.0);
            form.append_pair("client_secret", secret.expose());
        }
        ClientAuth::None => {
            form.append_pair("client_id", &client_id.0);
        }
    }
    let mut request = http::Request::post(endpoint.as_str())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json")
        .body(form.finish().into_bytes())?;
    if let ClientAuth::Basic(secret) = auth {
        request.headers_mut().insert(AUTHORIZATION, basic(client_id, secret)?);
    }
    Ok(request)
}

/// Reads the answer (TE-4): status 200, JSON content type, an object with string `access_token` and
/// `id_token`, `token_type` equal to Bearer in any case.
///
/// # Errors
/// [`ExchangeError`].
pub fn response(answer: &http::Response<bytes::Bytes>) -> Result<TokenResponse, ExchangeError> {
    if answer.status() != StatusCode::OK {
        return Err(refusal(answer));
    }
    if !is_json(answer) {
        return Err(ExchangeError::Malformed("not application/json"));
    }
    let body = Claims::parse(answer.body()).or(Err(ExchangeError::Malformed("not a JSON object")))?;
    check_token_type(&body)?;
    Ok(TokenResponse {
        access_token: token(&body, "access_token")?.ok_or(ExchangeError::Malformed("no access_token"))?,
        id_token: token(&body, "id_token")?.ok_or(ExchangeError::Malformed("no id_token"))?,
        refresh_token: token(&body, "refresh_token")?,
        expires_in: expires_in(&body),
    })
}

/// RFC 6749 2.3.1: both parts are form-urlencoded first, so that a `:` in the id or a `%` in the secret
/// arrives as it is.
fn basic(client_id: &ClientId, secret: &Secret<String>) -> Result<HeaderValue, http::Error> {
    let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encode(&client_id.0), encode(secret.expose()));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))?;
    value.set_sensitive(true);
    Ok(value)
}

fn refusal(answer: &http::Response<bytes::Bytes>) -> ExchangeError {
    let status = answer.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return ExchangeError::Unavailable { status: status.as_u16() };
    }
    if !status.is_client_error() {
        return ExchangeError::Malformed("neither 200 nor an error");
    }
    let body = Claims::parse(answer.body()).unwrap_or_default();
    let error = super::error_code(body.string("error").ok().flatten().unwrap_or_default());
    ExchangeError::Refused { status: status.as_u16(), error }
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
    fn basic_form_encodes_both_parts_before_base64() {
        let request = sent("a:b", &ClientAuth::Basic(Secret::new(":%+ é/=".to_owned())));
        let header = request.headers()[AUTHORIZATION].to_str().unwrap();
        let pair = STANDARD.decode(header.strip_prefix("Basic ").unwrap()).unwrap();
        assert_eq!(pair, b"a%3Ab:%3A%25%2B+%C3%A9%2F%3D", "TK-137");
        assert!(request.headers()[AUTHORIZATION].is_sensitive());
        let names: Vec<String> = fields(&request).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["grant_type", "code", "redirect_uri", "code_verifier"], "TE-2: one way only");
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
    fn post_sends_the_secret_in_the_form_alone() {
        let request = sent("client", &ClientAuth::Post(Secret::new(":%+ é".to_owned())));
        let secret = fields(&request).into_iter().find(|(name, _)| name == "client_secret").unwrap().1;
        assert_eq!(secret, ":%+ é");
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
            (302, "", ExchangeError::Malformed("neither 200 nor an error")),
            (201, "{}", ExchangeError::Malformed("neither 200 nor an error")),
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
