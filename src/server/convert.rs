//! Between Pingora's headers and the gateway's: what an upstream is sent, what a client is sent.
//!
//! Owns the rules on headers that pass through: which of a client's never reach an upstream (IH-1,
//! IH-2, IH-9, SC-14), which of an upstream's never reach a client (SC-14), what is set anew. Does no
//! I/O.

use std::mem;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue,
    SET_COOKIE, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{ErrorType, OrErr as _, Result};

use super::life::Client;
use crate::gateway::ForwardPlan;
use crate::identity::headers::{ACCESS_TOKEN_HEADER, HeaderTable};
use crate::session::cookie::is_ours;
use crate::web::caching::{self, Change};
use crate::web::client_addr::is_proxy_header;
use crate::web::{Host, Reply, RequestId, Target, cookie};

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// How many the gateway sets besides those that tell who is asking: the four above and the token's.
const OWN_HEADERS: usize = 5;

/// What a request to an upstream is made of.
pub(super) struct Forwarded<'a> {
    /// Fields of the client that go no further.
    pub(super) one_hop: &'a [HeaderName],
    pub(super) websocket: bool,
    pub(super) plan: &'a ForwardPlan,
    pub(super) id: RequestId,
    pub(super) target: &'a Target,
    pub(super) host: &'a Host,
    pub(super) client: &'a Client,
    /// The upstream's own name.
    pub(super) upstream_host: &'a HeaderValue,
    pub(super) headers: &'a HeaderTable,
}

/// The head of an answer that the gateway gives itself.
///
/// # Errors
/// When Pingora can't hold it.
pub(super) fn answer(reply: &Reply) -> Result<Box<ResponseHeader>> {
    let mut head = ResponseHeader::build(reply.status, Some(reply.headers.len() + 3))?;
    for (name, value) in &reply.headers {
        head.append_header(name, value)?;
    }
    if !reply.status.is_informational() && reply.status != http::StatusCode::NO_CONTENT {
        head.insert_header(CONTENT_LENGTH, reply.body.len())?;
    }
    Ok(Box::new(head))
}

/// The fields of a request, which has none then.
pub(super) fn take_fields(request: &mut RequestHeader) -> HeaderMap {
    replace_fields(request, HeaderMap::new())
}

/// Gives a request other fields. Pingora's map of how a client spelled their names goes with the old ones: they
/// go on in lower case, as those of HTTP/2 clients do (docs/decisions/0007).
fn replace_fields(request: &mut RequestHeader, fields: HeaderMap) -> HeaderMap {
    let (empty, ()) = http::Request::new(()).into_parts();
    let mut parts = Parts::from(mem::replace(request, empty.into()));
    let replaced = mem::replace(&mut parts.headers, fields);
    *request = parts.into();
    replaced
}

/// Makes of Pingora's request, which has the frame of the client's, the one that the upstream gets. What is set
/// here nobody can have removed (IH-4). `fields` are the client's.
///
/// # Errors
/// When a value can't stand in a header, or Pingora can't hold the target.
pub(super) fn to_upstream(
    request: &mut RequestHeader,
    mut fields: HeaderMap,
    forwarded: &Forwarded<'_>,
) -> Result<()> {
    change_fields(&mut fields, forwarded)?;
    replace_fields(request, fields);
    set_target(request, forwarded.target)
}

