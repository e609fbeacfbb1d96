//! `POST backchannel_logout`: the provider tells that somebody signed out (OpenID Connect Back-Channel
//! Logout 1.0, 2.5 to 2.8).
//!
//! Answers exactly 200 or 400 (BC-9) to what it reads. No cookie, no Origin and no redirect play a part (BC-10).

use std::sync::Arc;

use http::StatusCode;
use url::form_urlencoded;

use super::Call;
use crate::gateway::Refusal;
use crate::gateway::limits::Kind;
use crate::gateway::logout::Heard;
use crate::idp::{LogoutError, Provider};
use crate::oidc::logout_token::{self, LogoutToken};
use crate::secret::Secret;
use crate::web::{FORM, Reply, media_type};

/// Why a logout was not carried out; for the log, never for the caller.
enum Refused {
    /// The call is wrong.
    Call(String),
    /// The call may be right: store or provider did not answer.
    Outage(String),
}

/// Ends the sessions that the token names.
pub(super) async fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    call.check_failures(Kind::BackLogout).await?;
    let detail = match hear(call).await {
        Ok(()) => return Ok(Reply::empty(StatusCode::OK)),
        Err(Refused::Call(detail)) => {
            call.count_failure(Kind::BackLogout).await;
            detail
        }
        Err(Refused::Outage(detail)) => detail,
    };
    tracing::warn!(
        event = "backchannel_logout_refused",
        request_id = %call.request.id,
        client = %call.request.client,
        detail,
    );
    // RFC 6749 5.2, and nothing that helps to guess (BC-9).
    let body = serde_json::json!({ "error": "invalid_request" });
    Ok(Reply::json(StatusCode::BAD_REQUEST, &body))
}

async fn hear(call: &Call<'_>) -> Result<(), Refused> {
    let raw = logout_token_of(call)?;
    let (provider, token) = verify(call, &raw).await?;
    let settings = provider.settings();
    let heard = call.gateway.hear(&settings.issuer, &token).await;
    match heard.map_err(|error| Refused::Outage(error.to_string()))? {
        Heard::Replayed => Err(Refused::Call("the token was used before".to_owned())),
        Heard::Ended(sessions) => {
            let events = &call.gateway.shared().events;
            events.logout_heard(&call.request.id, &settings.id.0, "back-channel", sessions);
            Ok(())
        }
    }
}

/// BC-1: exactly one `logout_token`, in a form, in the body; other parameters are ignored.
fn logout_token_of(call: &Call<'_>) -> Result<Secret<String>, Refused> {
    if media_type(call.request.headers).as_deref() != Some(FORM) {
        return Err(Refused::Call("the body is not a form".to_owned()));
    }
    let mut tokens = form_urlencoded::parse(call.body).filter(|(name, _)| name == "logout_token");
    match (tokens.next(), tokens.next()) {
        (Some((_, token)), None) => Ok(Secret::new(token.into_owned())),
        (None, _) => Err(Refused::Call("no logout_token in the body".to_owned())),
        (Some(_), Some(_)) => Err(Refused::Call("more than one logout_token in the body".to_owned())),
    }
}

/// Tries every provider of the issuer that the token names: two entries may share an issuer under two
/// client ids. The issuer only chooses whose keys are tried.
async fn verify<'a>(
    call: &Call<'a>,
    raw: &Secret<String>,
) -> Result<(&'a Arc<Provider>, LogoutToken), Refused> {
    let issuer = logout_token::claimed_issuer(raw.expose());
    let issuer = issuer.ok_or_else(|| Refused::Call("the token names no issuer".to_owned()))?;
    let mut refused = Refused::Call("no provider is configured for the token's issuer".to_owned());
    let providers = &call.gateway.shared().providers;
    for provider in providers.iter().filter(|provider| provider.settings().issuer == issuer) {
        match provider.verify_logout_token(raw).await {
            Ok(token) => return Ok((provider, token)),
            Err(LogoutError::Unavailable(error)) => refused = Refused::Outage(error.to_string()),
            Err(LogoutError::Token(error)) => refused = Refused::Call(error.to_string()),
        }
    }
    Err(refused)
}
