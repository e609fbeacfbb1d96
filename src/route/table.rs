//! The routes, compiled: [`RouteTable`].

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;

use super::host::suffixes;
use super::path::prefixes;
use super::{HostPattern, PathPrefix};
use crate::clock::bucket::Rate;
use crate::oidc::authorize::Parameters;
use crate::policy::Rule;
use crate::session::RouteLimits;
use crate::web::{Host, Source, Target};

/// A path holds an escaped slash and its route does not allow that, or would be another one if the slash
/// separated: nobody knows which of the two its application takes it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an escaped slash could be read in two ways")]
pub struct Ambiguous;

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

impl Upstream {
    /// Its address as a URL without a path.
    #[must_use]
    pub fn url(&self) -> String {
        let Self { tls, host, port, .. } = self;
        let scheme = if *tls { "https" } else { "http" };
        if host.contains(':') {
            format!("{scheme}://[{host}]:{port}")
        } else {
            format!("{scheme}://{host}:{port}")
        }
    }
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
    /// Shorter limits of sessions than those for all routes.
    pub session: RouteLimits,
    /// Where to.
    pub upstream: UpstreamId,
    /// The most bytes of a request's body; `None`: any number.
    pub max_body_bytes: Option<u64>,
    /// Whether the upstream sees the client's `Host`; else its own name.
    pub keep_host: bool,
    /// Whether the upstream gets the access token.
    pub forward_access_token: bool,
    /// Whether the client's `Authorization` goes to the upstream (default yes; it never makes an identity).
    pub forward_authorization: bool,
    /// Whether a name in a path may hold an escaped slash (`/files/a%2Fb`).
    pub allow_encoded_slash: bool,
    /// The provider for this route's sign-ins, instead of the choice.
    pub provider: Option<crate::oidc::ProviderId>,
    /// Extra authorization parameters of this route's sign-ins; they win over the provider's.
    pub authorization_params: Parameters,
    /// What pages of other sites may do.
    pub cross_site: CrossSite,
    /// How many requests anybody may send; `None`: any number.
    pub rate_limit: Option<RouteRate>,
}

/// What pages of other sites may do with a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CrossSite {
    /// Everything: the application judges.
    #[default]
    Allow,
    /// Link to it.
    Deny,
}

impl CrossSite {
    /// Whether a request from there is refused. A link is what browsers send `SameSite=Lax` cookies with, too.
    #[must_use]
    pub const fn refuses(self, source: Source) -> bool {
        match self {
            Self::Allow => false,
            Self::Deny => matches!(source, Source::Frame | Source::Form | Source::Part),
        }
    }
}

/// How many requests somebody may send to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRate {
    /// So many.
    pub rate: Rate,
    /// Who somebody is.
    pub by: CountedBy,
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CountedBy {
    /// Those of an address.
    #[default]
    Address,
    /// Those of a user, before it is known whether they may; those of nobody by their address.
    User,
}

/// All routes, compiled.
///
/// Precedence is the order of the lookups: an exact host, then wildcards by their length, then any
/// host; in each of them path prefixes by their length. A lookup is one hash, so a table of 10,000
/// routes costs what a table of one costs; `bench/` measures it.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// The upstreams that [`UpstreamId`] points into.
    pub upstreams: Vec<Upstream>,
    routes: Vec<Arc<Route>>,
    exact: HashMap<Arc<str>, ByPath>,
    /// By suffix: `.example.com`.
    wildcard: HashMap<Arc<str>, ByPath>,
    any: ByPath,
}

/// The routes of one host pattern, by path prefix.
#[derive(Debug, Default)]
struct ByPath {
    routes: HashMap<Arc<str>, Arc<Route>>,
    /// Bytes of the longest prefix.
    longest: usize,
}

