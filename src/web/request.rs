//! A request as the pipeline sees it: canonical target and host, borrowed headers.

use std::fmt;
use std::net::IpAddr;

use http::{HeaderMap, Method};
use uuid::Uuid;

use super::{Host, Target};

/// The name of one request in logs, on pages and towards the upstream (`X-Request-Id`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(Uuid);

impl RequestId {
    /// A new id; ordered by time.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One request, after normalisation. Routing, policy, forwarding and logs use these values and
/// never the raw ones (PP-1).
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its id.
    pub id: RequestId,
    /// The method, as sent.
    pub method: &'a Method,
    /// The canonical target.
    pub target: &'a Target,
    /// The canonical host.
    pub host: &'a Host,
    /// The client's headers.
    pub headers: &'a HeaderMap,
    /// The address of the client.
    pub client: IpAddr,
    /// The port of the listener that accepted the connection.
    pub local_port: u16,
}

impl Request<'_> {
    /// Stub.
    #[must_use]
    pub fn is_navigation(&self) -> bool {
        todo!()
    }

    /// Stub.
    #[must_use]
    pub fn is_prefetch(&self) -> bool {
        todo!()
    }

    /// Stub.
    #[must_use]
    pub fn wants_html(&self) -> bool {
        todo!()
    }

    /// Stub.
    #[must_use]
    pub fn is_from_own_site(&self, origin: &str) -> bool {
        todo!()
    }

    /// Stub.
    #[must_use]
    pub fn user_agent(&self) -> Option<&str> {
        todo!()
    }
}
