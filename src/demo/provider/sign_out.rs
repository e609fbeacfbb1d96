//! The end-session endpoint (RP-Initiated Logout 1.0).

use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use url::Url;

use super::{COOKIE, Params, Provider, Shared, cookie, see_other};
use crate::demo::page::{self, Message, Owner};

/// Signs the browser out and sends it back to the address that the gateway
/// registered, and to no other.
pub(super) async fn end_session(
    State(provider): Shared,
    Query(params): Query<Params>,
    headers: HeaderMap,
) -> Response {
    if let Some(cookie) = cookie(&headers) {
        provider.ledger().end_session(cookie, provider.clock.now());
    }
    let mut response = match after_sign_out(&provider, &params) {
        Some(url) => see_other(url.as_str()),
        None => signed_out(),
    };
    let gone = format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0");
    if let Ok(gone) = HeaderValue::from_str(&gone) {
        response.headers_mut().append(header::SET_COOKIE, gone);
    }
    response
}

fn signed_out() -> Response {
    let content = Message { heading: "You are signed out", text: "Nobody is signed in here any more." };
    page::answer(StatusCode::OK, Owner::Provider, "Signed out", &content)
}

fn after_sign_out(provider: &Provider, params: &Params) -> Option<Url> {
    let wanted = params.get("post_logout_redirect_uri")?;
    let mut url = Url::parse(&provider.client.post_logout_redirect_uri).ok()?;
    if *wanted != provider.client.post_logout_redirect_uri {
        return None;
    }
    if let Some(state) = params.get("state") {
        url.query_pairs_mut().append_pair("state", state);
    }
    Some(url)
}
