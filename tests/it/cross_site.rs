//! What pages of other sites can do with the gateway's own URLs, with WebSockets and with guarded routes.

use portcullis::endpoints::TABLE;

use crate::support::browser::Browser;
use crate::support::client::{Request, Response};
use crate::support::gateway::{Gateway, WIKI};
use crate::support::scripted_provider::ScriptedProvider;
use crate::support::upstream::Upstream;

const PAGE: &str = "https://wiki.test/page";
const OWN: &str = "https://wiki.test";
const EVIL: &str = "https://evil.test";

struct Scene {
    upstream: Upstream,
    _provider: ScriptedProvider,
    gateway: Gateway,
}

impl Scene {
    fn new() -> Self {
        let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
        let gateway = Gateway::in_front_of(&upstream)
            .provider(provider.entry())
            .path("/guarded", &upstream, "cross_site = \"deny\"")
            .path("/open", &upstream, "access = \"public\"\ncross_site = \"deny\"")
            .start();
        Self { upstream, _provider: provider, gateway }
    }

    /// The cookie field of somebody who is signed in.
    fn alice(&self) -> String {
        let mut browser = Browser::new(&self.gateway);
        assert_eq!(browser.open(PAGE).status(), 200);
        let session = browser.jar.get(WIKI, "__Host-portcullis").expect("a session cookie");
        format!("{}={}", session.name, session.value)
    }
}

type Lines = &'static [(&'static str, &'static str)];

/// A way in which a page has something fetched: method, mode, destination.
const WAYS: [(&str, &str, &str); 4] = [
    ("GET", "navigate", "document"),
    ("GET", "navigate", "iframe"),
    ("POST", "navigate", "document"),
    ("GET", "no-cors", "image"),
];

const SITES: [Option<&str>; 5] =
    [None, Some("none"), Some("same-origin"), Some("same-site"), Some("cross-site")];
const ORIGINS: [Option<&str>; 4] = [None, Some(OWN), Some(EVIL), Some("null")];

fn is_refused(answer: &Response) -> bool {
    answer.status == 403 && answer.text().contains("cross_site")
}

/// Which endpoints take what from elsewhere: a link, a page in a frame, a form, an image; then what old browsers
/// send from elsewhere: a script by GET, a form; and a POST that says nothing.
const TAKEN: [(&str, &str); 9] = [
    ("start", "++---- +"),
    ("callback", "+++--+ +"),
    ("sign_in", "++---- +"),
    ("sign_out", "------ -"),
    ("signed_out", "++---- +"),
    ("userinfo", "------ -"),
    ("jwks", "++++++ +"),
    ("backchannel_logout", "++++++ +"),
    ("frontchannel_logout", "++++++ +"),
];

/// Whether a row of [`TAKEN`] takes this.
fn is_taken(taken: &str, method: &str, way: usize, site: Option<&str>, origin: Option<&str>) -> bool {
    let at = |place: usize| taken.as_bytes()[place] == b'+';
    match (site, origin) {
        (Some("none" | "same-origin"), _) | (None, Some(OWN)) => true,
        (Some(_), _) => at(way),
        (None, None) => method == "GET" || at(7),
        (None, Some(_)) => at(if method == "GET" { 4 } else { 5 }),
    }
}

#[test]
fn cs_2_cs_3_every_endpoint_judges_every_way_to_call_it_from_another_site() {
    let scene = Scene::new();
    assert_eq!(TAKEN.map(|(name, _)| name).as_slice(), TABLE.iter().map(|row| row.name).collect::<Vec<_>>());
    let mut judged = [0, 0];
    for (endpoint, (name, taken)) in TABLE.iter().zip(TAKEN) {
        let mut connection = scene.gateway.place(WIKI).connect().unwrap();
        for site in SITES {
            for origin in ORIGINS {
                for (way, (method, mode, dest)) in WAYS.into_iter().enumerate() {
                    if !endpoint.methods.split(", ").any(|takes| takes == method) {
                        continue;
                    }
                    let mut request = Request::new(method, &format!("/oauth2/{name}")).with("Host", WIKI);
                    if let Some(site) = site {
                        request = request.with("Sec-Fetch-Site", site);
                        request = request.with("Sec-Fetch-Mode", mode).with("Sec-Fetch-Dest", dest);
                    }
                    if let Some(origin) = origin {
                        request = request.with("Origin", origin);
                    }
                    let request = if method == "POST" { request.with_form(&[]) } else { request };
                    let answer = connection.request(&request);
                    let wanted = is_taken(taken, method, way, site, origin);
                    assert_eq!(
                        !is_refused(&answer),
                        wanted,
                        "{name}: {method} {mode} {dest}, {site:?}, {origin:?}: {} {}",
                        answer.status,
                        answer.text()
                    );
                    assert!(answer.field("access-control-allow-origin").is_none());
                    judged[usize::from(wanted)] += 1;
                }
            }
        }
    }
    assert!(judged.iter().all(|count| *count > 100), "{judged:?}");
}

