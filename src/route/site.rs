//! What is configured for a host: its public URL and what follows from it.

use std::sync::Arc;

use foldhash::HashMap;
use http::header::HeaderValue;
use url::{Position, Url};

use super::HostPattern;
use super::host::suffixes;
use crate::oidc::ProviderId;
use crate::session::cookie::CookieNames;
use crate::web::Host;

/// A `[[host]]`, checked: every host of a route that is not "any" has one (made by `config` as
/// `https://NAME` where none is written).
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// Exact or wildcard.
    pub pattern: HostPattern,
    /// For an exact name, its URL. For a wildcard a URL whose host is the pattern's `*.suffix`
    /// spelled with the placeholder label `wildcard`, replaced by the request's name once it matched.
    pub public_url: Url,
    /// The one provider whose sign-ins and sessions count on this host; `None`: every provider's.
    pub provider: Option<ProviderId>,
}

/// One request's host, resolved.
#[derive(Clone, Debug)]
pub struct Site {
    /// The canonical name: the scope of cookies.
    pub name: Arc<str>,
    /// The public URL: scheme, name and port only, path `/` (AR-5).
    pub public_url: Arc<Url>,
    /// The one provider whose sign-ins and sessions count here; `None`: every provider's.
    pub provider: Option<ProviderId>,
    /// Its cookie names.
    pub cookies: CookieNames,
    /// `X-Forwarded-Proto` for upstreams: the scheme of the public URL.
    pub forwarded_proto: HeaderValue,
    /// `X-Forwarded-Host` for upstreams: host and port of the public URL.
    pub forwarded_host: HeaderValue,
}

/// What is configured for the hosts: their public URLs.
///
/// The sites of exact names are built once; those of wildcards for each request, from the URL of the
/// pattern and the name that matched it.
#[derive(Debug, Default)]
pub struct HostTable {
    exact: HashMap<Arc<str>, Arc<Site>>,
    /// By suffix: `.example.com`.
    wildcard: HashMap<Arc<str>, (Url, Option<ProviderId>)>,
}

impl HostTable {
    /// Compiles the hosts. Of two with the same pattern the first counts; a URL that is not http or
    /// https makes no site, and a pattern for any host has none.
    #[must_use]
    pub fn new(hosts: &[HostSettings]) -> Self {
        let mut table = Self::default();
        for host in hosts {
            table.insert(host);
        }
        table
    }

    fn insert(&mut self, host: &HostSettings) {
        let HostSettings { pattern, public_url, provider } = host;
        let Some(url) = origin_of(public_url) else { return };
        match pattern {
            HostPattern::Exact(name) => {
                let Some(site) = Site::new(Arc::clone(name), url, provider.clone()) else { return };
                self.exact.entry(Arc::clone(name)).or_insert_with(|| Arc::new(site));
            }
            HostPattern::Wildcard(suffix) => {
                self.wildcard.entry(Arc::clone(suffix)).or_insert_with(|| (url, provider.clone()));
            }
            HostPattern::Any => {}
        }
    }

    /// The site of a request: by exact name, then by the longest wildcard. The port, if the request
    /// names one, must be the public URL's or the listener's own; else there is no site (PP-7).
    #[must_use]
    pub fn find(&self, host: &Host, local_port: u16) -> Option<Arc<Site>> {
        self.find_by(host.name(), host.port(), local_port)
    }

    fn find_by(&self, name: &str, port: Option<u16>, local_port: u16) -> Option<Arc<Site>> {
        let site = self.exact.get(name).cloned().or_else(|| self.below_wildcard(name))?;
        let is_ours = |port| port == local_port || Some(port) == site.public_url.port_or_known_default();
        port.is_none_or(is_ours).then_some(site)
    }

    fn below_wildcard(&self, name: &str) -> Option<Arc<Site>> {
        let (mut url, provider) = suffixes(name).find_map(|suffix| self.wildcard.get(suffix))?.clone();
        url.set_host(Some(name)).ok()?;
        // A name that a URL spells in another way than the request is nobody's.
        if url.host_str() != Some(name) {
            return None;
        }
        Site::new(name.into(), url, provider).map(Arc::new)
    }
}

impl Site {
    /// Whether sign-ins and sessions of a provider count here.
    #[must_use]
    pub fn takes(&self, provider: &ProviderId) -> bool {
        self.provider.as_ref().is_none_or(|only| only == provider)
    }

    /// The origin as a browser writes it: `https://wiki.example.com`.
    #[must_use]
    pub fn origin(&self) -> String {
        self.public_url.origin().ascii_serialization()
    }

    fn new(name: Arc<str>, public_url: Url, provider: Option<ProviderId>) -> Option<Self> {
        let scheme = match public_url.scheme() {
            "https" => "https",
            "http" => "http",
            _ => return None,
        };
        let authority = &public_url[Position::BeforeHost..Position::AfterPort];
        Some(Self {
            name,
            provider,
            cookies: CookieNames::new(scheme == "https"),
            forwarded_proto: HeaderValue::from_static(scheme),
            forwarded_host: HeaderValue::from_str(authority).ok()?,
            public_url: Arc::new(public_url),
        })
    }
}

