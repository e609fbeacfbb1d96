//! The token request and its answer (RFC 6749 4.1.3, 5.1; TE-2 to TE-5).

use std::time::Duration;

use url::Url;

use super::ClientId;
use crate::secret::Secret;

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
/// # Errors
/// When the endpoint can't stand in a request.
pub fn request(exchange: &CodeExchange<'_>) -> Result<http::Request<Vec<u8>>, http::Error> {
    todo!()
}

/// Reads the answer (TE-4): status 200, JSON content type, an object with string `access_token` and
/// `id_token`, `token_type` equal to Bearer in any case.
///
/// # Errors
/// [`ExchangeError`].
pub fn response(answer: &http::Response<bytes::Bytes>) -> Result<TokenResponse, ExchangeError> {
    todo!()
}
