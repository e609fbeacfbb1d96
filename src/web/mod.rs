//! Plain HTTP as data: requests, replies, targets, hosts, cookies, pages. No sockets, no clock.

pub mod caching;
pub mod client_addr;
pub mod cookie;
pub mod email;
pub mod host;
mod media_type;
pub mod page;
pub mod proxies;
pub mod reply;
pub mod request;
pub mod return_to;
pub mod target;

pub use email::EmailAddress;
pub use host::Host;
pub use media_type::{FORM, media_type};
pub use reply::Reply;
pub use request::{Request, RequestId, Source};
pub use target::Target;

/// Without spaces and tabs at the ends (RFC 9110 5.6.3): nothing else is white space around a value (SC-7).
#[must_use]
pub fn trim_white_space(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}
