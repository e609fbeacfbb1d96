//! The `UserInfo` request and answer (OpenID Connect Core 5.3, UI-1 to UI-3).

use url::Url;

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
    todo!()
}

/// Reads the answer and compares `sub` with that of the ID token.
///
/// # Errors
/// [`UserinfoError`].
pub fn response(answer: &http::Response<bytes::Bytes>, sub: &str) -> Result<Claims, UserinfoError> {
    todo!()
}
