//! `[[route]]` -> [`Route`] and the upstreams that routes share.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use url::Host;

use super::rules::{self, between, one_of};
use super::{Check, DAY, HOUR, MINUTE, SECOND, all};
use crate::config::file::{self, List};
use crate::config::problem::{Place, Told};
use crate::config::read::{Field, Named, Size, SizeOrOff};
use crate::oidc::ProviderId;
use crate::oidc::authorize::Parameters;
use crate::oidc::step_up::StepUp;
use crate::policy::{Access, Rule};
use crate::route::{CrossSite, HostPattern, PathPrefix, Route, Upstream, UpstreamId};
use crate::session::{Limits, RouteLimits};

const ACCESS: &[(&str, Access)] =
    &[("signed-in", Access::SignedIn), ("optional", Access::Optional), ("public", Access::Public)];

const CROSS_SITE: &[(&str, CrossSite)] = &[("allow", CrossSite::Allow), ("deny", CrossSite::Deny)];

/// Whether the client's `Host` is kept.
const HOST_HEADER: &[(&str, bool)] = &[("keep", true), ("upstream", false)];

/// The most bytes of a route's authentication contexts.
const MAX_ACR_BYTES: usize = 512;

/// More than browsers upload as a rule, and an end to what never ends.
const MAX_BODY: SizeOrOff = SizeOrOff(Some(Size(1 << 30)));

const EMPTY_REQUIRE: &str = "is empty; leave `require` out to let everybody in";

/// The routes, and the upstreams that their ids point into.
pub(super) struct Checked {
    pub(super) routes: Vec<Route>,
    pub(super) upstreams: Vec<Upstream>,
}

/// What routes are checked against.
struct Context<'a> {
    endpoint_prefix: Option<&'a str>,
    providers: &'a [String],
    limits: Option<Limits>,
    names: Vec<String>,
    taken: HashMap<(HostPattern, PathPrefix), String>,
    upstreams: Vec<Upstream>,
}