fn change_fields(headers: &mut HeaderMap, forwarded: &Forwarded<'_>) -> Result<()> {
    let plan = forwarded.plan;
    strip(headers, forwarded.headers);
    for name in forwarded.one_hop {
        headers.remove(name);
    }
    if !plan.route().forward_authorization {
        headers.remove(AUTHORIZATION);
    }
    keep_foreign_cookies(headers);
    let identity = plan.session().map_or(&[][..], |session| &session.headers);
    // Growing step by step would sort everything in anew each time.
    headers.reserve(OWN_HEADERS + identity.len());
    if forwarded.websocket {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    set_host(headers, forwarded)?;
    set_forwarded(headers, forwarded)?;
    headers.insert(X_REQUEST_ID, value(forwarded.id.to_string())?);
    for (name, value) in identity {
        headers.insert(name, value.clone());
    }
    if let Some(token) = plan.access_token() {
        headers.insert(ACCESS_TOKEN_HEADER, token.clone());
    }
    Ok(())
}

/// Takes from a client's fields what no client may say: on every path, for everybody, also where the gateway
/// sets none itself (IH-1, IH-2, IH-9).
fn strip(headers: &mut HeaderMap, table: &HeaderTable) {
    let is_stripped = |name: &HeaderName| table.is_stripped(name.as_str()) || is_proxy_header(name.as_str());
    // Most requests have none of them.
    if !headers.keys().any(is_stripped) {
        return;
    }
    let stripped: Vec<_> = headers.keys().filter(|name| is_stripped(name)).cloned().collect();
    for name in stripped {
        headers.remove(name);
    }
}

/// SC-14: the gateway's cookies stay with the gateway.
fn keep_foreign_cookies(headers: &mut HeaderMap) {
    match cookie::without(headers, is_ours) {
        Some(kept) => drop(headers.insert(COOKIE, kept)),
        None => drop(headers.remove(COOKIE)),
    }
}

/// PP-1: what was matched is what is sent.
fn set_target(request: &mut RequestHeader, target: &Target) -> Result<()> {
    if request.raw_path() == target.as_str().as_bytes() {
        return Ok(());
    }
    request.set_raw_path(target.as_str().as_bytes())
}

fn set_host(headers: &mut HeaderMap, forwarded: &Forwarded<'_>) -> Result<()> {
    if !forwarded.plan.route().keep_host {
        headers.insert(HOST, forwarded.upstream_host.clone());
        return Ok(());
    }
    let as_sent = headers.get(HOST).map(HeaderValue::as_bytes);
    if !as_sent.is_some_and(|sent| is_canonical(sent, forwarded.host)) {
        headers.insert(HOST, value(forwarded.host.to_string())?);
    }
    Ok(())
}

/// Whether a `Host` field is, byte for byte, what [`Host`] would be written as.
fn is_canonical(sent: &[u8], host: &Host) -> bool {
    let Some(rest) = sent.strip_prefix(host.name().as_bytes()) else { return false };
    match (rest.strip_prefix(b":"), host.port()) {
        (None, None) => rest.is_empty(),
        (Some(digits), Some(_)) => !digits.starts_with(b"0"),
        _ => false,
    }
}

fn set_forwarded(headers: &mut HeaderMap, forwarded: &Forwarded<'_>) -> Result<()> {
    headers.insert(X_FORWARDED_FOR, forwarded.client.forwarded_for.clone());
    let (proto, host) = match forwarded.plan.site() {
        Some(site) => (site.forwarded_proto.clone(), site.forwarded_host.clone()),
        None => (scheme(forwarded.client), value(forwarded.host.to_string())?),
    };
    headers.insert(X_FORWARDED_PROTO, proto);
    headers.insert(X_FORWARDED_HOST, host);
    Ok(())
}

fn scheme(client: &Client) -> HeaderValue {
    HeaderValue::from_static(if client.tls { "https" } else { "http" })
}

fn value(text: String) -> Result<HeaderValue> {
    HeaderValue::try_from(text).or_err(ErrorType::InvalidHTTPHeader, "a value can't stand in a header")
}

/// Makes an upstream's answer the one that the client gets.
///
/// An upstream can't set the gateway's cookies, nor have a browser delete them (SC-14). An answer to
/// somebody known is for that browser alone, whatever the upstream says of caching (SC-15): only so may
/// a session's cookie that was sealed anew go with it.
///
/// # Errors
/// When Pingora can't hold it.
pub(super) fn to_client(answer: &mut ResponseHeader, plan: Option<&ForwardPlan>) -> Result<()> {
    drop_our_cookies(answer)?;
    drop_clearing_of_cookies(answer)?;
    let Some(plan) = plan.filter(|plan| plan.session().is_some()) else { return Ok(()) };
    if answer.status.is_informational() && answer.status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    keep_from_shared_caches(answer)?;
    plan.set_cookie().map_or(Ok(()), |cookie| answer.append_header(SET_COOKIE, cookie).map(drop))
}

fn keep_from_shared_caches(answer: &mut ResponseHeader) -> Result<()> {
    let Change { cache_control, removed } = caching::keep_from_shared_caches(&answer.headers);
    for name in &removed {
        answer.remove_header(name);
    }
    cache_control.map_or(Ok(()), |value| answer.insert_header(CACHE_CONTROL, value))
}

fn drop_our_cookies(answer: &mut ResponseHeader) -> Result<()> {
    let is_ours = |value: &HeaderValue| is_ours(cookie::set_cookie_name(value.as_bytes()));
    if !answer.headers.get_all(SET_COOKIE).iter().any(is_ours) {
        return Ok(());
    }
    let kept: Vec<_> = values(&answer.headers, &SET_COOKIE).filter(|value| !is_ours(value)).collect();
    answer.remove_header(&SET_COOKIE);
    for value in kept {
        answer.append_header(SET_COOKIE, value)?;
    }
    Ok(())
}

/// `Clear-Site-Data` loses `"cookies"` and `"*"`, which would sign people out.
fn drop_clearing_of_cookies(answer: &mut ResponseHeader) -> Result<()> {
    if !answer.headers.contains_key(CLEAR_SITE_DATA) {
        return Ok(());
    }
    let values: Vec<_> = values(&answer.headers, &CLEAR_SITE_DATA).collect();
    answer.remove_header(&CLEAR_SITE_DATA);
    let kept: Vec<_> = values
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|directive| !clears_cookies(directive))
        .collect();
    if kept.is_empty() {
        return Ok(());
    }
    answer.insert_header("Clear-Site-Data", kept.join(&b", "[..]))
}

fn clears_cookies(directive: &[u8]) -> bool {
    let name = directive.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\"")).unwrap_or(directive);
    name == b"*" || name.eq_ignore_ascii_case(b"cookies")
}

fn values(headers: &HeaderMap, name: &HeaderName) -> impl Iterator<Item = HeaderValue> {
    headers.get_all(name).iter().cloned()
}
