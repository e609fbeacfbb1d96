//! A refresh at the provider, in steps: what comes of each decides whether the token is spent.

use super::jwks::Origin;
use super::transport::TransportError;
use super::{Provider, SignInError, Unavailable};
use crate::oidc::TokenError;
use crate::oidc::client_auth::ClientAuth;
use crate::oidc::exchange::ExchangeError;
use crate::oidc::id_token::{self, ExpectedAgain};
use crate::oidc::refresh::{self, FreshTokens, Refresh};
use crate::secret::Secret;
use crate::token::{Claims, KeySet};

/// Why there are no fresh tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// The refresh token is good no more (`invalid_grant`): the provider has ended it.
    #[error("the provider has ended the refresh token")]
    Over,
    /// The request was not sent, or the provider could not handle it: the token is not spent.
    #[error("{0}")]
    Later(String),
    /// The provider refused for another reason, of the client's: somebody has to look.
    #[error("{0}")]
    Refused(String),
    /// It was sent and no whole answer came: the token may be spent.
    #[error("{0}")]
    Lost(String),
}

impl Provider {
    /// Sends a refresh token, once.
    ///
    /// # Errors
    /// [`RefreshError`].
    pub async fn refresh(&self, token: &Secret<String>) -> Result<FreshTokens, RefreshError> {
        let inner = &self.inner;
        let metadata = self.metadata().await.map_err(|error| RefreshError::Later(error.reason))?;
        let request = |auth: &ClientAuth| {
            refresh::request(&Refresh {
                token_endpoint: &metadata.token_endpoint,
                client_id: &inner.settings.client_id,
                auth,
                refresh_token: token,
            })
        };
        let answer = inner.try_call_as_client("refresh", &metadata, request).await;
        let answer = answer.map_err(|error| unsent_or_lost(&error))?;
        refresh::response(&answer).map_err(|error| refused(&error))
    }

    /// The claims of the ID token that came with fresh tokens, verified; `None` where none came.
    ///
    /// # Errors
    /// [`Unavailable`] where the keys can't be had; within it [`TokenError`] where the token is refused,
    /// and the session has to end (RF-4).
    pub async fn verify_fresh(
        &self,
        fresh: &FreshTokens,
        first: &Claims,
    ) -> Result<Result<Option<Claims>, TokenError>, Unavailable> {
        let Some(raw) = &fresh.id_token else { return Ok(Ok(None)) };
        let trust = self.inner.settings.trust();
        let expected = ExpectedAgain { trust, first, access_token: &fresh.access_token };
        let verify = |keys: &KeySet| id_token::verify_again(raw, keys, &expected, self.inner.clock.now());
        Ok(self.inner.with_newest_keys(Origin::TokenEndpoint, verify).await?.map(Some))
    }

    /// What userinfo says of the subject now; `None` where it is not asked.
    ///
    /// # Errors
    /// [`SignInError`].
    pub async fn fresh_userinfo(
        &self,
        access_token: &Secret<String>,
        claims: &Claims,
    ) -> Result<Option<Claims>, SignInError> {
        let metadata = self.metadata().await?;
        self.inner.userinfo(&metadata, access_token, claims).await
    }
}

fn unsent_or_lost(error: &TransportError) -> RefreshError {
    match error {
        TransportError::Unreachable(_) => RefreshError::Later(error.to_string()),
        TransportError::Timeout(_)
        | TransportError::TooLarge(_)
        | TransportError::Failed(_)
        | TransportError::Interrupted => RefreshError::Lost(error.to_string()),
    }
}

fn refused(error: &ExchangeError) -> RefreshError {
    match error {
        over if refresh::is_over(over) => RefreshError::Over,
        ExchangeError::Unavailable { .. } => RefreshError::Later(error.to_string()),
        ExchangeError::Refused { .. } => RefreshError::Refused(error.to_string()),
        // A 200 that can't be read: whatever it held is lost.
        ExchangeError::Malformed(_) => RefreshError::Lost(error.to_string()),
    }
}
