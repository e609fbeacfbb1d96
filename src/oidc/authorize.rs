//! The authorization request: URL and what has to be remembered of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use url::Url;

use super::metadata::Metadata;
use super::{ClientId, Issuer, ProviderId};
use crate::clock::UnixTime;
use crate::secret::Secret;
use crate::web::return_to::ReturnTo;

/// One trip to the provider; lives only in a sealed cookie (AR-3).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoginAttempt {
    /// Whom the person was sent to.
    pub provider: ProviderId,
    /// The issuer at that time.
    pub issuer: Issuer,
    /// The client at that time.
    pub client_id: ClientId,
    /// 128 bits or more, base64url.
    pub state: Secret<String>,
    /// 128 bits or more, base64url, at most 43 characters.
    pub nonce: Secret<String>,
    /// The PKCE verifier, 43 characters.
    pub verifier: Secret<String>,
    /// The redirect URI that was sent.
    pub redirect_uri: String,
    /// Where the person goes afterwards.
    pub return_to: ReturnTo,
    /// When it began.
    pub started_at: UnixTime,
}

/// What an authorization request is made of.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// The provider.
    pub provider: &'a ProviderId,
    /// Its metadata.
    pub metadata: &'a Metadata,
    /// The client.
    pub client_id: &'a ClientId,
    /// The scopes, `openid` among them (AR-1).
    pub scopes: &'a [Arc<str>],
    /// Extra parameters from the configuration; the gateway's own names in it are refused by `config` (AR-6).
    pub extra: &'a [(Arc<str>, Arc<str>)],
    /// The registered redirect URI on this host (AR-5).
    pub redirect_uri: &'a Url,
    /// Where the person goes afterwards.
    pub return_to: ReturnTo,
    /// Random bytes, 16 or more each in base64url, never used before.
    pub state: String,
    /// As `state`.
    pub nonce: String,
    /// 32 random bytes in base64url: 43 characters.
    pub verifier: String,
    /// Now.
    pub now: UnixTime,
}

/// Builds the authorization URL (`response_type=code`, PKCE S256, state, nonce) and the attempt.
#[must_use]
pub fn begin(start: Start<'_>) -> (Url, LoginAttempt) {
    todo!()
}
