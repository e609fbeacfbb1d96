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