/// Scheme, host and port of a URL and nothing else; `None` where it has no host.
fn origin_of(url: &Url) -> Option<Url> {
    Url::parse(&url.origin().ascii_serialization()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(hosts: &[(&str, &str)]) -> HostTable {
        let settings = |(name, url): &(&str, &str)| HostSettings {
            pattern: match name.strip_prefix('*') {
                None => HostPattern::Exact((*name).into()),
                Some("") => HostPattern::Any,
                Some(suffix) => HostPattern::Wildcard(suffix.into()),
            },
            public_url: Url::parse(url).unwrap(),
            provider: Some(ProviderId((*name).into())),
        };
        HostTable::new(&hosts.iter().map(settings).collect::<Vec<_>>())
    }

    fn public_url(table: &HostTable, name: &str) -> Option<String> {
        table.find_by(name, None, 443).map(|site| site.public_url.to_string())
    }

    #[test]
    fn a_site_is_found_by_exact_name_then_by_the_longest_wildcard() {
        let table = table(&[
            ("*.example.com", "https://wildcard.example.com"),
            ("*.b.example.com", "https://wildcard.b.example.com:8443"),
            ("wiki.example.com", "https://public.example.org"),
            ("*", "https://any.example"),
        ]);
        let cases = [
            ("wiki.example.com", Some("https://public.example.org/")),
            ("x.example.com", Some("https://x.example.com/")),
            ("x.y.example.com", Some("https://x.y.example.com/")),
            ("x.b.example.com", Some("https://x.b.example.com:8443/")),
            ("example.com", None),
            ("evil.test", None),
            ("wiki.example.com.evil.test", None),
            ("notexample.com", None),
        ];
        for (name, wanted) in cases {
            assert_eq!(public_url(&table, name).as_deref(), wanted, "{name}");
        }
    }

    #[test]
    fn a_site_knows_its_cookies_and_what_upstreams_are_told() {
        let table = table(&[
            ("a.test", "https://a.test"),
            ("b.test", "http://b.test:8080/"),
            ("c.test", "https://[::1]:8443"),
            ("*.w.test", "http://wildcard.w.test:81"),
        ]);
        let cases = [
            ("a.test", true, "https", "a.test"),
            ("b.test", false, "http", "b.test:8080"),
            ("c.test", true, "https", "[::1]:8443"),
            ("x.w.test", false, "http", "x.w.test:81"),
        ];
        for (name, secure, proto, host) in cases {
            let site = table.find_by(name, None, 1).unwrap();
            assert_eq!(&*site.name, name);
            let pattern = if name.ends_with(".w.test") { "*.w.test" } else { name };
            assert_eq!(site.provider, Some(ProviderId(pattern.into())), "{name}");
            assert!(site.takes(&ProviderId(pattern.into())) && !site.takes(&ProviderId("x".into())));
            assert_eq!(site.cookies, CookieNames::new(secure), "{name}");
            assert_eq!(site.forwarded_proto, proto, "{name}");
            assert_eq!(site.forwarded_host, host, "{name}");
        }
    }

    #[test]
    fn the_public_url_is_an_origin_whatever_was_written() {
        let table = table(&[("a.test", "https://u:p@a.test:443/x?y#z")]);
        assert_eq!(public_url(&table, "a.test").as_deref(), Some("https://a.test/"));
    }

    #[test]
    fn a_port_must_be_the_public_one_or_the_listeners() {
        let table = table(&[
            ("a.test", "https://a.test"),
            ("b.test", "https://b.test:9443"),
            ("*.w.test", "http://wildcard.w.test"),
        ]);
        let cases = [
            ("none", "a.test", None, true),
            ("the default of https", "a.test", Some(443), true),
            ("the listener's", "a.test", Some(8443), true),
            ("the default of http", "a.test", Some(80), false),
            ("another", "a.test", Some(1), false),
            ("the public one", "b.test", Some(9443), true),
            ("the default, where the public one is another", "b.test", Some(443), false),
            ("the default of http below a wildcard", "x.w.test", Some(80), true),
            ("another below a wildcard", "x.w.test", Some(443), false),
        ];
        for (what, name, port, wanted) in cases {
            assert_eq!(table.find_by(name, port, 8443).is_some(), wanted, "{what}");
        }
    }

    #[test]
    fn a_name_that_a_url_spells_in_another_way_has_no_site() {
        let table = table(&[("*.example.com", "https://wildcard.example.com")]);
        for name in ["xn--zzzzzz-.example.com", "a%62.example.com", "A.example.com", "a b.example.com"] {
            assert_eq!(public_url(&table, name), None, "{name}");
        }
        assert_eq!(public_url(&table, "a_b.example.com").as_deref(), Some("https://a_b.example.com/"));
    }

    #[test]
    fn what_is_no_site_of_the_web_is_none() {
        let table = table(&[
            ("a.test", "ftp://a.test"),
            ("b.test", "data:b.test"),
            ("*.w.test", "ws://wildcard.w.test"),
            ("*", "https://any.test"),
        ]);
        for name in ["a.test", "b.test", "x.w.test", "any.test", "*"] {
            assert_eq!(public_url(&table, name), None, "{name}");
        }
    }

    #[test]
    fn of_two_urls_for_one_pattern_the_first_counts() {
        let table = table(&[
            ("a.test", "https://one.test"),
            ("a.test", "https://two.test"),
            ("*.w.test", "https://wildcard.w.test:1"),
            ("*.w.test", "https://wildcard.w.test:2"),
        ]);
        assert_eq!(public_url(&table, "a.test").as_deref(), Some("https://one.test/"));
        assert_eq!(public_url(&table, "x.w.test").as_deref(), Some("https://x.w.test:1/"));
    }

    #[test]
    fn the_site_of_an_exact_name_is_built_once() {
        let table = table(&[("a.test", "https://a.test")]);
        let find = || table.find_by("a.test", None, 443).unwrap();
        assert!(Arc::ptr_eq(&find(), &find()));
    }
}
