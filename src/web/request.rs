//! A request as the pipeline sees it: canonical target and host, borrowed headers.

use std::fmt;
use std::net::IpAddr;

use http::header::{ACCEPT, CONNECTION, HeaderName, ORIGIN, REFERER, UPGRADE, USER_AGENT};
use http::{HeaderMap, Method};
use uuid::{NoContext, Timestamp, Uuid};

use super::{Host, Target};

/// The name of one request in logs, on pages and towards the upstream (`X-Request-Id`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(Uuid);

impl RequestId {
    /// A new id; ordered by time.
    #[must_use]
    pub fn new() -> Self {
        // Without a counter, which all threads would share: the order within a millisecond is of no use here.
        Self(Uuid::new_v7(Timestamp::now(NoContext)))
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

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// Where browsers say that a request was made ahead of the person's wish.
const PURPOSES: [HeaderName; 3] = [
    HeaderName::from_static("sec-purpose"),
    HeaderName::from_static("purpose"),
    HeaderName::from_static("x-moz"),
];

/// The most characters of a `User-Agent` that are kept.
const MAX_USER_AGENT_CHARS: usize = 256;

impl<'a> Request<'a> {
    /// Whether a person's browser would follow a redirect to sign-in and come back (AR-9): GET or
    /// HEAD, of a document as far as `Sec-Fetch-Mode` and `Sec-Fetch-Dest` tell, without
    /// `X-Requested-With`, no WebSocket, and with an `Accept` that asks for a page: absent, naming
    /// HTML, or nothing but `*/*`.
    #[must_use]
    pub fn is_navigation(&self) -> bool {
        let is_safe = matches!(*self.method, Method::GET | Method::HEAD);
        let accepts_page = self.names_html() || self.accepted().all(|range| range == b"*/*");
        is_safe && accepts_page && !self.is_made_by_a_script()
    }

    /// Whether an error is told as a page (else as JSON): to a document request of any method that
    /// names HTML in its `Accept`.
    #[must_use]
    pub fn wants_html(&self) -> bool {
        self.names_html() && !self.is_made_by_a_script()
    }

    /// Whether a browser says that the page it asks for is shown in a frame.
    #[must_use]
    pub fn is_framed(&self) -> bool {
        matches!(single(self.headers, &SEC_FETCH_DEST), Single::One(b"iframe" | b"frame"))
    }

    /// Whether it opens a WebSocket (RFC 6455 4.1): GET, `Upgrade: websocket`, `Connection: upgrade`.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        let lists =
            |name, token: &[u8]| list(self.headers, name).any(|item| item.eq_ignore_ascii_case(token));
        *self.method == Method::GET && lists(&UPGRADE, b"websocket") && lists(&CONNECTION, b"upgrade")
    }

    /// Whether a browser fetches it ahead of the person's wish: it must not use up what works once
    /// (CB-4).
    #[must_use]
    pub fn is_prefetch(&self) -> bool {
        let ahead =
            |item: &[u8]| item.eq_ignore_ascii_case(b"prefetch") || item.eq_ignore_ascii_case(b"prerender");
        PURPOSES.iter().flat_map(|name| list(self.headers, name)).any(|item| ahead(without_parameters(item)))
    }

    /// Where it comes from, seen from the host whose pages have the origin `own`
    /// (`https://wiki.example.com`, as a browser writes it; CS-2, CS-3).
    ///
    /// `Sec-Fetch-Site` decides, which no page can forge: `same-origin` and `none` are own, `same-site`,
    /// `cross-site` and everything else are not. Browsers without it say `Origin` on every POST and in every script, which must
    /// equal `own`. With neither, GET and HEAD are own: the top navigations of old browsers carry neither,
    /// and what pages of other sites load comes without our cookies, which are `SameSite=Lax`.
    #[must_use]
    pub fn source(&self, own: &str) -> Source {
        let is_safe = matches!(*self.method, Method::GET | Method::HEAD);
        match (single(self.headers, &SEC_FETCH_SITE), single(self.headers, &ORIGIN)) {
            (Single::One(b"same-origin" | b"none"), _) => Source::Own,
            (Single::Absent, Single::One(sent)) if sent == own.as_bytes() => Source::Own,
            // Links say no origin.
            (Single::Absent, Single::One(_)) if is_safe => Source::Part,
            (Single::One(_), _) | (Single::Absent, Single::One(_)) => self.foreign(is_safe),
            (Single::Absent, Single::Absent) if is_safe => Source::Own,
            (Single::Absent, Single::Absent) if self.is_referred_from(own) => Source::Untold,
            (Single::Absent, Single::Absent) => Source::Form,
            (Single::Several, _) | (_, Single::Several) => Source::Part,
        }
    }

    /// Whether it comes from a page of this host, or from the person's own hand: [`Source::Own`].
    #[must_use]
    pub fn is_from_own_site(&self, origin: &str) -> bool {
        self.source(origin) == Source::Own
    }

    /// What another site makes of it, as far as the browser says.
    fn foreign(&self, is_safe: bool) -> Source {
        if !single(self.headers, &SEC_FETCH_MODE).is_absent_or(|mode| mode == b"navigate") {
            return Source::Part;
        }
        match single(self.headers, &SEC_FETCH_DEST) {
            Single::Absent | Single::One(b"document") if is_safe => Source::Link,
            Single::One(b"iframe" | b"frame") if is_safe => Source::Frame,
            Single::Absent | Single::One(b"document" | b"iframe" | b"frame") => Source::Form,
            Single::One(_) | Single::Several => Source::Part,
        }
    }

    /// Whether `Referer` is absent, or of a page of this host.
    fn is_referred_from(&self, own: &str) -> bool {
        single(self.headers, &REFERER).is_absent_or(|referer| {
            let rest = referer.strip_prefix(own.as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        })
    }

    /// What the client calls itself, at most 256 characters; `None` when that is absent or holds
    /// controls or bytes that are no UTF-8.
    #[must_use]
    pub fn user_agent(&self) -> Option<&'a str> {
        let text = std::str::from_utf8(self.headers.get(USER_AGENT)?.as_bytes()).ok()?;
        if text.chars().any(char::is_control) {
            return None;
        }
        let end = text.char_indices().nth(MAX_USER_AGENT_CHARS).map_or(text.len(), |(at, _)| at);
        text.get(..end)
    }

    /// Whether a script, a subresource or a WebSocket asks, as far as the client tells.
    fn is_made_by_a_script(&self) -> bool {
        let is_document = |dest: &[u8]| matches!(dest, b"document" | b"iframe" | b"frame");
        self.headers.contains_key(X_REQUESTED_WITH)
            || !single(self.headers, &SEC_FETCH_MODE).is_absent_or(|mode| mode == b"navigate")
            || !single(self.headers, &SEC_FETCH_DEST).is_absent_or(is_document)
            || self.is_websocket()
    }

    /// Whether `Accept` names HTML.
    fn names_html(&self) -> bool {
        self.accepted().any(|range| {
            range.eq_ignore_ascii_case(b"text/html") || range.eq_ignore_ascii_case(b"application/xhtml+xml")
        })
    }

    /// The media ranges of `Accept`, without parameters.
    fn accepted(&self) -> impl Iterator<Item = &'a [u8]> {
        list(self.headers, &ACCEPT).map(without_parameters)
    }
}