impl Check<'_> {
    pub(super) fn routes(
        &mut self,
        field: Field<List<file::Route>>,
        endpoint_prefix: Option<&str>,
        providers: &[String],
        limits: Option<Limits>,
    ) -> Result<Checked, Told> {
        let place = field.place.clone();
        let list = field.required(&mut self.problems, "at least one [[route]] with host and upstream")?;
        if list.is_empty() {
            return Err(self.problems.add(&place, "is empty: at least one [[route]] is wanted"));
        }
        let (names, taken, upstreams) = (Vec::new(), HashMap::new(), Vec::new());
        let mut context = Context { endpoint_prefix, providers, limits, names, taken, upstreams };
        let routes = all(list.into_iter().map(|route| {
            let place = route.place.clone();
            let route = route.element(&mut self.problems)?;
            self.route(route, &place, &mut context)
        }));
        Ok(Checked { routes: routes?, upstreams: context.upstreams })
    }

    fn route(&mut self, route: file::Route, place: &Place, context: &mut Context<'_>) -> Result<Route, Told> {
        let file::Route {
            name,
            host,
            path,
            upstream,
            ca_file,
            access,
            require,
            session,
            provider,
            authorization_params,
            host_header,
            forward_access_token,
            forward_authorization,
            allow_encoded_slash,
            max_body_size,
            connect_timeout,
            read_timeout,
            idle_timeout,
            cross_site,
            rate_limit,
            rate_limit_by,
        } = route;
        let path_place = if path.is_written() { path.place.clone() } else { place.clone() };
        let host_written = host.peek().cloned().unwrap_or_default();
        let cross_site = self.cross_site(cross_site, &host);
        let access = self.access(access, &host);
        let host = self.route_host(host);
        let path = self.route_path(path, context.endpoint_prefix);
        let name = self.route_name(name, &host_written, &path, context);
        let rule = self.rule(access, require);
        let session = self.route_session(session, access, context.limits);
        let provider = self.route_provider(provider, access, context.providers);
        let params = self.route_params(authorization_params, access);
        let keep_host = host_header.parse(&mut self.problems, one_of(HOST_HEADER)).or(true);
        let forward_access_token = self.forward_access_token(forward_access_token, access);
        let rate_limit = self.route_rate(rate_limit, rate_limit_by, access);
        let timeouts = self.timeouts(connect_timeout, read_timeout, idle_timeout);
        let upstream = self.upstream(upstream, ca_file, timeouts);
        let (host, path) = (host?, path?);
        self.first_of_its_place(&host, &path, place, &path_place, context)?;
        Ok(Route {
            name: name?,
            host,
            path,
            rule: rule?,
            session: session?,
            upstream: shared(upstream?, &mut context.upstreams),
            max_body_bytes: max_body_size.or(MAX_BODY)?.0.map(|size| size.0 as u64),
            keep_host: keep_host?,
            forward_access_token: forward_access_token?,
            forward_authorization: forward_authorization.or(true)?,
            allow_encoded_slash: allow_encoded_slash.or(false)?,
            provider: provider?,
            authorization_params: params?,
            cross_site: cross_site?,
            rate_limit: rate_limit?,
        })
    }

    /// A route for any host can't send people to sign in: there is no public URL to come back to.
    fn access(&mut self, access: Field<String>, host: &Field<String>) -> Result<Access, Told> {
        let any = host.peek().is_some_and(|host| host == "*");
        let place = access.place.clone();
        let access = access.parse(&mut self.problems, one_of(ACCESS)).or(Access::default())?;
        if any && access != Access::Public {
            let message = "a route for any host (\"*\") can only be \"public\"";
            return Err(self.problems.add(&place, message));
        }
        Ok(access)
    }

    /// Which site is another one is known only where there is a public URL.
    fn cross_site(&mut self, field: Field<String>, host: &Field<String>) -> Result<CrossSite, Told> {
        let any = host.peek().is_some_and(|host| host == "*");
        let rule = |what| match what {
            CrossSite::Deny if any => Err("needs a host: a route for any host (\"*\") has no site"),
            CrossSite::Deny | CrossSite::Allow => Ok(what),
        };
        let field = field.parse(&mut self.problems, one_of(CROSS_SITE));
        field.check(&mut self.problems, rule).or(CrossSite::default())
    }

    fn route_host(&mut self, host: Field<String>) -> Result<HostPattern, Told> {
        let rule = |text: &str| HostPattern::parse(text).map_err(|error| error.to_string());
        let wanted = "a host name, \"*.\" and a host name, or \"*\"";
        host.parse(&mut self.problems, rule).required(&mut self.problems, wanted)
    }

    fn route_path(&mut self, path: Field<String>, prefix: Option<&str>) -> Result<PathPrefix, Told> {
        let rule = |text: &str| {
            let path = PathPrefix::parse(text).map_err(|error| error.to_string())?;
            match prefix.filter(|prefix| is_below(path.as_str(), prefix)) {
                Some(prefix) => Err(format!("is under {prefix}, where the gateway's own endpoints are")),
                None => Ok(path),
            }
        };
        path.parse(&mut self.problems, rule).or(PathPrefix::root())
    }

    fn route_name(
        &mut self,
        name: Field<String>,
        host: &str,
        path: &Result<PathPrefix, Told>,
        context: &mut Context<'_>,
    ) -> Result<Arc<str>, Told> {
        let name = name
            .parse(&mut self.problems, rules::not_empty)
            .check(&mut self.problems, |name| {
                rules::once(name, &mut context.names, "is the name of another route")
            })
            .optional()?;
        let path = path.as_ref().map_err(|told| *told)?;
        Ok(name.map_or_else(|| format!("{host}{path}").into(), Arc::from))
    }

    fn rule(&mut self, access: Result<Access, Told>, require: Field<file::Require>) -> Result<Rule, Told> {
        let place = require.place.clone();
        let Some(file::Require { groups, acr, max_age }) = require.optional()? else {
            return Ok(Rule { access: access?, ..Rule::default() });
        };
        if access.is_ok_and(|access| access != Access::SignedIn) {
            return Err(self.problems.add(&place, "has a meaning only with access = \"signed-in\""));
        }
        if !groups.is_written() && !acr.is_written() && !max_age.is_written() {
            return Err(self.problems.add(&place, EMPTY_REQUIRE));
        }
        let groups = self.require_any(groups, |text| rules::not_empty(text).map(Arc::from));
        let acr = self.acr(acr);
        // Under half a minute a difference of clocks would send people round and round.
        let max_age = max_age.check(&mut self.problems, between(30 * SECOND, 400 * DAY)).optional();
        let step_up = StepUp { acr: acr?, max_age: max_age? };
        Ok(Rule { access: access?, groups: groups?, step_up })
    }

    /// A list of which one is enough; empty where it is not written.
    fn require_any(
        &mut self,
        field: Field<List<String>>,
        rule: impl Fn(&str) -> Result<Arc<str>, &'static str>,
    ) -> Result<Vec<Arc<str>>, Told> {
        let place = field.place.clone();
        let Some(list) = field.optional()? else { return Ok(Vec::new()) };
        if list.is_empty() {
            return Err(self.problems.add(&place, EMPTY_REQUIRE));
        }
        all(list.into_iter().map(|text| text.parse(&mut self.problems, &rule).element(&mut self.problems)))
    }

    /// They travel in a URL, a header and a cookie, which has little room.
    fn acr(&mut self, field: Field<List<String>>) -> Result<Vec<Arc<str>>, Told> {
        let place = field.place.clone();
        let rule = |text: &str| rules::token(text).map_err(|_none| "is not one authentication context");
        let acr = self.require_any(field, rule)?;
        if acr.iter().map(|acr| acr.len()).sum::<usize>() > MAX_ACR_BYTES {
            return Err(self.problems.add(&place, format!("is longer than {MAX_ACR_BYTES} bytes together")));
        }
        Ok(acr)
    }

    /// Shorter than the limits of `[session]`: those hold on every route.
    fn route_session(
        &mut self,
        field: Field<file::RouteSession>,
        access: Result<Access, Told>,
        global: Option<Limits>,
    ) -> Result<RouteLimits, Told> {
        let place = field.place.clone();
        let Some(file::RouteSession { idle_timeout, max_lifetime }) = field.optional()? else {
            return Ok(RouteLimits::default());
        };
        if access == Ok(Access::Public) {
            return Err(self.problems.add(&place, "has no effect: a public route has no sessions"));
        }
        if !idle_timeout.is_written() && !max_lifetime.is_written() {
            return Err(self
                .problems
                .add(&place, "is empty; leave `session` out for the limits of [session]"));
        }
        let (idle, max) = global.map_or((400 * DAY, 400 * DAY), |all| (all.idle_timeout, all.max_lifetime));
        let max_lifetime = self.shorter(max_lifetime, max, "session.max_lifetime");
        let idle_timeout = self.shorter(idle_timeout, idle, "session.idle_timeout");
        Ok(RouteLimits { idle_timeout: idle_timeout?, max_lifetime: max_lifetime? })
    }

    fn shorter(
        &mut self,
        field: Field<Duration>,
        max: Duration,
        key: &str,
    ) -> Result<Option<Duration>, Told> {
        field
            .check(&mut self.problems, between(SECOND, 400 * DAY))
            .check(&mut self.problems, |value| rules::at_most(value, max, key))
            .optional()
    }

    fn route_params(
        &mut self,
        field: Field<Named<String>>,
        access: Result<Access, Told>,
    ) -> Result<Parameters, Told> {
        if access == Ok(Access::Public) && field.is_written() {
            return Err(self.problems.add(&field.place, "has no effect: nobody signs in on a public route"));
        }
        self.authorization_params(field)
    }

    fn route_provider(
        &mut self,
        field: Field<String>,
        access: Result<Access, Told>,
        providers: &[String],
    ) -> Result<Option<ProviderId>, Told> {
        let public = access == Ok(Access::Public);
        let rule = |id: String| match providers.contains(&id) {
            _ if public => Err("has no effect: nobody signs in on a public route"),
            false => Err("is not the id of a [[provider]]"),
            true => Ok(ProviderId(id.into())),
        };
        field.check(&mut self.problems, rule).optional()
    }

    fn forward_access_token(
        &mut self,
        field: Field<bool>,
        access: Result<Access, Told>,
    ) -> Result<bool, Told> {
        let public = access == Ok(Access::Public);
        let rule = |wanted: bool| {
            if wanted && public { Err("has no effect: a public route is told nothing") } else { Ok(wanted) }
        };
        field.check(&mut self.problems, rule).or(false)
    }

    fn timeouts(
        &mut self,
        connect: Field<Duration>,
        read: Field<Duration>,
        idle: Field<Duration>,
    ) -> Result<Timeouts, Told> {
        let problems = &mut self.problems;
        let connect = connect.check(problems, between(SECOND / 10, 5 * MINUTE)).or(5 * SECOND);
        let read = read.check(problems, between(SECOND / 10, DAY)).or(MINUTE);
        let idle = idle.check(problems, between(SECOND / 10, DAY)).or(HOUR);
        Ok(Timeouts { connect: connect?, read: read?, idle: idle? })
    }

    fn upstream(
        &mut self,
        field: Field<String>,
        ca_file: Field<String>,
        timeouts: Result<Timeouts, Told>,
    ) -> Result<Upstream, Told> {
        let ca_place = ca_file.place.clone();
        let address = field.parse(&mut self.problems, address);
        let address =
            address.required(&mut self.problems, "the application's URL, such as \"http://10.0.0.5:3000\"");
        let ca_file = self.ca_file(ca_file)?;
        let Address { tls, host, port } = address?;
        if ca_file.is_some() && !tls {
            return Err(self.problems.add(&ca_place, "has no effect: the upstream is plain http"));
        }
        let Timeouts { connect: connect_timeout, read: read_timeout, idle: idle_timeout } = timeouts?;
        let ca_file = ca_file.map(Arc::from);
        Ok(Upstream { tls, host, port, ca_file, connect_timeout, read_timeout, idle_timeout })
    }

    fn first_of_its_place(
        &mut self,
        host: &HostPattern,
        path: &PathPrefix,
        route: &Place,
        at: &Place,
        context: &mut Context<'_>,
    ) -> Result<(), Told> {
        let key = (host.clone(), path.clone());
        if let Some(first) = context.taken.get(&key) {
            return Err(self.problems.add(at, format!("has the same host and path as {first}")));
        }
        context.taken.insert(key, route.path.clone());
        Ok(())
    }
}

