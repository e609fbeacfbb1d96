//! Where a person goes after sign-in: never to another origin (RD-1 to RD-5).

use url::Url;

use super::Target;

/// The longest return URL, as asked for and as kept (RD-2). It travels in the sealed cookie of the
/// login attempt, which browsers hold to 4096 bytes.
const MAX_BYTES: usize = 2048;

/// A path (with query) on the gateway's own host, checked and re-serialised. Starts with one `/`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ReturnTo(String);

impl ReturnTo {
    /// The root of the host.
    #[must_use]
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Checks what a request asked for: a path, or an absolute URL of the same origin as `base`
    /// (the host's public URL). Parsed as a browser parses it (WHATWG), compared by origin, then
    /// the parser's own serialisation of path and query is kept (the fragment is dropped). It must be
    /// a canonical [`Target`], as the person's next request will be held to that. URLs under
    /// `endpoint_prefix` (for example `/oauth2`) are not allowed (RD-3).
    ///
    /// Returns `None` for everything else; the caller uses [`ReturnTo::root`].
    #[must_use]
    pub fn parse(input: &str, base: &Url, endpoint_prefix: &str) -> Option<Self> {
        if input.len() > MAX_BYTES || input.contains(|c: char| c == '\\' || c.is_control()) {
            return None;
        }
        if !is_path(input) && !is_absolute(input) {
            return None;
        }
        let url = base.join(input).ok().filter(|url| url.origin() == base.origin())?;
        let path_and_query = path_and_query(&url);
        let target = Target::parse_with_slashes(path_and_query.as_bytes()).ok()?;
        let paths = [Some(target.path()), target.split_path()];
        let is_own = paths.into_iter().flatten().any(|path| is_below(path, endpoint_prefix));
        let is_allowed = path_and_query.len() <= MAX_BYTES && !is_own;
        is_allowed.then_some(Self(path_and_query))
    }

