//! The plan of a request that goes to an upstream.

use std::sync::Arc;

use http::header::HeaderValue;

use crate::route::{Route, Site};
use crate::session::ReadySession;

/// Where a request goes and what is told to the upstream. It owns what it needs, because the proxy's
/// context has no lifetime; it is read again when a connect is retried.
#[derive(Clone, Debug)]
pub struct ForwardPlan {
    /// The route.
    pub route: Arc<Route>,
    /// The site; `None` on a route for any host whose request names a host that is not configured.
    pub site: Option<Arc<Site>>,
    /// Whose identity headers the upstream gets; they are in `session.headers`.
    pub session: Option<Arc<ReadySession>>,
    /// The access token, marked sensitive, on routes that ask for it.
    pub access_token: Option<HeaderValue>,
}