/// Where a request comes from: [`Request::source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A page of this host, or the person's own hand.
    Own,
    /// Nothing says it, of a request that may change something: a program, hardly a browser.
    Untold,
    /// A link on a page of another site: GET or HEAD of a whole page.
    Link,
    /// The same, shown in a frame.
    Frame,
    /// A form on a page of another site.
    Form,
    /// Anything else that a page of another site does: a script, an image, a WebSocket.
    Part,
}

/// A field that stands at most once in an honest request.
enum Single<'a> {
    Absent,
    One(&'a [u8]),
    Several,
}

impl Single<'_> {
    fn is_absent_or(&self, is_wanted: impl Fn(&[u8]) -> bool) -> bool {
        match self {
            Self::Absent => true,
            Self::One(value) => is_wanted(value),
            Self::Several => false,
        }
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Single<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Single::Absent,
        (Some(value), None) => Single::One(value.as_bytes()),
        (Some(_), Some(_)) => Single::Several,
    }
}

/// The items of a comma-separated field, trimmed, without empty ones.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let fields = headers.get_all(name).into_iter();
    let items = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    items.map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// An item without what follows its first semicolon.
fn without_parameters(item: &[u8]) -> &[u8] {
    item.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;

    use super::*;

    /// Header lines: name and value.
    type Lines = &'static [(&'static str, &'static str)];

    const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
    const NAVIGATE: (&str, &str) = ("sec-fetch-mode", "navigate");
    const DOCUMENT: (&str, &str) = ("sec-fetch-dest", "document");
    const UPGRADE_NOW: [(&str, &str); 2] = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];

    /// A name, a method, header lines, and what they say.
    type Told<'a> = (&'a str, &'a Method, Vec<(&'a str, &'a str)>, Source);

    /// What a request borrows.
    struct Sent {
        method: Method,
        headers: HeaderMap,
        target: Target,
        host: Host,
    }

    impl Sent {
        fn request(&self) -> Request<'_> {
            let Self { method, headers, target, host } = self;
            let client = IpAddr::from([192, 0, 2, 1]);
            Request { id: RequestId::new(), method, target, host, headers, client, local_port: 443 }
        }
    }

    fn sent<V: AsRef<[u8]>>(method: &Method, lines: &[(&str, V)]) -> Sent {
        let header = |(name, value): &(&str, V)| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, HeaderValue::from_bytes(value.as_ref()).unwrap())
        };
        Sent {
            method: method.clone(),
            headers: lines.iter().map(header).collect(),
            target: Target::parse(b"/app").unwrap(),
            host: Host::parse(b"app.test").unwrap(),
        }
    }

    #[test]
    fn a_navigation_is_what_can_follow_a_redirect_to_sign_in() {
        let rows: &[(&str, Method, Lines, bool)] = &[
            ("a browser opens a page", Method::GET, &[HTML, NAVIGATE, DOCUMENT], true),
            ("a browser opens a frame", Method::GET, &[HTML, NAVIGATE, ("sec-fetch-dest", "iframe")], true),
            ("an old browser opens a page", Method::GET, &[HTML], true),
            ("a browser that tells only the mode", Method::GET, &[HTML, NAVIGATE], true),
            ("HEAD", Method::HEAD, &[HTML, NAVIGATE, DOCUMENT], true),
            ("curl", Method::GET, &[("accept", "*/*")], true),
            ("no Accept", Method::GET, &[], true),
            ("an empty Accept", Method::GET, &[("accept", "")], true),
            ("HTML in other case", Method::GET, &[("accept", "TEXT/HTML")], true),
            ("only XHTML", Method::GET, &[("accept", "application/xhtml+xml")], true),
            (
                "HTML in a second Accept",
                Method::GET,
                &[("accept", "application/json"), ("accept", "text/html")],
                true,
            ),
            (
                "an upgrade to something else",
                Method::GET,
                &[HTML, ("connection", "upgrade"), ("upgrade", "h2c")],
                true,
            ),
            ("POST", Method::POST, &[HTML, NAVIGATE, DOCUMENT], false),
            ("OPTIONS", Method::OPTIONS, &[HTML], false),
            ("lower-case get", Method::from_bytes(b"get").unwrap(), &[HTML], false),
            (
                "fetch",
                Method::GET,
                &[("accept", "*/*"), ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")],
                false,
            ),
            ("fetch of HTML", Method::GET, &[HTML, ("sec-fetch-mode", "same-origin")], false),
            (
                "a script",
                Method::GET,
                &[("accept", "*/*"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "script")],
                false,
            ),
            ("an image", Method::GET, &[("sec-fetch-dest", "image")], false),
            ("an image, mode told", Method::GET, &[HTML, NAVIGATE, ("sec-fetch-dest", "image")], false),
            ("an embedded object", Method::GET, &[HTML, NAVIGATE, ("sec-fetch-dest", "object")], false),
            ("two modes", Method::GET, &[HTML, NAVIGATE, NAVIGATE], false),
            ("two destinations", Method::GET, &[HTML, DOCUMENT, ("sec-fetch-dest", "empty")], false),
            ("X-Requested-With", Method::GET, &[HTML, ("x-requested-with", "XMLHttpRequest")], false),
            ("an empty X-Requested-With", Method::GET, &[HTML, ("x-requested-with", "")], false),
            ("JSON only", Method::GET, &[("accept", "application/json")], false),
            ("JSON of an API", Method::GET, &[("accept", "application/vnd.api+json; q=1")], false),
            (
                "JSON first, then anything",
                Method::GET,
                &[("accept", "application/json, text/plain, */*")],
                false,
            ),
            (
                "JSON only, in a navigation",
                Method::GET,
                &[NAVIGATE, DOCUMENT, ("accept", "application/json")],
                false,
            ),
            (
                "an old browser loads an image",
                Method::GET,
                &[("accept", "image/webp,image/*,*/*;q=0.8")],
                false,
            ),
            ("server-sent events", Method::GET, &[("accept", "text/event-stream")], false),
            ("a WebSocket", Method::GET, &[UPGRADE_NOW[0], UPGRADE_NOW[1]], false),
            ("a WebSocket that accepts HTML", Method::GET, &[HTML, UPGRADE_NOW[0], UPGRADE_NOW[1]], false),
        ];
        for (name, method, lines, expected) in rows {
            assert_eq!(sent(method, lines).request().is_navigation(), *expected, "{name}");
        }
    }

    #[test]
    fn a_page_is_shown_to_documents_and_json_to_everything_else() {
        let rows: &[(&str, Method, Lines, bool)] = &[
            ("a browser opens a page", Method::GET, &[HTML, NAVIGATE, DOCUMENT], true),
            ("a browser sends a form", Method::POST, &[HTML, NAVIGATE, DOCUMENT], true),
            ("an old browser sends a form", Method::POST, &[HTML], true),
            ("fetch", Method::GET, &[HTML, ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")], false),
            ("X-Requested-With", Method::POST, &[HTML, ("x-requested-with", "XMLHttpRequest")], false),
            ("JSON", Method::GET, &[("accept", "application/json")], false),
            ("curl", Method::GET, &[("accept", "*/*")], false),
            ("no Accept", Method::GET, &[], false),
            ("a WebSocket", Method::GET, &[HTML, UPGRADE_NOW[0], UPGRADE_NOW[1]], false),
        ];
        for (name, method, lines, expected) in rows {
            assert_eq!(sent(method, lines).request().wants_html(), *expected, "{name}");
        }
    }

    #[test]
    fn a_websocket_is_a_get_whose_upgrade_and_connection_both_say_so() {
        let rows: &[(&str, Method, Lines, bool)] = &[
            ("both", Method::GET, &UPGRADE_NOW, true),
            ("other case", Method::GET, &[("connection", "UPGRADE"), ("upgrade", "WebSocket")], true),
            (
                "among others",
                Method::GET,
                &[("connection", "x"), ("connection", " upgrade"), ("upgrade", "foo, websocket")],
                true,
            ),
            ("no Connection", Method::GET, &[("upgrade", "websocket")], false),
            (
                "Connection without upgrade",
                Method::GET,
                &[("connection", "keep-alive"), ("upgrade", "websocket")],
                false,
            ),
            ("no Upgrade", Method::GET, &[("connection", "upgrade")], false),
            ("another protocol", Method::GET, &[("connection", "upgrade"), ("upgrade", "websocketx")], false),
            ("POST", Method::POST, &UPGRADE_NOW, false),
        ];
        for (name, method, lines, expected) in rows {
            assert_eq!(sent(method, lines).request().is_websocket(), *expected, "{name}");
        }
    }

    #[test]
    fn a_prefetch_is_known_by_any_of_the_fields_that_browsers_send() {
        let rows: &[(&str, Lines, bool)] = &[
            ("nothing", &[], false),
            ("Sec-Purpose", &[("sec-purpose", "prefetch")], true),
            ("prerendering", &[("sec-purpose", "prefetch;prerender")], true),
            ("with spaces", &[("sec-purpose", "x , prefetch ; anonymous-client-ip")], true),
            ("Purpose", &[("purpose", "prefetch")], true),
            ("Purpose in other case", &[("purpose", "Prefetch")], true),
            ("prerender", &[("purpose", "prerender")], true),
            ("old Firefox", &[("x-moz", "prefetch")], true),
            ("another purpose", &[("sec-purpose", "fictitious")], false),
            ("a longer word", &[("purpose", "prefetching")], false),
        ];
        for (name, lines, expected) in rows {
            assert_eq!(sent(&Method::GET, lines).request().is_prefetch(), *expected, "{name}");
        }
    }

    #[test]
    fn cs_2_cs_3_where_a_request_comes_from_is_what_its_browser_says() {
        use Source::{Form, Frame, Link, Own, Part, Untold};
        let (get, post) = (&Method::GET, &Method::POST);
        let site = |site| ("sec-fetch-site", site);
        let origin = |origin| ("origin", origin);
        let (own, foreign, null) = ("https://app.test", "https://evil.test", "null");
        let (frame, image) = (("sec-fetch-dest", "iframe"), ("sec-fetch-dest", "image"));
        let (cors, no_cors) = (("sec-fetch-mode", "cors"), ("sec-fetch-mode", "no-cors"));
        let (socket, options) = (("sec-fetch-mode", "websocket"), &Method::OPTIONS);
        let rows: &[Told<'_>] = &[
            ("a link", get, vec![site("cross-site"), NAVIGATE, DOCUMENT], Link),
            ("a link of a sister host", get, vec![site("same-site"), NAVIGATE, DOCUMENT], Link),
            ("a link, HEAD", &Method::HEAD, vec![site("cross-site"), NAVIGATE, DOCUMENT], Link),
            ("a link that says the site alone", get, vec![site("cross-site")], Link),
            ("a site of years to come", get, vec![site("cross-galaxy"), NAVIGATE, DOCUMENT], Link),
            ("a page in a frame", get, vec![site("cross-site"), NAVIGATE, frame], Frame),
            ("a form", post, vec![site("cross-site"), NAVIGATE, DOCUMENT, origin(foreign)], Form),
            ("a form into a frame", post, vec![site("cross-site"), NAVIGATE, frame], Form),
            ("a form of an honest origin", post, vec![site("cross-site"), NAVIGATE, origin(own)], Form),
            ("an image", get, vec![site("cross-site"), no_cors, image], Part),
            ("an image that navigates", get, vec![site("cross-site"), NAVIGATE, image], Part),
            ("a script", post, vec![site("cross-site"), cors, origin(foreign)], Part),
            ("a preflight", options, vec![site("cross-site"), cors, origin(foreign)], Part),
            ("a WebSocket", get, vec![site("same-site"), socket, origin(foreign)], Part),
            ("two sites", get, vec![site("same-origin"), site("cross-site")], Part),
            ("own page", post, vec![site("same-origin"), cors, origin(own)], Own),
            ("typed", get, vec![site("none"), NAVIGATE, DOCUMENT], Own),
            ("old, own form", post, vec![origin(own)], Own),
            ("old, form", post, vec![origin(foreign)], Form),
            ("old, form without an origin", post, vec![origin(null)], Form),
            ("old, preflight", options, vec![origin(foreign)], Form),
            ("old, script or WebSocket", get, vec![origin(foreign)], Part),
            ("old, in a sandbox", get, vec![origin(null)], Part),
            ("two origins", post, vec![origin(own), origin(own)], Part),
            ("old, link", get, vec![("referer", "https://evil.test/")], Own),
            ("a program", post, vec![], Untold),
            ("older, own form", post, vec![("referer", "https://app.test/page")], Untold),
            ("older, the origin alone", post, vec![("referer", "https://app.test")], Untold),
            ("older, form", post, vec![("referer", "https://evil.test/")], Form),
            ("older, a longer name", post, vec![("referer", "https://app.test.evil.test/")], Form),
            ("older, two", post, vec![("referer", own), ("referer", own)], Form),
        ];
        for (name, method, lines, wanted) in rows {
            let source = sent(method, lines).request().source("https://app.test");
            assert_eq!(source, *wanted, "{name}");
        }
    }

    #[test]
    fn a_request_of_another_site_is_not_taken_for_our_own() {
        let own = ("origin", "https://app.test");
        let foreign = ("origin", "https://evil.test");
        let rows = [
            ("our page", Method::POST, vec![("sec-fetch-site", "same-origin")], true),
            ("the address bar", Method::GET, vec![("sec-fetch-site", "none")], true),
            (
                "our page without a referrer",
                Method::POST,
                vec![("sec-fetch-site", "same-origin"), ("origin", "null")],
                true,
            ),
            ("a neighbour", Method::GET, vec![("sec-fetch-site", "same-site")], false),
            ("another site", Method::GET, vec![("sec-fetch-site", "cross-site")], false),
            (
                "another site with our origin",
                Method::POST,
                vec![("sec-fetch-site", "cross-site"), own],
                false,
            ),
            ("a word unknown", Method::GET, vec![("sec-fetch-site", "sibling")], false),
            ("other case", Method::GET, vec![("sec-fetch-site", "Same-Origin")], false),
            ("two answers", Method::GET, vec![("sec-fetch-site", "none"), ("sec-fetch-site", "none")], false),
            ("old browser, our origin", Method::POST, vec![own], true),
            ("old browser, another origin", Method::POST, vec![foreign], false),
            ("old browser, another origin, GET", Method::GET, vec![foreign], false),
            ("old browser, no origin told", Method::POST, vec![("origin", "null")], false),
            (
                "old browser, our host with a port",
                Method::POST,
                vec![("origin", "https://app.test:444")],
                false,
            ),
            ("old browser, our host by http", Method::POST, vec![("origin", "http://app.test")], false),
            (
                "old browser, our host as a prefix",
                Method::POST,
                vec![("origin", "https://app.test.evil.test")],
                false,
            ),
            ("old browser, two origins", Method::POST, vec![own, own], false),
            ("old browser, GET", Method::GET, Vec::new(), true),
            ("old browser, HEAD", Method::HEAD, vec![], true),
            ("old browser, POST", Method::POST, vec![], false),
            ("old browser, DELETE", Method::DELETE, vec![], false),
        ];
        for (name, method, lines, expected) in rows {
            let own = sent(&method, &lines).request().is_from_own_site("https://app.test");
            assert_eq!(own, expected, "{name}");
        }
    }

    #[test]
    fn the_user_agent_is_told_as_sent_and_cut_at_a_character() {
        let long = "\u{e9}".repeat(MAX_USER_AGENT_CHARS + 1);
        let cut = "\u{e9}".repeat(MAX_USER_AGENT_CHARS);
        let rows = [
            ("plain", "curl/8.0", Some("curl/8.0")),
            ("UTF-8", "caf\u{e9}", Some("caf\u{e9}")),
            ("too long", &long, Some(cut.as_str())),
            ("just short enough", &cut, Some(cut.as_str())),
            ("a tab", "a\tb", None),
            ("a C1 control", "a\u{85}b", None),
        ];
        for (name, text, expected) in rows {
            let sent = sent(&Method::GET, &[("user-agent", text)]);
            assert_eq!(sent.request().user_agent(), expected, "{name}");
        }
        let told = |lines: &[(&str, &[u8])]| sent(&Method::GET, lines).request().user_agent().is_some();
        assert!(!told(&[]), "absent");
        assert!(!told(&[("user-agent", b"a\xff")]), "no UTF-8");
    }
}
