//! OpenID Connect's messages as data: requests are values that `idp::transport` sends, answers are
//! parsed from bytes. No I/O, no clock, no randomness of its own.

pub mod authorize;
pub mod callback;
pub mod client_auth;
pub mod end_session;
pub mod exchange;
pub mod id_token;
pub mod logout_token;
pub mod metadata;
pub mod pushed;
pub mod refresh;
pub mod revocation;
pub mod step_up;
pub mod userinfo;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::secret::Secret;
use crate::token::rules::{self, RuleError};
use crate::token::verify::{Verified, VerifyError};
use crate::token::{self, Algorithm, Claims, KeySet, printable};
use crate::web::media_type;

/// The issuer identifier of a provider, compared byte for byte (ID-6).
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Issuer(pub Arc<str>);

/// The client identifier at a provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ClientId(pub Arc<str>);

/// The name of a `[[provider]]` in the configuration: `[a-z0-9-]{1,32}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ProviderId(pub Arc<str>);

/// Whose tokens count, whom they have to be for, and what they may be signed with: what every token of a
/// provider has to match, whatever it says.
#[derive(Clone, Copy, Debug)]
pub struct Trust<'a> {
    /// The configured issuer.
    pub issuer: &'a Issuer,
    /// The client.
    pub client_id: &'a ClientId,
    /// Other audiences that may stand beside it (ID-7).
    pub trusted_audiences: &'a [Arc<str>],
    /// The pinned algorithms (ID-2, BC-2, UI-2).
    pub algorithms: &'a [Algorithm],
    /// Clock skew that is tolerated, at most 60 s.
    pub leeway: Duration,
}

impl Trust<'_> {
    /// Verifies the signature; until that holds, claims are only what somebody wrote.
    fn verified(&self, raw: &Secret<String>, keys: &KeySet) -> Result<Verified, VerifyError> {
        token::verify::verify(raw.expose(), keys, self.algorithms)
    }

    /// ID-6, ID-7: of this issuer, for this client.
    fn check_parties(&self, claims: &Claims) -> Result<(), RuleError> {
        rules::issuer(claims, &self.issuer.0)?;
        rules::audience(claims, &self.client_id.0, self.trusted_audiences)
    }
}

/// Why an ID token or a logout token was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No key of the set fits: the caller may fetch the key set once and try again (ID-4).
    #[error("no published key fits the token (kid {kid:?})")]
    UnknownKey {
        /// The token's key id, cut and cleaned.
        kid: Option<String>,
    },
    /// The times in it and this machine's clock don't go together.
    #[error("{0}")]
    Clock(String),
    /// Everything else; the text names the rule that failed and never holds the token.
    #[error("{0}")]
    Rejected(String),
}

impl From<VerifyError> for TokenError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::NoKey { kid } => Self::UnknownKey { kid },
            VerifyError::Malformed(_)
            | VerifyError::Algorithm(_)
            | VerifyError::Signature
            | VerifyError::Payload => Self::Rejected(error.to_string()),
        }
    }
}

impl From<RuleError> for TokenError {
    fn from(error: RuleError) -> Self {
        let is_of_time = matches!(
            error,
            RuleError::Expired
                | RuleError::IssuedInFuture
                | RuleError::IssuedTooLongAgo
                | RuleError::NotYetValid
        );
        if is_of_time { Self::Clock(error.to_string()) } else { Self::Rejected(error.to_string()) }
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An OAuth error code from outside: at most 64 characters of `[a-z_]`, else `unknown`.
fn error_code(text: &str) -> String {
    let known_shape = !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if known_shape { text.to_owned() } else { "unknown".to_owned() }
}

/// The OAuth error in the body of an answer (RFC 6749 5.2), cleaned.
fn error_in(answer: &http::Response<bytes::Bytes>) -> String {
    let body = Claims::parse(answer.body()).unwrap_or_default();
    error_code(body.string("error").ok().flatten().unwrap_or_default())
}

/// Whether an answer's content type is `application/json`, whatever its parameters.
fn is_json(answer: &http::Response<bytes::Bytes>) -> bool {
    media_type(answer.headers()).is_some_and(|media_type| media_type == "application/json")
}