/// The limits of sessions, with the shortest idle timeout that any route has.
pub(super) fn with_routes(limits: Limits, routes: &[Route]) -> Limits {
    let idle = routes.iter().filter_map(|route| route.session.idle_timeout).min();
    Limits { shortest_idle: idle.unwrap_or(limits.idle_timeout).min(limits.idle_timeout), ..limits }
}

struct Timeouts {
    connect: Duration,
    read: Duration,
    idle: Duration,
}

/// An upstream's URL, taken apart.
struct Address {
    tls: bool,
    host: Arc<str>,
    port: u16,
}

fn address(text: &str) -> Result<Address, &'static str> {
    let url = rules::http_url(text)?;
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("has a path; the upstream gets the path of the request");
    }
    let host = match url.host() {
        Some(Host::Domain(name)) => name.into(),
        Some(Host::Ipv4(address)) => address.to_string().into(),
        Some(Host::Ipv6(address)) => address.to_string().into(),
        None => return Err("is not an http or https URL"),
    };
    let port = url.port_or_known_default().ok_or("has no port")?;
    Ok(Address { tls: url.scheme() == "https", host, port })
}

/// The id of an upstream; equal ones are one, with one pool of connections.
fn shared(upstream: Upstream, upstreams: &mut Vec<Upstream>) -> UpstreamId {
    let known = upstreams.iter().position(|known| *known == upstream);
    UpstreamId(known.unwrap_or_else(|| {
        upstreams.push(upstream);
        upstreams.len() - 1
    }))
}

/// Whether a path is a prefix of the gateway's own, or below it.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
