//! `[[host]]` -> [`HostSettings`]: which URL people open. It never comes from a request (AR-5).

use url::Url;

use super::route::Checked;
use super::{Check, all, rules};
use crate::config::file::{self, List};
use crate::config::problem::Told;
use crate::config::read::Field;
use crate::oidc::ProviderId;
use crate::route::{HostPattern, HostSettings, Route};

/// The label that stands for the request's name in the public URL of a wildcard.
const PLACEHOLDER: &str = "wildcard";

/// The ids of providers.
#[derive(Clone, Copy)]
pub(super) struct Ids<'a> {
    /// Of all of them.
    pub(super) all: &'a [String],
    /// Of those that answer by form_post.
    pub(super) posting: &'a [String],
}

impl Check<'_> {
    /// The written hosts, and one at `https://NAME` for each other host of a route.
    pub(super) fn hosts(
        &mut self,
        field: Field<List<file::Host>>,
        routes: Option<&Checked>,
        providers: Ids<'_>,
    ) -> Result<Vec<HostSettings>, Told> {
        let list = field.or(Vec::new())?;
        let mut names = Vec::new();
        let hosts = all(list.into_iter().map(|host| {
            let host = host.element(&mut self.problems)?;
            self.host(host, routes, providers, &mut names)
        }));
        let mut hosts = hosts?;
        for route in routes.into_iter().flat_map(|checked| &checked.routes) {
            if route.host != HostPattern::Any && !hosts.iter().any(|host| covers(&host.pattern, &route.host))
            {
                let public_url = default_url(&route.host);
                hosts.extend(public_url.map(|public_url| HostSettings {
                    pattern: route.host.clone(),
                    public_url,
                    provider: None,
                }));
            }
        }
        Ok(hosts)
    }

    fn host(
        &mut self,
        host: file::Host,
        routes: Option<&Checked>,
        providers: Ids<'_>,
        names: &mut Vec<HostPattern>,
    ) -> Result<HostSettings, Told> {
        let file::Host { name, public_url, provider, danger_insecure_http } = host;
        let (name_place, danger_place) = (name.place.clone(), danger_insecure_http.place.clone());
        let url_place = public_url.place.clone();
        let pattern = name
            .parse(&mut self.problems, pattern)
            .check(&mut self.problems, |pattern| rules::once(pattern, names, "has a [[host]] already"))
            .required(&mut self.problems, "a host name, or \"*.\" and a host name")?;
        let danger = danger_insecure_http.or(false)?;
        let provider = self.host_provider(provider, &pattern, routes, providers.all);
        let written =
            public_url.parse(&mut self.problems, |text| public(text, &pattern, danger)).optional()?;
        let Some(public_url) = written.or_else(|| default_url(&pattern)) else {
            return Err(self.problems.add(&name_place, "is a name that no URL can be made of"));
        };
        if danger && public_url.scheme() == "https" {
            return Err(self.problems.add(&danger_place, "has no effect: the public URL is https"));
        }
        let provider = provider?;
        let takes = |id: &&String| provider.as_ref().is_none_or(|only| *only.0 == ***id);
        if let Some(id) = providers.posting.iter().find(takes).filter(|_| public_url.scheme() == "http") {
            let message = format!(
                "is plain http, where the provider {id:?} can't answer by form_post: the cookie that guards the \
                 answer needs https"
            );
            return Err(self.problems.add(&url_place, message));
        }
        self.warn_if_unused(&pattern, routes);
        self.warn_of_http(&pattern, &public_url);
        Ok(HostSettings { pattern, public_url, provider })
    }

    /// A route below the host that names another provider could never be passed.
    fn host_provider(
        &mut self,
        field: Field<String>,
        pattern: &HostPattern,
        routes: Option<&Checked>,
        providers: &[String],
    ) -> Result<Option<ProviderId>, Told> {
        let routes = routes.map(|checked| checked.routes.as_slice()).unwrap_or_default();
        let rule = |id: String| {
            if !providers.contains(&id) {
                return Err("is not the id of a [[provider]]".to_owned());
            }
            let id = ProviderId(id.into());
            let is_other = |route: &&Route| {
                covers(pattern, &route.host) && route.provider.as_ref().is_some_and(|other| *other != id)
            };
            match routes.iter().find(is_other) {
                Some(route) => Err(format!("is not the provider that the route {} names", route.name)),
                None => Ok(id),
            }
        };
        field.check(&mut self.problems, rule).optional()
    }

    fn warn_if_unused(&mut self, pattern: &HostPattern, routes: Option<&Checked>) {
        let Some(Checked { routes, .. }) = routes else { return };
        let reaches = |host: &HostPattern| covers(host, pattern) || covers(pattern, host);
        if !routes.iter().any(|route| reaches(&route.host)) {
            self.warnings.push(format!("host {pattern}: no route is for this host"));
        }
    }

    fn warn_of_http(&mut self, pattern: &HostPattern, url: &Url) {
        if url.scheme() != "http" {
            return;
        }
        let cookies = "its cookies go without `Secure` and the `__Host-` prefix";
        self.warnings.push(if rules::is_loopback(url) {
            format!("host {pattern}: plain http on a loopback host, {cookies}")
        } else {
            format!(
                "host {pattern}: danger_insecure_http: sessions can be read and stolen on the way, {cookies}"
            )
        });
    }
}

/// The name of a `[[host]]`.
fn pattern(text: &str) -> Result<HostPattern, String> {
    match HostPattern::parse(text) {
        Ok(HostPattern::Any) => Err("can't have a public URL; write a name, or \"*.\" and a name".to_owned()),
        Ok(pattern) => Ok(pattern),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether every name that `narrow` matches is matched by `wide`.
fn covers(wide: &HostPattern, narrow: &HostPattern) -> bool {
    match (wide, narrow) {
        (HostPattern::Any, _) => true,
        (HostPattern::Exact(wide), HostPattern::Exact(narrow)) => wide == narrow,
        (HostPattern::Wildcard(wide), HostPattern::Exact(narrow) | HostPattern::Wildcard(narrow)) => {
            narrow.ends_with(&**wide)
        }
        (HostPattern::Exact(_), HostPattern::Wildcard(_)) | (_, HostPattern::Any) => false,
    }
}

/// The host part of the pattern's public URL.
fn url_host(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(name) => name.to_string(),
        HostPattern::Wildcard(suffix) => format!("{PLACEHOLDER}{suffix}"),
        HostPattern::Any => String::new(),
    }
}

fn default_url(pattern: &HostPattern) -> Option<Url> {
    Url::parse(&format!("https://{}/", url_host(pattern))).ok()
}

/// A public URL as written: of the pattern's own name, https unless it is loopback or danger is asked for.
fn public(text: &str, pattern: &HostPattern, danger: bool) -> Result<Url, String> {
    let url = rules::origin_url(&text.replacen("://*.", &format!("://{PLACEHOLDER}."), 1))?;
    if url.host_str() != Some(&url_host(pattern)) {
        return Err(format!("is not a URL of {pattern}"));
    }
    if url.scheme() == "http" && !danger && !rules::is_loopback(&url) {
        let ways = "write https, or danger_insecure_http = true if nobody can listen on the way";
        return Err(format!("is plain http on a host that is not loopback; {ways}"));
    }
    Ok(url)
}
