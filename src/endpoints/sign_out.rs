//! `POST sign_out`, or `GET` from the same site: ends the session here, then at the provider.

use std::time::Duration;

use super::Call;
use super::signed_out::Farewell;
use crate::gateway::refusal::{Action, render_with};
use crate::gateway::{Gateway, Refusal, SetCookies, internal, redirect};
use crate::identity::Identity;
use crate::idp::Provider;
use crate::oidc::end_session;
use crate::oidc::revocation::Kind;
use crate::policy::Why;
use crate::random::random_token;
use crate::secret::Secret;
use crate::session::seal::seal_cookie;
use crate::session::{Purpose, Session};
use crate::store::StoreKey;
use crate::web::cookie::{self, Found};
use crate::web::{Reply, Request};

/// How long the provider may take with the person before the return is no longer recognised.
const RETURN_LIFETIME: Duration = Duration::from_mins(10);

/// Ends the session in the store first (RL-1), then the cookies, then at the provider. An outage of the store ends
/// nothing and says so: a person must not believe to be signed out who is not.
pub(super) async fn answer(call: &Call<'_>, cookies: &mut SetCookies) -> Result<Reply, Refusal> {
    let ended = end(call).await?;
    delete_cookies(call, cookies);
    let Some(session) = ended else { return done(call, cookies) };
    let Some(provider) = provider_of(call, &session) else { return done(call, cookies) };
    revoke(provider, &session);
    leave(call, provider, &session, cookies).await
}

/// RL-1: the refresh token goes back, which most providers take for the access tokens too; else the
/// access token.
pub(super) fn revoke(provider: &Provider, session: &Session) {
    match &session.refresh_token {
        Some(token) => provider.revoke(token.clone(), Kind::RefreshToken),
        None => provider.revoke(session.access_token.clone(), Kind::AccessToken),
    }
}

/// CS-2: the page for a sign-out that another site asked for, with a button to mean it.
pub(super) fn confirmation(gateway: &Gateway, request: &Request<'_>) -> Reply {
    let href = gateway.settings().paths.of("sign_out");
    let action = Action { label: "Sign out", href: &href };
    render_with(Refusal::CrossSite, request, gateway.settings().demo, Some(action))
}

/// Ends the session that the cookie names; `None` where there was none.
async fn end(call: &Call<'_>) -> Result<Option<Session>, Refusal> {
    let sessions = &call.gateway.shared().sessions;
    let id = match call.gateway.session_id(call.site, call.request) {
        Ok(id) => id,
        // Perhaps a session of another gateway, whose keys are not known here before the store is back.
        Err(Why::BadCredential) if sessions.is_store_down() => return Err(Refusal::StoreUnavailable),
        Err(_) => return Ok(None),
    };
    let key = StoreKey(id.store_key());
    let session = sessions.read(key).await?;
    sessions.end(key).await?;
    Ok(session.filter(|session| *session.host == *call.site.name))
}

/// Deletes the session cookie, every login attempt that the browser sent, and the count of its round trips:
/// who signs out had a session that worked (AR-14).
fn delete_cookies(call: &Call<'_>, cookies: &mut SetCookies) {
    let names = &call.site.cookies;
    cookies.delete(names.session(), call.site);
    if cookie::find(call.request.headers, names.trips()) != Found::Absent {
        cookies.delete(names.trips(), call.site);
    }
    let attempts = cookie::starting(call.request.headers, names.login_prefix());
    let mut attempts: Vec<&str> = attempts.map(|(name, _)| name).collect();
    attempts.sort_unstable();
    attempts.dedup();
    for name in attempts {
        cookies.delete(name, call.site);
    }
}

fn provider_of<'a>(call: &Call<'a>, session: &Session) -> Option<&'a Provider> {
    let providers = &call.gateway.shared().providers;
    let provider = providers.iter().find(|provider| {
        provider.settings().id == session.provider && provider.settings().issuer == session.issuer
    })?;
    // RL-2: a provider that is down never holds up the local sign-out.
    provider.is_up().then_some(provider)
}

/// On to the provider's `end_session_endpoint`, where it has one.
async fn leave(
    call: &Call<'_>,
    provider: &Provider,
    session: &Session,
    cookies: &mut SetCookies,
) -> Result<Reply, Refusal> {
    let metadata = provider.metadata().await.ok();
    let Some(endpoint) = metadata.as_ref().and_then(|metadata| metadata.end_session_endpoint.as_ref()) else {
        note(call, session, "local");
        return done(call, cookies);
    };
    let state = Secret::new(random_token::<16>().map_err(|error| internal(call.request, &error))?);
    remember(call, &state, cookies)?;
    let back = call.gateway.url(call.site, "signed_out")?;
    let client_id = &provider.settings().client_id;
    let url = end_session::url(endpoint, &session.id_token, client_id, &back, state.expose());
    note(call, session, "provider");
    redirect(url.as_str())
}

fn remember(call: &Call<'_>, state: &Secret<String>, cookies: &mut SetCookies) -> Result<(), Refusal> {
    let (name, site) = (call.site.cookies.sign_out(), call.site);
    let return_to = call.gateway.return_to(&call.parameter("rd").unwrap_or_default(), site);
    let plain = serde_json::to_vec(&Farewell { state: state.clone(), return_to })
        .map_err(|error| internal(call.request, &error))?;
    let keys = &call.gateway.shared().keys;
    let value = seal_cookie(keys, Purpose::SignOutCookie, name, &site.name, &plain)
        .map_err(|error| internal(call.request, &error))?;
    cookies.0.push(cookie::set(name, &value, site.cookies.secure(), Some(RETURN_LIFETIME)));
    Ok(())
}

/// Nothing to do at a provider: on to the page.
fn done(call: &Call<'_>, cookies: &mut SetCookies) -> Result<Reply, Refusal> {
    if call.parameter("rd").is_some() {
        remember(call, &Secret::new(String::new()), cookies)?;
    }
    redirect(&call.gateway.settings().paths.of("signed_out"))
}

fn note(call: &Call<'_>, session: &Session, kind: &'static str) {
    let events = &call.gateway.shared().events;
    let paths = &call.gateway.settings().reading.claim_paths;
    // As at sign-in. The configuration may ask for another claim by now.
    let user = Identity::from_claims(&session.claims, paths).map(|identity| identity.user);
    let user = user.as_deref().unwrap_or(&session.subject);
    events.signed_out(&call.request.id, &session.provider.0, user, kind, call.request.client);
}
