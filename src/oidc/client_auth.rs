//! How the client shows who it is at the token, revocation and pushed-request endpoints: in exactly one way
//! for each request (TE-2, RFC 6749 2.3).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde_json::json;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::ClientId;
use crate::clock::UnixTime;
use crate::secret::Secret;
use crate::token::sign::{SignError, SigningKey, sign_with_secret};

/// How long an assertion lives (TE-2: at most 60 s). It is made for one request and sent at once.
const ASSERTION_LIFETIME: Duration = Duration::from_mins(1);

/// RFC 7523 2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What one request shows.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// `client_secret_basic`: id and secret form-urlencoded, then base64 (RFC 6749 2.3.1).
    Basic(Secret<String>),
    /// `client_secret_post`.
    Post(Secret<String>),
    /// `client_secret_jwt` and `private_key_jwt`: an assertion made for this request ([`Assertion::sign`]).
    Assertion(Secret<String>),
    /// `none`: a public client; PKCE alone.
    None,
}

impl ClientAuth {
    /// Whether it puts `client_id` into the form.
    pub(super) const fn is_in_form(&self) -> bool {
        match self {
            Self::Basic(_) => false,
            Self::Post(_) | Self::Assertion(_) | Self::None => true,
        }
    }
}

/// What an assertion is signed with.
#[derive(Clone, Copy, Debug)]
pub enum Signer<'a> {
    /// `client_secret_jwt`: HS256.
    Secret(&'a Secret<String>),
    /// `private_key_jwt`.
    Key(&'a SigningKey),
}

/// A client assertion (RFC 7523 3, Core 9), for one request.
#[derive(Clone, Debug)]
pub struct Assertion<'a> {
    /// The client: issuer and subject.
    pub client_id: &'a ClientId,
    /// Whom it is for: the provider's issuer identifier and nobody else. A token endpoint as audience, which
    /// RFC 7523 allowed, is what let one provider use a client's assertion at another one whose endpoint
    /// it had claimed for itself (the update of RFC 7523, and the disclosure of the OpenID Foundation of
    /// February 2025). Some providers still know their token endpoint only; for them it is a setting.
    pub audience: &'a str,
    /// Never used before.
    pub jti: String,
    /// Now.
    pub now: UnixTime,
}

