//! `GET frontchannel_logout?iss=&sid=`: a page of the provider's, in a frame, tells that somebody signed
//! out (OpenID Connect Front-Channel Logout 1.0, 2 and 3).
//!
//! Off until a provider has `frontchannel_logout = true`. Our cookies are `SameSite=Lax` and never reach a
//! frame of another site, so nothing but issuer and session id says whose session ends: whoever knows
//! both can end it. No token is revoked for it, and no sign-in under way is held up (FC-1).

use http::StatusCode;
use url::{Url, form_urlencoded};

use super::Call;
use crate::gateway::Refusal;
use crate::gateway::limits::Kind;
use crate::idp::Provider;
use crate::oidc::Issuer;
use crate::web::Reply;

/// What the page was called with.
struct Named {
    issuer: Issuer,
    sid: String,
}

/// Ends the session that is named. The page is the same whether there was one or not (FC-2).
pub(super) async fn answer(call: &Call<'_>) -> Result<Reply, Refusal> {
    let shared = call.gateway.shared();
    if !shared.providers.iter().any(|provider| is_on(provider)) {
        return Err(Refusal::NoRoute);
    }
    call.check_failures(Kind::FrontLogout).await?;
    let Some((provider, Named { issuer, sid })) = named(call) else {
        call.count_failure(Kind::FrontLogout).await;
        return Err(Refusal::BadRequest);
    };
    let ended = call.gateway.end_named(&issuer, &sid).await?;
    if ended == 0 {
        call.count_failure(Kind::FrontLogout).await;
    } else {
        let provider = &provider.settings().id.0;
        shared.events.logout_heard(&call.request.id, provider, "front-channel", ended);
    }
    Ok(Reply::framed(StatusCode::OK, &origin(&issuer)))
}

fn is_on(provider: &Provider) -> bool {
    provider.settings().frontchannel_logout
}

/// FC-1: both parameters, each once, the issuer one of ours. Entries that share an issuer must all have it
/// switched on: the session does not say which of them a page is for.
fn named<'a>(call: &Call<'a>) -> Option<(&'a Provider, Named)> {
    let (issuer, sid) = (Issuer(once(call, "iss")?.into()), once(call, "sid")?);
    let providers = call.gateway.shared().providers.iter();
    let mut ours = providers.filter(|provider| provider.settings().issuer == issuer).peekable();
    let first = ours.peek().copied()?;
    ours.all(|provider| is_on(provider)).then_some((first, Named { issuer, sid }))
}

/// The value of a parameter that stands exactly once and is not empty.
fn once(call: &Call<'_>, name: &str) -> Option<String> {
    let query = call.request.target.query()?;
    let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name);
    match (values.next(), values.next()) {
        (Some((_, value)), None) if !value.is_empty() => Some(value.into_owned()),
        (None | Some(_), _) => None,
    }
}

/// Who may show the page in a frame.
fn origin(issuer: &Issuer) -> String {
    Url::parse(&issuer.0).map_or_else(|_| String::new(), |url| url.origin().ascii_serialization())
}