impl RouteTable {
    /// Compiles routes. Two routes with the same host and path are the caller's problem to report;
    /// here the first wins.
    #[must_use]
    pub fn new(routes: Vec<Route>, upstreams: Vec<Upstream>) -> Self {
        let mut table = Self { upstreams, ..Self::default() };
        for route in routes.into_iter().map(Arc::new) {
            table.by_path(&route.host).insert(&route);
            table.routes.push(route);
        }
        table
    }

    fn by_path(&mut self, host: &HostPattern) -> &mut ByPath {
        match host {
            HostPattern::Exact(name) => self.exact.entry(Arc::clone(name)).or_default(),
            HostPattern::Wildcard(suffix) => self.wildcard.entry(Arc::clone(suffix)).or_default(),
            HostPattern::Any => &mut self.any,
        }
    }

    /// The route for a host and path: an exact host before a wildcard (the longest suffix first)
    /// before any; within a host pattern the longest path. Hash lookups, so that 10,000 routes cost
    /// what one costs. A host pattern that matches without a matching path falls through to the
    /// next pattern.
    ///
    /// # Errors
    /// [`Ambiguous`]: a path with an escaped slash has to lead to one route in both readings, and that route
    /// has to allow it (`docs/decisions/0001`). A prefix holds no escaped slash, so that an application that
    /// reads some of several in one way and some in the other finds this route too.
    pub fn find(&self, host: &Host, target: &Target) -> Result<Option<&Arc<Route>>, Ambiguous> {
        let found = self.find_by(host.name(), target.path());
        let Some(split) = target.split_path() else { return Ok(found) };
        match (found, self.find_by(host.name(), split)) {
            (None, None) => Ok(None),
            (Some(route), Some(other)) if Arc::ptr_eq(route, other) && route.allow_encoded_slash => Ok(found),
            _ => Err(Ambiguous),
        }
    }

    fn find_by(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        let exact = self.exact.get(host);
        let wildcards = suffixes(host).filter_map(|suffix| self.wildcard.get(suffix));
        exact.into_iter().chain(wildcards).chain([&self.any]).find_map(|routes| routes.find(path))
    }

    /// All routes, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter()
    }
}

impl ByPath {
    fn insert(&mut self, route: &Arc<Route>) {
        let prefix = &route.path.0;
        self.longest = self.longest.max(prefix.len());
        self.routes.entry(Arc::clone(prefix)).or_insert_with(|| Arc::clone(route));
    }

