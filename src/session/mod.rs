//! What the gateway remembers of somebody who signed in, and how it is sealed.

pub mod cookie;
pub mod key_ring;
pub mod lifetime;
pub mod made_keys;
pub mod refresh;
pub mod seal;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::clock::UnixTime;
use crate::oidc::{Issuer, ProviderId};
use crate::secret::Secret;
use crate::token::Claims;

pub use key_ring::{Key, KeyId, KeyRing, Purpose};
pub use lifetime::{Lifetime, Limits, RouteLimits};

/// The id of a session: 256 random bits. It stands in the sealed cookie only; stores see its hash.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionId(Secret<Vec<u8>>);

impl SessionId {
    /// Bytes in an id.
    pub const LEN: usize = 32;

    /// An id of fresh random bytes.
    #[must_use]
    pub fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(Secret::new(bytes.to_vec()))
    }

    /// The id's bytes, [`SessionId::LEN`] of them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }

    /// Under what a store keeps the session: SHA-256 over a label and the id (SC-1).
    #[must_use]
    pub fn store_key(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"portcullis session v1\0");
        hash.update(self.expose());
        hash.finalize().into()
    }
}

impl std::fmt::Debug for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[session id]")
    }
}

/// A session as it is sealed into the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    /// The provider's name in the configuration.
    pub provider: ProviderId,
    /// Who issued the ID token.
    pub issuer: Issuer,
    /// The subject at that issuer.
    pub subject: Arc<str>,
    /// The provider's session, if the ID token named it.
    pub sid: Option<Arc<str>>,
    /// The host (canonical name) that the session belongs to.
    pub host: Arc<str>,
    /// Claims of the ID token, and those of userinfo that it had not.
    pub claims: Claims,
    /// The ID token, as issued: the hint at sign-out.
    pub id_token: Secret<String>,
    /// The access token.
    pub access_token: Secret<String>,
    /// When the access token ends, if the provider said.
    pub access_expires_at: Option<UnixTime>,
    /// The refresh token.
    pub refresh_token: Option<Secret<String>>,
    /// When the tokens were last refreshed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refreshed_at: Option<UnixTime>,
    /// When the refresh token was sent, while it is not known what became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_sent_at: Option<UnixTime>,
    /// When the person signed in.
    pub created_at: UnixTime,
    /// When the session was last used, to a tenth of the shortest idle timeout.
    pub last_seen: UnixTime,
    /// The longest time between two uses.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub longest_idle: Duration,
    /// From where the person signed in.
    pub client: Option<IpAddr>,
    /// With which browser, at most 256 characters.
    pub user_agent: Option<Arc<str>>,
}