#[test]
fn sc_156_userinfo_tells_another_site_nothing() {
    const CROSS: (&str, &str) = ("Sec-Fetch-Site", "cross-site");
    const CORS: (&str, &str) = ("Sec-Fetch-Mode", "cors");
    let scene = Scene::new();
    let alice = scene.alice();
    let ask = |lines: Lines| {
        let request = Request::get("/oauth2/userinfo").with("Cookie", &alice);
        scene.gateway.request(&lines.iter().fold(request, |request, (name, value)| request.with(name, value)))
    };
    let rows: [(&str, Lines, u16); 6] = [
        ("by hand", &[], 200),
        ("a script of the host", &[("Sec-Fetch-Site", "same-origin"), CORS, ("Origin", OWN)], 200),
        ("a script elsewhere", &[CROSS, CORS, ("Origin", EVIL)], 403),
        (
            "a script of a sister host",
            &[("Sec-Fetch-Site", "same-site"), CORS, ("Origin", "https://b.test")],
            403,
        ),
        ("a script elsewhere, in an old browser", &[("Origin", EVIL)], 403),
        (
            "a script tag elsewhere",
            &[CROSS, ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "script")],
            403,
        ),
    ];
    for (name, lines, status) in rows {
        let answer = ask(lines);
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{name}");
        assert_eq!(answer.field("x-content-type-options"), Some("nosniff"), "{name}");
        for field in ["origin", "credentials", "methods", "headers"] {
            assert!(answer.field(&format!("access-control-allow-{field}")).is_none(), "{name}: {field}");
        }
        let text = answer.text();
        assert_eq!(text.contains("alice"), status == 200, "{name}: {text}");
        assert!(!text.contains("token") && !text.contains("eyJ"), "{name}: {text}");
    }
}

#[test]
fn pb_053_a_websocket_of_another_site_or_of_nobody_reaches_no_application() {
    let scene = Scene::new();
    let alice = scene.alice();
    let (hits, connections) = (scene.upstream.hits(), scene.upstream.connections());
    let (cookie, evil) = (Some(alice.as_str()), Some(EVIL));
    let rows = [
        ("another site", "/ws", cookie, evil, 403),
        ("another site, with a session that is none", "/ws", Some("__Host-portcullis=junk"), evil, 403),
        ("a sister host", "/ws", cookie, Some("https://b.wiki.test"), 403),
        ("a sandbox", "/ws", cookie, Some("null"), 403),
        ("another scheme", "/ws", cookie, Some("http://wiki.test"), 403),
        ("another port", "/ws", cookie, Some("https://wiki.test:8443"), 403),
        ("nobody of another site", "/ws", None, evil, 403),
        ("nobody", "/ws", None, Some(OWN), 401),
        ("nobody, no browser", "/ws", None, None, 401),
        ("another site on a public route with a guard", "/open/ws", None, evil, 403),
    ];
    for (name, path, cookie, origin, status) in rows {
        let mut handshake = Request::get(path)
            .with("Connection", "Upgrade")
            .with("Upgrade", "websocket")
            .with("Sec-WebSocket-Version", "13")
            .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        handshake = cookie.into_iter().fold(handshake, |request, cookie| request.with("Cookie", cookie));
        handshake = origin.into_iter().fold(handshake, |request, origin| request.with("Origin", origin));
        let answer = scene.gateway.request(&handshake);
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        assert_eq!(answer.head.all("set-cookie"), Vec::<&str>::new(), "{name}");
    }
    assert_eq!((scene.upstream.hits(), scene.upstream.connections()), (hits, connections));
}

#[test]
fn cs_3_a_route_with_a_guard_is_not_reached_from_another_site() {
    let scene = Scene::new();
    let alice = scene.alice();
    let hits = scene.upstream.hits();
    let form = |path: &str| Request::new("POST", path).with("Cookie", &alice).with_form(&[]);
    let cross = |request: Request, mode: &str, dest: &str| {
        let request = request.with("Sec-Fetch-Site", "cross-site").with("Sec-Fetch-Mode", mode);
        request.with("Sec-Fetch-Dest", dest)
    };
    let get = |path: &str| Request::get(path).with("Cookie", &alice);
    for path in ["/guarded/x", "/open/x"] {
        let refused = [
            ("form", cross(form(path), "navigate", "document").with("Origin", EVIL)),
            ("script", cross(form(path), "cors", "empty").with("Origin", EVIL)),
            ("image", cross(get(path), "no-cors", "image")),
            ("frame", cross(get(path), "navigate", "iframe")),
            ("old browser", form(path).with("Origin", EVIL)),
            ("very old browser", form(path).with("Referer", "https://evil.test/page")),
        ];
        for (name, request) in refused {
            let answer = scene.gateway.request(&request);
            assert!(is_refused(&answer), "{path}, {name}: {} {}", answer.status, answer.text());
        }
    }
    assert_eq!(scene.upstream.hits(), hits, "the application saw nothing of it");
    let taken = [
        ("link", cross(get("/guarded/x"), "navigate", "document")),
        ("own form", form("/guarded/x").with("Sec-Fetch-Site", "same-origin").with("Origin", OWN)),
        ("own form in an old browser", form("/guarded/x").with("Origin", OWN)),
        ("program", form("/guarded/x")),
        ("elsewhere, without a guard", cross(form("/page"), "navigate", "document").with("Origin", EVIL)),
    ];
    for (name, request) in taken {
        assert_eq!(scene.gateway.request(&request).status, 200, "{name}");
    }
}
