//! Which application: host and path patterns, compiled at load; the longest match wins.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use url::Url;

use crate::policy::Rule;
use crate::session::cookie::CookieNames;
use crate::web::{Host, Target};

/// A host pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `wiki.example.com`.
    Exact(Arc<str>),
    /// `*.example.com`: any name below, not `example.com` itself. Holds `.example.com`.
    Wildcard(Arc<str>),
    /// Any host.
    Any,
}

/// A pattern that can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Neither a name, nor `*.` and a name, nor `*`.
    #[error("is not a host name, `*.` and a host name, or `*`")]
    Host,
    /// Not a canonical path.
    #[error("is not a canonical path: {0}")]
    Path(&'static str),
}

impl HostPattern {
    /// Reads a pattern as it stands in the configuration: a name, `*.name`, or `*`.
    ///
    /// # Errors
    /// [`PatternError::Host`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        todo!()
    }
}

/// A path prefix that matches at segment boundaries: `/admin` and `/admin/` both match `/admin` and
/// everything below `/admin/`, and not `/administrator` (PP-5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPrefix(Arc<str>);

impl PathPrefix {
    /// Reads a prefix; it is held to the same canonical form as request targets.
    ///
    /// # Errors
    /// [`PatternError::Path`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        todo!()
    }

    /// The prefix, without a slash at its end (empty for the root).
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A place in the list of upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamId(pub usize);

/// An application's address: what stands behind a route. Equal upstreams of several routes are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Whether TLS is spoken to it.
    pub tls: bool,
    /// Name or address, IPv6 without brackets.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
    /// File with the CA certificates that vouch for it, instead of the system's.
    pub ca_file: Option<Arc<std::path::Path>>,
    /// How long a connect (TCP, then TLS) may take.
    pub connect_timeout: Duration,
    /// How long the upstream may stay silent before and within an answer.
    pub read_timeout: Duration,
    /// How long a WebSocket may stay silent.
    pub idle_timeout: Duration,
}

/// A route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name in logs: as configured, else `host` and `path`.
    pub name: Arc<str>,
    /// Which hosts.
    pub host: HostPattern,
    /// Which paths.
    pub path: PathPrefix,
    /// Who may pass.
    pub rule: Rule,
    /// Where to.
    pub upstream: UpstreamId,
    /// Whether the upstream sees the client's `Host`; else its own name.
    pub keep_host: bool,
    /// Whether the upstream gets the access token.
    pub forward_access_token: bool,
    /// Whether the client's `Authorization` goes to the upstream (default yes; it never makes an identity).
    pub forward_authorization: bool,
    /// The provider for this route's sign-ins, instead of the choice.
    pub provider: Option<crate::oidc::ProviderId>,
}

/// All routes, compiled.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// The upstreams that [`UpstreamId`] points into.
    pub upstreams: Vec<Upstream>,
}

impl RouteTable {
    /// Compiles routes. Two routes with the same host and path are the caller's problem to report;
    /// here the first wins.
    #[must_use]
    pub fn new(routes: Vec<Route>, upstreams: Vec<Upstream>) -> Self {
        todo!()
    }

    /// The route for a host and path: an exact host before a wildcard (the longest suffix first)
    /// before any; within a host pattern the longest path. Hash lookups, so that 10,000 routes cost
    /// what one costs. A host pattern that matches without a matching path falls through to the
    /// next pattern.
    #[must_use]
    pub fn find(&self, host: &Host, target: &Target) -> Option<&Arc<Route>> {
        todo!()
    }

    /// All routes, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        todo!();
        std::iter::empty()
    }
}

/// What is configured for the hosts: their public URLs.
#[derive(Debug, Default)]
pub struct HostTable {}

/// One request's host, resolved.
#[derive(Clone, Debug)]
pub struct Site {
    /// The canonical name: the scope of cookies.
    pub name: Arc<str>,
    /// The public URL: scheme, name and port only, path `/` (AR-5).
    pub public_url: Arc<Url>,
    /// Its cookie names.
    pub cookies: CookieNames,
    /// `X-Forwarded-Proto` for upstreams: the scheme of the public URL.
    pub forwarded_proto: HeaderValue,
    /// `X-Forwarded-Host` for upstreams: host and port of the public URL.
    pub forwarded_host: HeaderValue,
}

/// A `[[host]]`, checked: every host of a route that is not "any" has one (made by `config` as
/// `https://NAME` where none is written).
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// Exact or wildcard.
    pub pattern: HostPattern,
    /// For an exact name, its URL. For a wildcard a URL whose host is the pattern's `*.suffix`
    /// spelled with the placeholder label `wildcard`, replaced by the request's name once it matched.
    pub public_url: Url,
}

impl HostTable {
    /// Compiles the hosts.
    #[must_use]
    pub fn new(hosts: &[HostSettings]) -> Self {
        todo!()
    }

    /// The site of a request: by exact name, then by the longest wildcard. The port, if the request
    /// names one, must be the public URL's or the listener's own; else there is no site (PP-7).
    #[must_use]
    pub fn find(&self, host: &Host, local_port: u16) -> Option<Arc<Site>> {
        todo!()
    }
}
