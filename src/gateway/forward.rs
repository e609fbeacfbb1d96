//! The plan of a request that goes to an upstream. Pure.

use std::sync::Arc;

use http::header::HeaderValue;

use super::sessions::ReadySession;
use crate::policy::Permit;
use crate::route::{Route, Site};

/// Where a request goes and what is told to the upstream. Only [`plan`] makes one, and only of a
/// [`Permit`]. It owns what it needs, because the proxy's context has no lifetime; it is read again
/// when a connect is retried.
#[derive(Clone, Debug)]
pub struct ForwardPlan {
    route: Arc<Route>,
    site: Option<Arc<Site>>,
    session: Option<Arc<ReadySession>>,
    access_token: Option<HeaderValue>,
    set_cookie: Option<HeaderValue>,
}

/// Makes the plan. The session's headers go along only where the permit names an identity.
#[must_use]
pub fn plan(
    permit: &Permit,
    route: Arc<Route>,
    site: Option<Arc<Site>>,
    session: Option<Arc<ReadySession>>,
) -> ForwardPlan {
    let session = session.filter(|_| permit.identity().is_some());
    ForwardPlan { route, site, session, access_token: None, set_cookie: None }
}

impl ForwardPlan {
    /// The same plan with the access token for the upstream, where somebody is known; `token` is
    /// marked as sensitive.
    #[must_use]
    pub fn with_access_token(mut self, mut token: HeaderValue) -> Self {
        token.set_sensitive(true);
        self.access_token = self.session.is_some().then_some(token);
        self
    }

    /// The same plan with the session's cookie as it was sealed anew, where somebody is known.
    #[must_use]
    pub fn with_cookie(mut self, cookie: Option<HeaderValue>) -> Self {
        self.set_cookie = cookie.filter(|_| self.session.is_some());
        self
    }

    /// The route.
    #[must_use]
    pub const fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// The site; `None` on a route for any host whose request names a host that is not configured.
    #[must_use]
    pub const fn site(&self) -> Option<&Arc<Site>> {
        self.site.as_ref()
    }

    /// Whose identity headers the upstream gets, and whose end ends the request.
    #[must_use]
    pub const fn session(&self) -> Option<&Arc<ReadySession>> {
        self.session.as_ref()
    }

    /// The `Set-Cookie` that goes out with the answer; none once the session has ended, when the browser may
    /// have the cookie of another one already.
    #[must_use]
    pub fn set_cookie(&self) -> Option<&HeaderValue> {
        let lives = self.session.as_ref().is_some_and(|session| !session.ended.is_cancelled());
        self.set_cookie.as_ref().filter(|_| lives)
    }

    /// The access token, marked as sensitive, on routes that ask for it.
    #[must_use]
    pub const fn access_token(&self) -> Option<&HeaderValue> {
        self.access_token.as_ref()
    }
}
