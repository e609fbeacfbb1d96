//! Pushed authorization requests (RFC 9126): the gateway hands the request to the provider itself, and the
//! browser carries a reference to it (AR-11).

use http::StatusCode;
use url::Url;
use url::form_urlencoded::Serializer;

use super::ClientId;
use super::client_auth::{ClientAuth, authenticated};
use super::exchange::{self, ExchangeError};
use super::metadata::Metadata;
use crate::secret::Secret;
use crate::token::Claims;

/// The most bytes of a reference: it travels in a URL.
const MAX_REFERENCE_BYTES: usize = 512;

/// What a pushed request is made of.
#[derive(Clone, Debug)]
pub struct Push<'a> {
    /// The endpoint for pushed requests.
    pub endpoint: &'a Url,
    /// The provider's metadata.
    pub metadata: &'a Metadata,
    /// The client.
    pub client_id: &'a ClientId,
    /// How it authenticates: as at the token endpoint.
    pub auth: &'a ClientAuth,
    /// The authorization URL with the whole request in it.
    pub url: &'a Url,
}

/// Why a request could not be pushed. No variant holds the answer's body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The provider refused client or request; the code is cleaned and cut.
    #[error("the pushed request was refused: {status} with error {error:?}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The `error` member.
        error: String,
    },
    /// Not the answer of RFC 9126 2.2.
    #[error("the answer to the pushed request is malformed: {0}")]
    Malformed(&'static str),
    /// 5xx or 429.
    #[error("the endpoint for pushed requests answered {status}")]
    Unavailable {
        /// HTTP status.
        status: u16,
    },
}

impl From<ExchangeError> for PushError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Refused { status, error } => Self::Refused { status, error },
            ExchangeError::Malformed(what) => Self::Malformed(what),
            ExchangeError::Unavailable { status } => Self::Unavailable { status },
        }
    }
}

/// The request: what the browser would have carried, and the client shows who it is.
///
/// RFC 9126 2.1: every parameter of the authorization request, in a form; `client_id` stands there once.
/// What the authorization endpoint's own URL has stays there.
///
/// # Errors
/// When the endpoint can't stand in a request.
pub fn request(push: &Push<'_>) -> Result<http::Request<Vec<u8>>, http::Error> {
    let mut form = Serializer::new(String::new());
    let of_endpoint = push.metadata.authorization_endpoint.query_pairs().count();
    let ours = push.url.query_pairs().skip(of_endpoint);
    for (name, value) in ours.filter(|(name, _)| name != "client_id") {
        form.append_pair(&name, &value);
    }
    if !push.auth.is_in_form() {
        form.append_pair("client_id", &push.client_id.0);
    }
    authenticated(push.endpoint, push.client_id, push.auth, form)
}

