//! The provider over HTTP: limits, discovery with back-off, the key set cache.

pub mod jwks;
pub mod transport;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::clock::{Clock, UnixTime};
use crate::oidc::authorize::LoginAttempt;
use crate::oidc::exchange::{ExchangeError, TokenResponse};
use crate::oidc::id_token::IdTokenError;
use crate::oidc::metadata::Metadata;
use crate::oidc::userinfo::UserinfoError;
use crate::oidc::{ClientId, Issuer, ProviderId};
use crate::secret::Secret;
use crate::telemetry::Events;
use crate::token::{Algorithm, Claims};

/// How the client authenticates, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthMethod {
    /// `client_secret_basic`.
    ClientSecretBasic,
    /// `client_secret_post`.
    ClientSecretPost,
    /// `none`.
    None,
}

/// A `[[provider]]`, checked.
#[derive(Clone, Debug)]
pub struct ProviderSettings {
    /// Its name: in paths and logs.
    pub id: ProviderId,
    /// What people read on the sign-in page.
    pub display_name: Arc<str>,
    /// The issuer, byte for byte as the provider says it.
    pub issuer: Issuer,
    /// The client.
    pub client_id: ClientId,
    /// The secret, if there is one.
    pub client_secret: Option<Secret<String>>,
    /// The method; `None`: `client_secret_basic` if the metadata lists it (or lists nothing), else
    /// `client_secret_post`; `none` without a secret.
    pub client_auth: Option<ClientAuthMethod>,
    /// Scopes, `openid` among them.
    pub scopes: Vec<Arc<str>>,
    /// Extra authorization parameters.
    pub authorization_params: Vec<(Arc<str>, Arc<str>)>,
    /// Pinned algorithms; RS256 by default.
    pub id_token_algorithms: Vec<Algorithm>,
    /// Whether userinfo is asked at sign-in.
    pub userinfo: bool,
    /// Clock skew tolerated, at most 60 s.
    pub leeway: Duration,
    /// CA certificates (PEM) that vouch for the provider, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The whole of one call to the provider; default 10 s.
    pub timeout: Duration,
    /// Path of its callback below the endpoint prefix: `callback` for the first provider of the
    /// configuration, `callback/ID` for the others (AR-7).
    pub callback_path: Arc<str>,
}

/// The provider can't be asked now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the provider is unavailable: {reason}")]
pub struct Unavailable {
    /// What happened, without URLs' queries, tokens or bodies.
    pub reason: String,
}

/// Why a sign-in failed after its callback was accepted.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The provider does not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The token endpoint refused or answered nonsense.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The ID token was refused.
    #[error(transparent)]
    IdToken(#[from] IdTokenError),
    /// Userinfo was refused.
    #[error(transparent)]
    Userinfo(#[from] UserinfoError),
}

/// What a completed sign-in brought.
#[derive(Debug)]
pub struct SignedIn {
    /// The tokens.
    pub tokens: TokenResponse,
    /// Claims of the ID token and, where it is asked, of userinfo.
    pub claims: Claims,
    /// When the access token ends.
    pub access_expires_at: Option<UnixTime>,
}

/// A provider: settings, what discovery said, keys. Shared by all requests.
#[derive(Debug)]
pub struct Provider {
    settings: ProviderSettings,
}

/// A provider that can't be set up at all (a CA file that can't be read, for example).
#[derive(Debug, thiserror::Error)]
#[error("provider {id}: {reason}")]
pub struct SetupError {
    /// Which.
    pub id: ProviderId,
    /// Why.
    pub reason: String,
}

impl Provider {
    /// Sets a provider up; nothing is fetched yet. HTTP runs on `runtime`.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(
        settings: ProviderSettings,
        runtime: Handle,
        clock: Clock,
        events: Events,
    ) -> Result<Arc<Self>, SetupError> {
        todo!()
    }

    /// Its settings.
    #[must_use]
    pub const fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    /// Starts discovery on the runtime: at once, again with back-off (1 s doubling to 60 s, with
    /// jitter) until it succeeds, then every hour. A failed refresh keeps the last good metadata.
    pub fn start_discovery(self: &Arc<Self>) {
        todo!()
    }

    /// The metadata, if discovery has succeeded once. When it has not, one attempt is made now
    /// (single flight, bounded by the timeout) so that a provider that is just back works at once.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn metadata(&self) -> Result<Arc<Metadata>, Unavailable> {
        todo!()
    }

    /// Whether discovery has succeeded (for `/readyz`'s body and the metrics).
    #[must_use]
    pub fn is_up(&self) -> bool {
        todo!()
    }

    /// Exchanges the code (once, never retried: TE-3), verifies the ID token (an unknown key
    /// refetches the key set once), asks userinfo if set, and merges the claims.
    ///
    /// # Errors
    /// [`SignInError`].
    pub async fn complete(
        &self,
        attempt: &LoginAttempt,
        code: &Secret<String>,
    ) -> Result<SignedIn, SignInError> {
        todo!()
    }
}