    /// The path and query.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Starts with exactly one slash, whoever decodes it (RD-2).
fn is_path(input: &str) -> bool {
    let Some(rest) = input.strip_prefix('/') else { return false };
    let escape = rest.get(..3).unwrap_or_default();
    !rest.starts_with('/') && !escape.eq_ignore_ascii_case("%2f") && !escape.eq_ignore_ascii_case("%5c")
}

/// An `http` or `https` URL with its two slashes and an authority that is nothing but a plain host and
/// port (RD-2): a browser maps non-ASCII letters, and userinfo looks like a host.
fn is_absolute(input: &str) -> bool {
    let Some((scheme, rest)) = input.split_once("://") else { return false };
    let is_web = ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    is_web && !authority.is_empty() && authority.bytes().all(is_plain)
}

/// As the parser writes them.
fn path_and_query(url: &Url) -> String {
    let query = url.query().map(|query| format!("?{query}"));
    format!("{}{}", url.path(), query.unwrap_or_default())
}

/// Whether a path is `prefix` or lies below it.
fn is_below(path: &str, prefix: &str) -> bool {
    let rest = path.strip_prefix(prefix.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One payload a line; `#` starts a comment.
    const PAYLOADS: &str = include_str!("../../tests/data/open_redirects.txt");

    fn base() -> Url {
        "https://app.test/".parse().unwrap()
    }

    fn parse(input: &str) -> Option<String> {
        ReturnTo::parse(input, &base(), "/oauth2").map(|return_to| return_to.0)
    }

    fn payloads() -> Vec<&'static str> {
        PAYLOADS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
    }

    /// What a handler may make of a payload before it gets here.
    fn spellings(payload: &str) -> Vec<String> {
        let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let once = decode(payload);
        let twice = decode(&once);
        vec![payload.to_owned(), once, twice]
    }

    /// Asserts that a browser on `base` stays there.
    fn assert_stays(input: &str, return_to: &str) {
        let resolved = base().join(return_to).unwrap();
        assert_eq!(resolved.origin(), base().origin(), "{input:?} leads away as {return_to:?}");
        assert!(return_to.starts_with('/'), "{input:?} gives {return_to:?}");
        assert!(
            !return_to.starts_with("//") && !return_to.starts_with("/\\"),
            "{input:?} gives {return_to:?}"
        );
        assert!(return_to.bytes().all(|byte| byte.is_ascii_graphic()), "{input:?} gives {return_to:?}");
        assert_eq!(parse(return_to).as_deref(), Some(return_to), "{input:?} isn't accepted again");
    }

    #[test]
    fn a_path_or_url_of_this_host_is_kept_as_the_parser_writes_it() {
        let rows = [
            ("/", "/"),
            ("/app", "/app"),
            ("/app/?a=b&c=/d//e", "/app/?a=b&c=/d//e"),
            ("/app?", "/app?"),
            ("/app#top", "/app"),
            ("/caf\u{e9}?q=\u{e9}", "/caf%C3%A9?q=%C3%A9"),
            ("/a b?c d", "/a%20b?c%20d"),
            ("/a?rd=https://evil.test/", "/a?rd=https://evil.test/"),
            ("/a?x=%2F%2Fevil.test", "/a?x=%2F%2Fevil.test"),
            ("/a/../b", "/b"),
            ("/a/%2e%2e/b", "/b"),
            ("/oauth2extra", "/oauth2extra"),
            ("/@evil.test", "/@evil.test"),
            ("/evil.test", "/evil.test"),
            ("/files/a%2fb", "/files/a%2fb"),
            ("/oauth2%2fstart", ""),
            ("/files/a%2f%2fevil.test", ""),
            ("/https://x", ""),
            ("https://app.test", "/"),
            ("https://app.test/app?x#y", "/app?x"),
            ("https://app.test:443/app", "/app"),
            ("HTTPS://APP.TEST/app", "/app"),
            ("https://app.test?x", "/?x"),
        ];
        for (input, expected) in rows {
            let expected = (!expected.is_empty()).then(|| expected.to_owned());
            assert_eq!(parse(input), expected, "{input}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let long = format!("/{}", "a".repeat(MAX_BYTES));
        let long_when_escaped = format!("/{}", "\u{e9}".repeat(MAX_BYTES / 4));
        let long_before_parsing = format!("/{}b", "a/../".repeat(MAX_BYTES / 4));
        let rows = [
            ("empty", ""),
            ("relative", "app"),
            ("query only", "?x"),
            ("fragment only", "#x"),
            ("two slashes", "//evil.test"),
            ("two slashes, our host", "//app.test/x"),
            ("slash and backslash", "/\\evil.test"),
            ("backslash later", "/a\\b"),
            ("backslashes after the scheme", "https:\\\\app.test/"),
            ("tab between slashes", "/\t/evil.test"),
            ("carriage return", "/\r/evil.test"),
            ("line feed at the end", "/app\n"),
            ("NUL", "/app\0"),
            ("C1 control", "/app\u{85}"),
            ("leading space", " /app"),
            ("leading no-break space", "\u{a0}/app"),
            ("escaped slash second", "/%2fevil.test"),
            ("escaped slash second, upper case", "/%2Fevil.test"),
            ("escaped backslash second", "/%5cevil.test"),
            ("escaped slash later", "/a/%2fevil.test"),
            ("dots before two slashes", "/..//evil.test"),
            ("dot before two slashes", "/.//evil.test"),
            ("escaped dots before two slashes", "/%2e%2e//evil.test"),
            ("parameter", "/a;b"),
            ("two slashes inside", "/a//b"),
            ("another host", "https://evil.test/"),
            ("our host as a prefix", "https://app.test.evil.test/"),
            ("our host as a suffix", "https://evilapp.test/"),
            ("below our host", "https://sub.app.test/"),
            ("our host by http", "http://app.test/"),
            ("our host with a port", "https://app.test:444/"),
            ("userinfo", "https://app.test@evil.test/"),
            ("userinfo before our host", "https://u@app.test/"),
            ("empty userinfo", "https://@app.test/"),
            ("no slashes after the scheme", "https:app.test/"),
            ("one slash after the scheme", "https:/app.test/"),
            ("three slashes after the scheme", "https:///app.test/"),
            ("full-width letters", "https://\u{ff41}pp.test/"),
            ("an ideographic full stop", "https://app\u{3002}test/"),
            ("an escaped host", "https://%61pp.test/"),
            ("a soft hyphen", "https://app\u{ad}.test/"),
            ("another scheme", "javascript:alert(1)"),
            ("another scheme with slashes", "ftp://app.test/"),
            ("data", "data:text/html,x"),
            ("no host", "https://"),
            ("the endpoints", "/oauth2"),
            ("the endpoints, a slash", "/oauth2/"),
            ("an endpoint", "/oauth2/sign_out?rd=/"),
            ("an endpoint, absolute", "https://app.test/oauth2/start"),
            ("an endpoint, escaped", "/%6fauth2/start"),
            ("an endpoint, by dots", "/a/../oauth2/start"),
            ("too long", &long),
            ("too long when escaped", &long_when_escaped),
            ("too long before it is parsed", &long_before_parsing),
        ];
        for (name, input) in rows {
            assert_eq!(parse(input), None, "{name}");
        }
    }

    #[test]
    fn the_longest_return_url_is_kept() {
        let input = format!("/{}", "a".repeat(MAX_BYTES - 1));
        assert_eq!(parse(&input), Some(input));
    }

    #[test]
    fn a_base_with_a_port_is_compared_with_its_port() {
        let base = "http://localhost:4180/".parse().unwrap();
        let rows = [
            ("/app", Some("/app")),
            ("http://localhost:4180/app", Some("/app")),
            ("http://localhost/app", None),
            ("http://localhost:4181/app", None),
            ("https://localhost:4180/app", None),
            ("http://127.0.0.1:4180/app", None),
        ];
        for (input, expected) in rows {
            let return_to = ReturnTo::parse(input, &base, "/oauth2");
            assert_eq!(return_to.as_ref().map(ReturnTo::as_str), expected, "{input}");
        }
    }

    #[test]
    fn lc_096_no_known_open_redirect_leads_to_another_origin() {
        for input in payloads().iter().flat_map(|payload| spellings(payload)) {
            if let Some(return_to) = parse(&input) {
                assert_stays(&input, &return_to);
            }
        }
    }

    #[test]
    fn most_known_open_redirects_are_refused_and_not_repaired() {
        let (accepted, refused): (Vec<_>, Vec<_>) =
            payloads().into_iter().partition(|line| parse(line).is_some());
        assert!(accepted.len() * 10 < refused.len(), "accepted: {accepted:#?}");
    }

    #[test]
    fn many_of_the_payloads_would_lead_a_browser_away() {
        let leaves = |payload: &&str| {
            spellings(payload)
                .iter()
                .any(|input| base().join(input).is_ok_and(|url| url.origin() != base().origin()))
        };
        let away = payloads().iter().filter(|payload| leaves(payload)).count();
        assert!(away >= 150, "only {away} lead away");
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_stays_on_this_host(input in "(https?:|/|)[/\\\\.%\t@:?#;a-z0-9\u{3002}-]{0,12}(app|evil)?.test[/\\\\@#?a-z]{0,6}") {
            if let Some(return_to) = parse(&input) {
                assert_stays(&input, &return_to);
            }
        }
    }
}