impl Assertion<'_> {
    /// The assertion, signed.
    ///
    /// Its `typ` is `JWT`: verifiers that are older than `client-authentication+jwt` know no other.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(&self, signer: Signer<'_>) -> Result<Secret<String>, SignError> {
        let claims = json!({
            "iss": self.client_id.0,
            "sub": self.client_id.0,
            "aud": self.audience,
            "jti": self.jti,
            "iat": self.now.as_secs(),
            "exp": (self.now + ASSERTION_LIFETIME).as_secs(),
        });
        let token = match signer {
            Signer::Secret(secret) => sign_with_secret(secret, &claims),
            Signer::Key(key) => key.sign(&claims),
        };
        token.map(Secret::new)
    }
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
        ClientAuth::Assertion(assertion) => {
            form.append_pair("client_id", &client_id.0);
            form.append_pair("client_assertion_type", ASSERTION_TYPE);
            form.append_pair("client_assertion", assertion.expose());
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

/// RFC 6749 5.2: whether an error refuses the client, not what it asked for.
#[must_use]
pub fn is_about_the_client(error: &str) -> bool {
    matches!(error, "invalid_client" | "unauthorized_client")
}

/// Whether an answer says that it is the client that was not recognised, and nothing else
/// (RFC 6749 5.2: 400 or 401 with `invalid_client`).
#[must_use]
pub fn is_client_refused(answer: &http::Response<bytes::Bytes>) -> bool {
    let status = answer.status();
    let refused = status == StatusCode::BAD_REQUEST || status == StatusCode::UNAUTHORIZED;
    refused && super::error_in(answer) == "invalid_client"
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

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::Value;

    use super::*;
    use crate::token::verify::verify;
    use crate::token::{Algorithm, KeySet};

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

    fn sent(client_id: &str, auth: &ClientAuth) -> http::Request<Vec<u8>> {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code");
        let endpoint = "https://op.test/token?tenant=1".parse().unwrap();
        authenticated(&endpoint, &ClientId(client_id.into()), auth, form).unwrap()
    }

    fn fields(request: &http::Request<Vec<u8>>) -> Vec<(String, String)> {
        url::form_urlencoded::parse(request.body()).into_owned().collect()
    }

    fn names(request: &http::Request<Vec<u8>>) -> Vec<String> {
        fields(request).into_iter().map(|(name, _)| name).collect()
    }

    fn assertion<'a>(client_id: &'a ClientId, jti: &str) -> Assertion<'a> {
        Assertion { client_id, audience: "https://op.test", jti: jti.to_owned(), now: NOW }
    }

    fn claims(token: &Secret<String>) -> Value {
        let payload = token.expose().split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
    }

    #[test]
    fn tk_137_basic_form_encodes_both_parts_before_base64() {
        let request = sent("a:b", &ClientAuth::Basic(Secret::new(":%+ é/=".to_owned())));
        let header = request.headers()[AUTHORIZATION].to_str().unwrap();
        let pair = STANDARD.decode(header.strip_prefix("Basic ").unwrap()).unwrap();
        assert_eq!(pair, b"a%3Ab:%3A%25%2B+%C3%A9%2F%3D", "TK-137");
        assert!(request.headers()[AUTHORIZATION].is_sensitive());
        assert_eq!(names(&request), ["grant_type"], "TE-2: one way only");
    }

    #[test]
    fn what_is_in_the_form_is_not_in_the_header() {
        let secret = || Secret::new(":%+ é".to_owned());
        let rows: [(&str, ClientAuth, &[&str]); 3] = [
            ("post", ClientAuth::Post(secret()), &["grant_type", "client_id", "client_secret"]),
            (
                "assertion",
                ClientAuth::Assertion(secret()),
                &["grant_type", "client_id", "client_assertion_type", "client_assertion"],
            ),
            ("none", ClientAuth::None, &["grant_type", "client_id"]),
        ];
        for (name, auth, wanted) in rows {
            let request = sent("client", &auth);
            assert_eq!(names(&request), wanted, "{name}");
            assert!(!request.headers().contains_key(AUTHORIZATION), "{name}");
        }
        let post = sent("client", &ClientAuth::Post(secret()));
        assert_eq!(fields(&post)[2].1, ":%+ é");
        let assertion = sent("client", &ClientAuth::Assertion(secret()));
        assert_eq!(fields(&assertion)[2].1, "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    }

    #[test]
    fn an_assertion_names_the_client_the_issuer_and_one_minute() {
        let client = ClientId("client".into());
        let key = SigningKey::generate(Algorithm::PS256, Some("k1")).unwrap();
        let signed = assertion(&client, "j1").sign(Signer::Key(&key)).unwrap();
        let set = json!({ "keys": [key.public_jwk().unwrap()] }).to_string();
        let verified =
            verify(signed.expose(), &KeySet::parse(set.as_bytes()).unwrap(), &[Algorithm::PS256]).unwrap();
        assert_eq!(verified.typ.as_deref(), Some("JWT"));
        let wanted = json!({
            "iss": "client", "sub": "client", "aud": "https://op.test", "jti": "j1",
            "iat": NOW.as_secs(), "exp": NOW.as_secs() + 60,
        });
        assert_eq!(claims(&signed), wanted, "TE-2");
        let by_secret = assertion(&client, "j1").sign(Signer::Secret(&Secret::new("s".repeat(32)))).unwrap();
        assert_eq!(claims(&by_secret), wanted);
        assert!(!format!("{by_secret:?}").contains('.'), "an assertion never prints itself");
    }

    #[test]
    fn only_invalid_client_says_that_the_client_was_refused() {
        let rows = [
            (401, r#"{"error":"invalid_client"}"#, true),
            (400, r#"{"error":"invalid_client"}"#, true),
            (403, r#"{"error":"invalid_client"}"#, false),
            (500, r#"{"error":"invalid_client"}"#, false),
            (200, r#"{"error":"invalid_client"}"#, false),
            (401, r#"{"error":"invalid_grant"}"#, false),
            (401, r#"{"error":["invalid_client"]}"#, false),
            (401, "invalid_client", false),
            (401, "", false),
        ];
        for (status, body, wanted) in rows {
            let answer = http::Response::builder().status(status).body(bytes::Bytes::from(body)).unwrap();
            assert_eq!(is_client_refused(&answer), wanted, "{status} {body}");
        }
    }
}