/// Reads the answer (RFC 9126 2.2): 201 and a `request_uri`. How long that lives does not matter: the browser
/// is sent there at once.
///
/// # Errors
/// [`PushError`].
pub fn response(answer: &http::Response<bytes::Bytes>) -> Result<Secret<String>, PushError> {
    if answer.status() != StatusCode::CREATED {
        return Err(exchange::refusal(answer).into());
    }
    if !super::is_json(answer) {
        return Err(PushError::Malformed("not application/json"));
    }
    let body = Claims::parse(answer.body()).or(Err(PushError::Malformed("not a JSON object")))?;
    let reference =
        body.string("request_uri").or(Err(PushError::Malformed("`request_uri` is not a string")))?;
    let fits = |text: &&str| {
        (1..=MAX_REFERENCE_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
    };
    let reference = reference.filter(fits).ok_or(PushError::Malformed("no usable `request_uri`"))?;
    Ok(Secret::new(reference.to_owned()))
}

/// Where the browser is sent: RFC 9126 4, `client_id` and `request_uri` and nothing else of the request.
#[must_use]
pub fn authorization_url(metadata: &Metadata, client_id: &ClientId, reference: &Secret<String>) -> Url {
    let mut url = metadata.authorization_endpoint.clone();
    url.query_pairs_mut()
        .append_pair("client_id", &client_id.0)
        .append_pair("request_uri", reference.expose());
    url
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::oidc::{Issuer, metadata};

    fn metadata() -> Metadata {
        let document = json!({
            "issuer": "https://op.test",
            "authorization_endpoint": "https://op.test/auth?tenant=1",
            "token_endpoint": "https://op.test/token",
            "jwks_uri": "https://op.test/jwks",
        });
        metadata::parse(document.to_string().as_bytes(), &Issuer("https://op.test".into())).unwrap()
    }

    fn pushed(auth: &ClientAuth) -> Vec<(String, String)> {
        let request = request(&Push {
            endpoint: &"https://op.test/par".parse().unwrap(),
            metadata: &metadata(),
            client_id: &ClientId("a client".into()),
            auth,
            url: &"https://op.test/auth?tenant=1&response_type=code&client_id=a+client&state=s+1"
                .parse()
                .unwrap(),
        })
        .unwrap();
        assert_eq!(
            (request.method(), request.uri().to_string().as_str()),
            (&http::Method::POST, "https://op.test/par")
        );
        url::form_urlencoded::parse(request.body()).into_owned().collect()
    }

    #[test]
    fn ar_11_the_whole_request_is_pushed_with_each_parameter_once() {
        let secret = || Secret::new("s".to_owned());
        let rows = [
            ("basic", ClientAuth::Basic(secret())),
            ("post", ClientAuth::Post(secret())),
            ("assertion", ClientAuth::Assertion(secret())),
            ("none", ClientAuth::None),
        ];
        for (name, auth) in rows {
            let fields = pushed(&auth);
            for wanted in [("response_type", "code"), ("client_id", "a client"), ("state", "s 1")] {
                let found: Vec<_> = fields.iter().filter(|(found, _)| found == wanted.0).collect();
                assert_eq!(found.len(), 1, "{name} {wanted:?}");
                assert_eq!(found[0].1, wanted.1, "{name}");
            }
            assert!(fields.iter().all(|(found, _)| found != "tenant"), "{name}: that is the endpoint's own");
        }
    }

    #[test]
    fn ar_11_the_browser_carries_client_and_reference_alone() {
        let reference = Secret::new("urn:ietf:params:oauth:request_uri:a&b".to_owned());
        let url = authorization_url(&metadata(), &ClientId("a client".into()), &reference);
        let wanted = "https://op.test/auth?tenant=1&client_id=a+client&request_uri=urn%3Aietf%3Aparams%3Aoauth%3Arequest_uri%3Aa%26b";
        assert_eq!(url.as_str(), wanted);
    }

    fn answer(status: u16, content_type: &str, body: &Value) -> http::Response<bytes::Bytes> {
        let answer = http::Response::builder().status(status).header("content-type", content_type);
        answer.body(bytes::Bytes::from(body.to_string())).unwrap()
    }

    #[test]
    fn a_reference_is_read() {
        let body = json!({ "request_uri": "urn:x:1", "expires_in": 60 });
        let reference = response(&answer(201, "application/json;charset=utf-8", &body)).unwrap();
        assert_eq!(reference.expose(), "urn:x:1");
        assert_eq!(format!("{reference:?}"), "[redacted]");
    }

    #[test]
    fn all_other_answers_are_refused() {
        let json_type = "application/json";
        let good = json!({ "request_uri": "urn:x:1", "expires_in": 60 });
        let malformed = [
            ("200", answer(200, json_type, &good)),
            ("302", answer(302, json_type, &good)),
            ("HTML", answer(201, "text/html", &good)),
            ("an array", answer(201, json_type, &json!([good]))),
            ("no reference", answer(201, json_type, &json!({}))),
            ("an empty one", answer(201, json_type, &json!({ "request_uri": "" }))),
            ("a number", answer(201, json_type, &json!({ "request_uri": 5 }))),
            ("a line break", answer(201, json_type, &json!({ "request_uri": "urn:x\r\nX: y" }))),
            ("too long", answer(201, json_type, &json!({ "request_uri": "x".repeat(513) }))),
        ];
        for (name, answer) in malformed {
            assert!(matches!(response(&answer), Err(PushError::Malformed(_))), "{name}");
        }
        let refused =
            answer(400, json_type, &json!({ "error": "invalid_request", "request_uri": "urn:x:1" }));
        let wanted = PushError::Refused { status: 400, error: "invalid_request".to_owned() };
        assert_eq!(response(&refused).unwrap_err(), wanted);
        let down = response(&answer(503, json_type, &good)).unwrap_err();
        assert_eq!(down, PushError::Unavailable { status: 503 });
    }
}