    fn find(&self, path: &str) -> Option<&Arc<Route>> {
        prefixes(path, self.longest).find_map(|prefix| self.routes.get(prefix))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(name: &str, host: &str, path: &str) -> Route {
        let host = match host.strip_prefix('*') {
            None => HostPattern::Exact(host.into()),
            Some("") => HostPattern::Any,
            Some(suffix) => HostPattern::Wildcard(suffix.into()),
        };
        Route {
            name: name.into(),
            host,
            path: PathPrefix(path.trim_end_matches('/').into()),
            rule: Rule::default(),
            session: RouteLimits::default(),
            upstream: UpstreamId(0),
            keep_host: true,
            forward_access_token: false,
            forward_authorization: true,
            allow_encoded_slash: false,
            max_body_bytes: None,
            provider: None,
            authorization_params: Vec::new(),
            cross_site: CrossSite::default(),
            rate_limit: None,
        }
    }

    /// A table of routes that are named by their host and path.
    fn table(routes: &[(&str, &str)]) -> RouteTable {
        let named = |(host, path): &(&str, &str)| route(&format!("{host}{path}"), host, path);
        RouteTable::new(routes.iter().map(named).collect(), vec![])
    }

    fn found<'a>(table: &'a RouteTable, host: &str, path: &str) -> Option<&'a str> {
        table.find_by(host, path).map(|route| &*route.name)
    }

    #[test]
    fn the_longest_path_wins_at_segment_boundaries() {
        let table = table(&[("w", "/"), ("w", "/admin/"), ("w", "/admin/users"), ("w", "/a/b/c")]);
        let cases = [
            ("/", "w/"),
            ("/x", "w/"),
            ("/admin", "w/admin/"),
            ("/admin/", "w/admin/"),
            ("/admin/x", "w/admin/"),
            ("/administrator", "w/"),
            ("/admin/users", "w/admin/users"),
            ("/admin/users/1", "w/admin/users"),
            ("/admin/users2", "w/admin/"),
            ("/ADMIN", "w/"),
            ("/a", "w/"),
            ("/a/b", "w/"),
            ("/a/b/c/", "w/a/b/c"),
            ("/a/b/cc", "w/"),
        ];
        for (path, wanted) in cases {
            assert_eq!(found(&table, "w", path), Some(wanted), "{path}");
        }
    }

    #[test]
    fn an_exact_host_goes_before_wildcards_and_they_before_any() {
        let table = table(&[
            ("*", "/"),
            ("*.example.com", "/"),
            ("*.b.example.com", "/"),
            ("a.b.example.com", "/"),
            ("example.com", "/"),
        ]);
        let cases = [
            ("a.b.example.com", "a.b.example.com/"),
            ("x.b.example.com", "*.b.example.com/"),
            ("x.y.b.example.com", "*.b.example.com/"),
            ("b.example.com", "*.example.com/"),
            ("x.example.com", "*.example.com/"),
            ("x.y.example.com", "*.example.com/"),
            ("example.com", "example.com/"),
            ("badexample.com", "*/"),
            ("example.com.evil.test", "*/"),
            ("com", "*/"),
            ("10.0.0.1", "*/"),
            ("[::1]", "*/"),
        ];
        for (host, wanted) in cases {
            assert_eq!(found(&table, host, "/x"), Some(wanted), "{host}");
        }
    }

    #[test]
    fn a_wildcard_does_not_match_the_name_itself() {
        let table = table(&[("*.example.com", "/")]);
        for host in ["example.com", "xexample.com", "com", ""] {
            assert_eq!(found(&table, host, "/"), None, "{host:?}");
        }
        assert!(found(&table, "x.example.com", "/").is_some());
    }

    #[test]
    fn a_host_without_a_fitting_path_falls_through_to_the_next_pattern() {
        let table = table(&[("w.example.com", "/admin"), ("*.example.com", "/api"), ("*", "/health")]);
        let cases = [
            ("/admin/x", Some("w.example.com/admin")),
            ("/api", Some("*.example.com/api")),
            ("/health", Some("*/health")),
            ("/other", None),
            ("/", None),
        ];
        for (path, wanted) in cases {
            assert_eq!(found(&table, "w.example.com", path), wanted, "{path}");
        }
    }

    #[test]
    fn the_more_exact_host_goes_before_the_longer_path() {
        let table = table(&[("*.example.com", "/a/b/c"), ("w.example.com", "/")]);
        assert_eq!(found(&table, "w.example.com", "/a/b/c"), Some("w.example.com/"));
    }

    #[test]
    fn of_two_routes_with_the_same_host_and_path_the_first_wins() {
        let routes = vec![route("first", "w", "/a"), route("second", "w", "/a/")];
        let table = RouteTable::new(routes, vec![]);
        assert_eq!(found(&table, "w", "/a"), Some("first"));
        assert_eq!(table.iter().map(|route| &*route.name).collect::<Vec<_>>(), ["first", "second"]);
    }

    #[test]
    fn an_escaped_slash_needs_one_route_for_both_readings_that_allows_it() {
        let allowing = |path| Route { allow_encoded_slash: true, ..route(path, "w", path) };
        let routes = vec![
            allowing("/"),
            route("/admin", "w", "/admin"),
            allowing("/files"),
            allowing("/files/open"),
            route("/files/strict", "w", "/files/strict"),
            route("/a/b/c", "w", "/a/b/c"),
        ];
        let table = RouteTable::new(routes, vec![]);
        let cases = [
            ("/files/a%2Fb", Ok(Some("/files"))),
            ("/files/open/a%2Fb/c", Ok(Some("/files/open"))),
            ("/x%2Fadmin", Ok(Some("/"))),
            ("/admin%2Fx", Err(Ambiguous)),
            ("/admin/x%2Fy", Err(Ambiguous)),
            ("/files%2Fx", Err(Ambiguous)),
            ("/files%2Fstrict/x", Err(Ambiguous)),
            ("/files/strict%2Fx", Err(Ambiguous)),
            ("/files/strict/a%2Fx", Err(Ambiguous)),
            ("/files/open%2Fa", Err(Ambiguous)),
            ("/a%2Fb%2Fc", Err(Ambiguous)),
            ("/a/b%2Fc/d", Err(Ambiguous)),
            ("/a%2Fb/d", Ok(Some("/"))),
        ];
        let host = Host::parse(b"w").unwrap();
        for (path, wanted) in cases {
            let target = Target::parse_with_slashes(path.as_bytes()).unwrap();
            let found = table.find(&host, &target).map(|route| route.map(|route| &*route.name));
            assert_eq!(found, wanted, "{path}");
        }
        let elsewhere =
            table.find(&Host::parse(b"v").unwrap(), &Target::parse_with_slashes(b"/a%2Fb").unwrap());
        assert!(matches!(elsewhere, Ok(None)));
    }

    #[test]
    fn an_empty_table_finds_nothing() {
        assert_eq!(found(&RouteTable::default(), "w", "/"), None);
    }

    #[test]
    fn every_one_of_ten_thousand_routes_is_found() {
        let names: Vec<_> = (0..10_000).map(|n| (format!("h{}.test", n % 100), format!("/p{n}"))).collect();
        let table = table(&names.iter().map(|(host, path)| (&**host, &**path)).collect::<Vec<_>>());
        for (host, path) in &names {
            let wanted = format!("{host}{path}");
            assert_eq!(found(&table, host, &format!("{path}/x")), Some(&*wanted));
        }
        assert_eq!(table.iter().count(), 10_000);
    }

    /// The rule as one would tell it, without any table: of all routes that match, the one with the
    /// most exact host, then with the longest path.
    fn by_the_rule<'a>(routes: &'a [Route], host: &str, path: &str) -> Option<&'a str> {
        let matching = routes.iter().filter_map(|route| {
            let host_rank = match &route.host {
                HostPattern::Exact(name) => (&**name == host).then_some(usize::MAX),
                HostPattern::Wildcard(suffix) => host.ends_with(&**suffix).then_some(suffix.len()),
                HostPattern::Any => Some(0),
            }?;
            let rest = path.strip_prefix(route.path.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then_some((
                host_rank,
                route.path.as_str().len(),
                route,
            ))
        });
        // The first of equals, where `max_by_key` takes the last.
        matching.rev().max_by_key(|(host, path, _)| (*host, *path)).map(|(_, _, route)| &*route.name)
    }

    proptest! {
        #[test]
        fn the_table_finds_what_the_rule_says(
            routes in prop::collection::vec(("(\\*|\\*\\.b|\\*\\.a\\.b|b|a\\.b|a\\.a\\.b)", "(/[ab]{1,2}){0,3}"), 0..12),
            host in "([ab]\\.){0,3}[ab]",
            path in "(/[ab]{1,2}){0,4}/?",
        ) {
            let path = if path.is_empty() { "/".to_owned() } else { path };
            let named = |(n, (host, path)): (usize, &(String, String))| route(&n.to_string(), host, path);
            let routes: Vec<Route> = routes.iter().enumerate().map(named).collect();
            let table = RouteTable::new(routes.clone(), vec![]);
            prop_assert_eq!(found(&table, &host, &path), by_the_rule(&routes, &host, &path));
        }
    }
}
