//! ID token validation, in the order of OpenID Connect Core 3.1.3.7.

use std::time::Duration;

use super::{ClientId, Issuer};
use crate::clock::UnixTime;
use crate::secret::Secret;
use crate::token::{Algorithm, Claims, KeySet};

/// What an ID token has to match.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    /// The configured issuer.
    pub issuer: &'a Issuer,
    /// The client.
    pub client_id: &'a ClientId,
    /// The pinned algorithms (ID-2).
    pub algorithms: &'a [Algorithm],
    /// The nonce that was sent (ID-11).
    pub nonce: &'a Secret<String>,
    /// The access token that came with it, for `at_hash` (ID-12).
    pub access_token: &'a Secret<String>,
    /// Clock skew that is tolerated, at most 60 s.
    pub leeway: Duration,
}

/// Why an ID token was refused.
#[derive(Debug, thiserror::Error)]
pub enum IdTokenError {
    /// No key of the set fits: the caller may fetch the key set once and try again (ID-4).
    #[error("no published key fits the ID token (kid {kid:?})")]
    UnknownKey {
        /// The token's key id, cut and cleaned.
        kid: Option<String>,
    },
    /// Everything else; the text names the rule that failed and never holds the token.
    #[error("{0}")]
    Rejected(String),
}

/// Verifies signature and claims (ID-1 to ID-15).
///
/// # Errors
/// [`IdTokenError`].
pub fn verify(
    raw: &Secret<String>,
    keys: &KeySet,
    expected: &Expected<'_>,
    now: UnixTime,
) -> Result<Claims, IdTokenError> {
    todo!()
}
