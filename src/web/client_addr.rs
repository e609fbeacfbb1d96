//! `X-Forwarded-*` as the gateway rebuilds them. Nothing that a client sent is believed; trusted
//! proxies in front are a later setting, and this is their place.

use std::net::IpAddr;

use http::HeaderMap;

/// Header names that only a proxy may set, lower case: removed from every client request (IH-9),
/// among them `x-forwarded-for`, which the gateway then sets anew.
pub const FORWARDED_HEADERS: &[&str] = &[];

/// Replaces `X-Forwarded-For`, `-Proto` and `-Host` by the client's address and the public scheme
/// and authority.
pub fn forwarded_values(client: IpAddr) -> String {
    todo!()
}
