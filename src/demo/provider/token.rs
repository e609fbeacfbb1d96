//! The token endpoint: a code and its PKCE verifier for an ID token and an access token.

use axum::Form;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::form_urlencoded;

use super::{Client, Params, Provider, Shared, json_answer};
use crate::demo::ledger::{Grant, TOKEN_LIFETIME};
use crate::random::{RandomError, random_token};
use crate::secret;
use crate::token::sign::SignError;

/// Why no tokens are given out (RFC 6749 5.2).
pub(super) enum TokenError {
    Client,
    Grant,
    Type,
    Internal,
}

impl IntoResponse for TokenError {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::Client => (StatusCode::UNAUTHORIZED, "invalid_client"),
            Self::Grant => (StatusCode::BAD_REQUEST, "invalid_grant"),
            Self::Type => (StatusCode::BAD_REQUEST, "unsupported_grant_type"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
        };
        json_answer(status, &json!({ "error": error }))
    }
}

impl From<RandomError> for TokenError {
    fn from(_: RandomError) -> Self {
        Self::Internal
    }
}

impl From<SignError> for TokenError {
    fn from(_: SignError) -> Self {
        Self::Internal
    }
}

pub(super) async fn exchange(
    State(provider): Shared,
    headers: HeaderMap,
    Form(form): Form<Params>,
) -> Result<Response, TokenError> {
    if !provider.client.is_shown_in(&headers) {
        return Err(TokenError::Client);
    }
    let param = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    if param("grant_type") != "authorization_code" {
        return Err(TokenError::Type);
    }
    let grant = provider.ledger().take_code(param("code"), provider.clock.now());
    let grant = grant.filter(|grant| grant.fits(param("redirect_uri"), param("code_verifier")));
    let grant = grant.ok_or(TokenError::Grant)?;
    Ok(json_answer(StatusCode::OK, &provider.tokens(&grant)?))
}

impl Client {
    /// `client_secret_basic`: id and secret form-urlencoded, then base64 (RFC 6749 2.3.1).
    fn is_shown_in(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(header::AUTHORIZATION).and_then(read_basic);
        shown.is_some_and(|(id, secret)| {
            id == self.id && secret::equal(secret.as_bytes(), self.secret.expose().as_bytes())
        })
    }
}

fn read_basic(field: &HeaderValue) -> Option<(String, String)> {
    let encoded = field.to_str().ok()?.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((form_decode(id), form_decode(secret)))
}

/// One form-urlencoded value.
fn form_decode(text: &str) -> String {
    form_urlencoded::parse(format!("v={text}").as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

impl Provider {
    fn tokens(&self, grant: &Grant) -> Result<Value, TokenError> {
        let access_token = random_token::<32>()?;
        let id_token = self.key.sign(&self.id_token(grant, &access_token))?;
        let put = self.ledger().put_token(access_token.clone(), grant.session.user, self.clock.now());
        put.or(Err(TokenError::Internal))?;
        Ok(json!({
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": TOKEN_LIFETIME.as_secs(),
            "id_token": id_token,
        }))
    }

    fn id_token(&self, grant: &Grant, access_token: &str) -> Value {
        let now = self.clock.now();
        let mut claims = json!({
            "iss": self.issuer,
            "aud": self.client.id,
            "sub": grant.session.user.sub,
            "sid": grant.session.sid,
            "iat": now.as_secs(),
            "exp": (now + TOKEN_LIFETIME).as_secs(),
            "auth_time": grant.session.since.as_secs(),
            "at_hash": at_hash(access_token),
        });
        if let (Some(nonce), Some(claims)) = (&grant.nonce, claims.as_object_mut()) {
            claims.insert("nonce".to_owned(), json!(nonce));
        }
        claims
    }
}

/// The left half of the token's SHA-256 (OpenID Connect Core 3.1.3.6).
fn at_hash(access_token: &str) -> String {
    let hash = Sha256::digest(access_token);
    URL_SAFE_NO_PAD.encode(hash.get(..16).unwrap_or_default())
}
