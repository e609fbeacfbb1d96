//! Cookies on the wire: reading all `Cookie` fields, taking ours out, writing `Set-Cookie`.

use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderValue;

/// What the request's `Cookie` fields say under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// No cookie of that name.
    Absent,
    /// Exactly one.
    One(&'a [u8]),
    /// More than one: none of them counts (SC-8).
    Several,
}

/// Looks up `name` (exact bytes) in every `Cookie` field, h2 crumbs included (SC-7).
#[must_use]
pub fn find<'a>(headers: &'a HeaderMap, name: &str) -> Found<'a> {
    todo!()
}

/// Every cookie pair of the request, name and value, as bytes, in order; a bad pair is passed over.
pub fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    todo!();
    std::iter::empty()
}

/// The `Cookie` field for the upstream: all crumbs joined with `; `, without the cookies for which
/// `is_ours` says yes. `None` when nothing is left. All other bytes are kept as sent.
#[must_use]
pub fn without(headers: &HeaderMap, is_ours: impl Fn(&[u8]) -> bool) -> Option<HeaderValue> {
    todo!()
}

/// The name of the cookie that a `Set-Cookie` field of an upstream sets, trimmed as a browser does.
#[must_use]
pub fn set_cookie_name(field: &[u8]) -> &[u8] {
    todo!()
}

/// A `Set-Cookie` field: `HttpOnly; SameSite=Lax; Path=/`, `Secure` if asked, `Max-Age` if given.
///
/// `name` is a token and `value` base64url, both made by the gateway.
#[must_use]
pub fn set(name: &str, value: &str, secure: bool, max_age: Option<Duration>) -> HeaderValue {
    todo!()
}

/// A `Set-Cookie` field that deletes `name`, with the attributes it was set with (SC-13).
#[must_use]
pub fn delete(name: &str, secure: bool) -> HeaderValue {
    todo!()
}
