//! Sign-ins that somebody tampers with: the attack cases LC-074 to LC-104, each through the whole gateway.

use std::collections::BTreeSet;

use serde_json::json;
use url::Url;

use crate::support::browser::Browser;
use crate::support::client::{Request, Response};
use crate::support::cookie_jar::Cookie;
use crate::support::gateway::{Gateway, WIKI};
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::{Echo, Upstream};

const PAGE: &str = "https://wiki.test/page?x=1";
const CALLBACK: &str = "https://wiki.test/oauth2/callback?";
const SESSION: &str = "__Host-portcullis";

/// Known open redirects, one a line.
const OPEN_REDIRECTS: &str = include_str!("../data/open_redirects.txt");

/// An application, a provider that signs `alice` in without a page, and the gateway.
struct Scene {
    upstream: Upstream,
    provider: ScriptedProvider,
    gateway: Gateway,
}

/// A sign-in that waits for the provider's answer.
struct Pending {
    browser: Browser,
    /// The URL at the provider.
    authorize: Url,
    /// What the provider answers, without the callback's address.
    query: String,
}

impl Scene {
    fn new() -> Self {
        let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
        let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
        Self { upstream, provider, gateway }
    }

    /// Begins a sign-in and asks the provider for its answer, which the browser has not opened yet.
    fn begin(&self) -> Pending {
        let mut browser = Browser::new(&self.gateway);
        let authorize = location(&browser.open_once(PAGE));
        let answer = location(&Browser::default().open_once(&authorize));
        let (_, query) = answer.split_once('?').expect("the provider answers with parameters");
        Pending { browser, authorize: authorize.parse().unwrap(), query: query.to_owned() }
    }

    fn token_calls(&self) -> usize {
        self.provider.calls(Call::Token)
    }
}

impl Pending {
    /// A parameter of the authorization request.
    fn sent(&self, name: &str) -> String {
        let mut found = self.authorize.query_pairs().filter(|(key, _)| key == name);
        let value = found.next().unwrap_or_else(|| panic!("no {name} in {}", self.authorize)).1.into_owned();
        assert!(found.next().is_none(), "{name} once");
        value
    }

    /// The cookie of this attempt.
    fn cookie(&self) -> Cookie {
        let cookies = self.browser.jar.of(WIKI);
        let mut attempts = cookies.into_iter().filter(|cookie| cookie.name.contains("-login-"));
        attempts.next().expect("an attempt has a cookie").clone()
    }

    /// Opens the callback with other parameters, in a browser that knows of the attempt.
    fn calls_back(&self, query: &str) -> Response {
        self.browser.clone().open_once(&format!("{CALLBACK}{query}"))
    }

    /// The honest end of it.
    fn succeeds(&mut self) {
        let page = self.browser.open(&format!("{CALLBACK}{}", self.query));
        assert_eq!((page.status(), page.url.as_str()), (200, PAGE), "{}", page.html());
    }
}

fn location(response: &Response) -> String {
    response.field("location").unwrap_or_else(|| panic!("no redirect: {}", response.text())).to_owned()
}

fn sets_a_session(response: &Response) -> bool {
    response.head.all("set-cookie").iter().any(|field| {
        field
            .strip_prefix(SESSION)
            .and_then(|rest| rest.strip_prefix('='))
            .is_some_and(|value| !value.starts_with(';'))
    })
}

/// What a browser sends when somebody types an address.
fn navigation(target: &str) -> Request {
    Request::get(target)
        .with("Accept", "text/html,*/*;q=0.8")
        .with("Sec-Fetch-Mode", "navigate")
        .with("Sec-Fetch-Dest", "document")
}

#[test]
fn lc_074_no_two_sign_ins_share_a_secret() {
    let scene = Scene::new();
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        let redirect = scene.gateway.request(&navigation("/page"));
        let url = Url::parse(&location(&redirect)).unwrap();
        for (name, value) in url.query_pairs() {
            match &*name {
                "state" | "nonce" | "code_challenge" => {
                    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                    assert!(value.len() >= 22 && value.bytes().all(fits), "{name}: {value}");
                    assert!(seen.insert(value.into_owned()), "{name} twice");
                }
                "code_challenge_method" => assert_eq!(value, "S256"),
                _ => {}
            }
        }
    }
    assert_eq!(seen.len(), 600);
    // The provider compares the verifier with the challenge.
    scene.begin().succeeds();
    let verifier = scene.provider.last(Call::Token).parameter("code_verifier").unwrap();
    assert!((43..=128).contains(&verifier.len()), "{verifier}");
}

#[test]
fn lc_075_the_redirect_uri_comes_from_the_configuration_alone() {
    let scene = Scene::new();
    let forged = navigation("/page")
        .with("X-Forwarded-Host", "evil.test")
        .with("X-Forwarded-Proto", "http")
        .with("X-Forwarded-Port", "8080")
        .with("Forwarded", "host=evil.test;proto=http")
        .with("X-Original-Host", "evil.test");
    let url = Url::parse(&location(&scene.gateway.request(&forged))).unwrap();
    let mut uris = url.query_pairs().filter(|(name, _)| name == "redirect_uri");
    assert_eq!(uris.next().unwrap().1, "https://wiki.test/oauth2/callback");
    assert!(uris.next().is_none());
    assert!(!url.as_str().contains("evil"), "{url}");
}

#[test]
fn lc_078_who_is_not_signed_in_gets_no_byte_of_the_application() {
    let scene = Scene::new();
    let redirect = scene.gateway.request(&navigation("/page"));
    assert_eq!((redirect.status, redirect.body.len()), (302, 0));
    assert_eq!(redirect.field("cache-control"), Some("no-store"));
    assert_eq!(scene.upstream.hits(), 0);
}

#[test]
fn lc_079_lc_082_lc_088_lc_089_a_callback_of_another_shape_never_reaches_the_provider() {
    let scene = Scene::new();
    let mut pending = scene.begin();
    let (good, state) = (pending.query.clone(), pending.sent("state"));
    let long = "x".repeat(5000);
    let issuer = scene.provider.issuer();
    let rows = [
        ("LC-079 nothing", String::new()),
        ("LC-079 a code only", "code=c".into()),
        ("LC-079 a state only", format!("state={state}")),
        ("LC-079 empty values", "code=&state=".into()),
        ("LC-079 an empty code", format!("code=&state={state}")),
        ("LC-079 a long state", format!("code=c&state={long}")),
        ("LC-079 a long code", format!("code={long}&state={state}")),
        ("LC-079 NUL", "code=c&state=%00".into()),
        ("LC-079 no UTF-8", format!("code=%FF&state={state}")),
        ("LC-082 two codes", format!("code=evil&{good}")),
        ("LC-082 two codes, the good one first", format!("{good}&code=evil")),
        ("LC-082 two states", format!("{good}&state=x")),
        ("LC-082 the state twice", format!("{good}&state={state}")),
        ("LC-082 two issuers", format!("{good}&iss={issuer}&iss=https://op2.test")),
        ("LC-082 code and error", format!("{good}&error=access_denied")),
        ("LC-088 an error without state", "error=access_denied".into()),
        ("LC-089 an ID token", format!("id_token=a.b.c&state={state}")),
        ("LC-089 an ID token beside a code", format!("{good}&id_token=a.b.c")),
        ("LC-089 an access token", format!("access_token=x&token_type=Bearer&state={state}")),
    ];
    for (name, query) in rows {
        let refused = pending.calls_back(&query);
        assert_eq!(refused.status, 400, "{name}: {}", refused.text());
        assert!(refused.text().contains("login_malformed"), "{name}: {}", refused.text());
        assert!(!sets_a_session(&refused), "{name}");
        assert_eq!(refused.field("location"), None, "{name}: no loop");
        assert!(!refused.text().contains("access_denied"), "{name}: nothing is reflected");
    }
    let huge = pending.calls_back(&format!("code=c&state={}", "x".repeat(100 * 1024)));
    assert!((400..500).contains(&huge.status), "LC-079 a state of 100 KB: {}", huge.status);
    let target = format!("/oauth2/callback?{good}");
    for (name, request) in [
        ("LC-079 without a type", Request::new("POST", &target).with_body(b"")),
        ("LC-079 text", Request::new("POST", &target).with("Content-Type", "text/plain").with_body(b"x=1")),
        ("LC-079 a form", Request::new("POST", "/oauth2/callback").with_form(&[("state".into(), state)])),
    ] {
        let refused = scene.gateway.request(&request);
        assert!((400..500).contains(&refused.status), "{name}: {}", refused.status);
        assert!(!sets_a_session(&refused), "{name}");
    }
    assert_eq!((scene.token_calls(), scene.provider.calls(Call::Userinfo)), (0, 0));
    pending.succeeds();
    assert_eq!(scene.token_calls(), 1);
}

#[test]
fn lc_080_an_answer_in_another_browser_signs_nobody_in() {
    let scene = Scene::new();
    let attacker = scene.begin();
    let callback = format!("{CALLBACK}{}", attacker.query);
    let strangers =
        [("without any cookie", Browser::new(&scene.gateway)), ("with its own", scene.begin().browser)];
    for (name, mut victim) in strangers {
        let refused = victim.open_once(&callback);
        assert_eq!((refused.status, refused.field("location")), (400, None), "{name}: {}", refused.text());
        assert_eq!(victim.jar.get(WIKI, SESSION), None, "{name}");
    }
    // With the victim's own attempt under the attacker's name.
    let mut victim = scene.begin();
    let mut cookie = victim.cookie();
    cookie.name = attacker.cookie().name;
    victim.browser.jar.put(cookie);
    let refused = victim.browser.open_once(&callback);
    assert_eq!((refused.status, sets_a_session(&refused)), (400, false));
    assert_eq!(scene.token_calls(), 0);
}

#[test]
fn lc_084_where_the_issuer_is_promised_it_is_demanded_and_compared() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    provider.alter_discovery(|document| {
        document["authorization_response_iss_parameter_supported"] = json!(true);
    });
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let issuer = provider.issuer();
    let rows = [
        ("none", None),
        ("a slash", Some(format!("{issuer}/"))),
        ("another case", Some(issuer.replace("localhost", "LOCALHOST"))),
        ("another port", Some("http://localhost:1".to_owned())),
        ("another provider", Some("https://op2.test".to_owned())),
    ];
    for (name, iss) in rows {
        for outcome in ["code", "error"] {
            let iss = iss.clone();
            provider.alter_callback(move |parameters| {
                if outcome == "error" {
                    parameters[0] = ("error".into(), "access_denied".into());
                }
                parameters.extend(iss.clone().map(|iss| ("iss".to_owned(), iss)));
            });
            let page = Browser::new(&gateway).open(PAGE);
            assert!(
                page.status() == 400 && page.html().contains("login_state_mismatch"),
                "{name}, {outcome}"
            );
        }
    }
    assert_eq!(provider.calls(Call::Token), 0);
    provider.alter_callback(move |parameters| parameters.push(("iss".into(), issuer.clone())));
    assert_eq!(Browser::new(&gateway).open(PAGE).status(), 200);
}

#[test]
fn lc_086_an_answer_of_one_provider_is_never_taken_for_anothers() {
    let upstream = Upstream::start();
    let (first, second) = (ScriptedProvider::start(), ScriptedProvider::start());
    let mut entry = second.entry();
    entry.id = "second".into();
    let gateway = Gateway::in_front_of(&upstream).provider(first.entry()).provider(entry).start();
    let begin = |browser: &mut Browser, id: &str| {
        let redirect = browser.open_once(&format!("https://wiki.test/oauth2/start?provider={id}&rd=/page"));
        Url::parse(&location(&redirect)).unwrap()
    };
    let state =
        |url: &Url| url.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned();
    let mut browser = Browser::new(&gateway);
    let (at_first, at_second) = (begin(&mut browser, "main"), begin(&mut browser, "second"));
    let answer = location(&Browser::default().open_once(at_second.as_str()));
    let query = answer.split_once('?').unwrap().1;
    let code = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "code").unwrap().1;
    let (own, other) = (state(&at_first), state(&at_second));
    let iss = second.issuer();
    let rows = [
        ("its own state, on the path of the first", format!("callback?code={code}&state={other}")),
        ("the first one's state, on its own path", format!("callback/second?code={code}&state={own}")),
        ("the first one's state and path", format!("callback?code={code}&state={own}&iss={iss}")),
        ("a path of nobody", format!("callback/third?code={code}&state={other}")),
    ];
    for (name, rest) in rows {
        let refused = browser.clone().open_once(&format!("https://wiki.test/oauth2/{rest}"));
        assert!(matches!(refused.status, 400 | 404), "{name}: {}", refused.status);
        assert!(!sets_a_session(&refused), "{name}");
    }
    assert_eq!((first.calls(Call::Token), second.calls(Call::Token)), (0, 0));
    assert_eq!(browser.open(&answer).status(), 200, "the honest one");
    assert_eq!((first.calls(Call::Token), second.calls(Call::Token)), (0, 1));
}

#[test]
fn lc_087_nothing_of_an_error_reaches_the_page() {
    let scene = Scene::new();
    let pending = scene.begin();
    let state = pending.sent("state");
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("error", "<script>alert(1)</script>")
        .append_pair("error_description", "\"><img src=x onerror=alert(1)>")
        .append_pair("error_uri", "javascript:alert(1)")
        .append_pair("state", &state)
        .finish();
    let refused = pending.calls_back(&query);
    assert_eq!(refused.status, 403, "{}", refused.text());
    for piece in ["alert(1)", "onerror", "javascript:", "src=x"] {
        assert!(!refused.text().contains(piece), "{piece} in {}", refused.text());
    }
    let policy = refused.field("content-security-policy").expect("a page has its policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    let logged = scene.gateway.wait_for_log(&["sign_in_failed", "login_denied"]);
    assert!(!logged.contains("<script>"), "{logged}");
    assert_eq!(scene.token_calls(), 0);
}

#[test]
fn lc_092_a_guess_of_the_browser_spends_nothing() {
    let scene = Scene::new();
    let mut pending = scene.begin();
    let target = format!("/oauth2/callback?{}", pending.query);
    let cookie = pending.cookie();
    let cookie = format!("{}={}", cookie.name, cookie.value);
    for (name, request) in [
        ("HEAD", Request::new("HEAD", &target)),
        ("a prefetch", navigation(&target).with("Sec-Purpose", "prefetch")),
        ("a prerender", navigation(&target).with("Sec-Purpose", "prefetch;prerender")),
        ("an old prefetch", navigation(&target).with("Purpose", "prefetch")),
    ] {
        let refused = scene.gateway.request(&request.with("Cookie", &cookie));
        assert!((400..500).contains(&refused.status), "{name}: {}", refused.status);
        assert_eq!(refused.head.all("set-cookie"), Vec::<&str>::new(), "{name}");
    }
    assert_eq!(scene.token_calls(), 0);
    pending.succeeds();
}

#[test]
fn lc_094_a_sign_in_ends_the_session_of_whoever_was_there_before() {
    let scene = Scene::new();
    let as_user = |name: &'static str| {
        scene.provider.claims(move |claims| claims["sub"] = json!(name));
    };
    as_user("mallory");
    let mut browser = Browser::new(&scene.gateway);
    browser.open(PAGE);
    let mut old = browser.clone();
    assert_eq!(Echo::of(&old.get(PAGE)).one("x-forwarded-user"), Some("mallory"));
    as_user("alice");
    browser.open("https://wiki.test/oauth2/start?rd=/page");
    assert_ne!(browser.jar.get(WIKI, SESSION), old.jar.get(WIKI, SESSION));
    assert_eq!(Echo::of(&browser.get(PAGE)).one("x-forwarded-user"), Some("alice"));
    assert_eq!(old.get(PAGE).status, 302);
}

#[test]
fn lc_095_a_session_cookie_that_somebody_planted_never_becomes_valid() {
    let scene = Scene::new();
    let mut honest = scene.begin();
    honest.succeeds();
    let template = honest.browser.jar.get(WIKI, SESSION).unwrap().clone();
    // Made up; the sealed cookie of another purpose; one of the right shape.
    let mut reversed: Vec<char> = template.value.chars().collect();
    reversed.reverse();
    for planted in ["made-up".to_owned(), scene.begin().cookie().value, reversed.into_iter().collect()] {
        let mut victim = Browser::new(&scene.gateway);
        victim.jar.put(Cookie { value: planted.clone(), ..template.clone() });
        assert_eq!(victim.open(PAGE).status(), 200);
        assert_ne!(victim.jar.get(WIKI, SESSION).unwrap().value, planted);
        let mut attacker = Browser::new(&scene.gateway);
        attacker.jar.put(Cookie { value: planted, ..template.clone() });
        assert_eq!(attacker.get(PAGE).status, 302);
    }
}

#[test]
fn lc_096_lc_098_lc_101_sign_in_never_ends_elsewhere() {
    let scene = Scene::new();
    // All of them are tried without the gateway in `web::return_to`.
    let known = OPEN_REDIRECTS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).step_by(29);
    let more = [
        "https:\\\\evil.test",
        "/\r/evil.test",
        "/\t/evil.test",
        "//evil%E3%80%82test",
        "https://evilwiki.test/",
        "https://wiki.test.evil.test/",
        "https://wiki.test@evil.test/",
        "http://wiki.test/",
        "https://wiki.test:444/",
        "https://x.wiki.test/",
        "https://x.wiki.test#@evil.test",
    ];
    for wanted in known.chain(more) {
        let rd: String = url::form_urlencoded::byte_serialize(wanted.as_bytes()).collect();
        let page = Browser::new(&scene.gateway).open(&format!("https://wiki.test/oauth2/start?rd={rd}"));
        let origin = page.url.origin().ascii_serialization();
        assert_eq!(
            (page.status(), origin.as_str()),
            (200, "https://wiki.test"),
            "{wanted:?}: {:?}",
            page.urls()
        );
    }
    // Sign-in begun by a third party is not offered: what it would say is passed over.
    for target in ["start", "start?rd=/"] {
        let mut url = Url::parse("https://wiki.test/oauth2/").unwrap().join(target).unwrap();
        url.query_pairs_mut()
            .append_pair("iss", "https://evil.test")
            .append_pair("login_hint", "alice")
            .append_pair("target_link_uri", "https://evil.test/");
        let page = Browser::new(&scene.gateway).open(url.as_str());
        assert_eq!(page.url.as_str(), "https://wiki.test/", "{:?}", page.urls());
        assert!(page.urls().iter().skip(1).all(|url| !url.contains("evil.test")), "{:?}", page.urls());
    }
}

#[test]
fn lc_100_a_changed_byte_of_state_or_cookie_signs_nobody_in() {
    let scene = Scene::new();
    let mut pending = scene.begin();
    let state = pending.sent("state");
    let flip = |text: &str, at: usize| -> String {
        let flipped = |(index, char)| match char {
            char if index != at => char,
            'A' => 'B',
            _ => 'A',
        };
        text.chars().enumerate().map(flipped).collect()
    };
    for at in 0..state.len() {
        let query = pending.query.replace(&state, &flip(&state, at));
        if query != pending.query {
            let refused = pending.calls_back(&query);
            assert_eq!((refused.status, sets_a_session(&refused)), (400, false), "byte {at} of the state");
        }
    }
    let cookie = pending.cookie();
    for at in (0..cookie.value.len()).step_by(3) {
        let mut browser = pending.browser.clone();
        browser.jar.put(Cookie { value: flip(&cookie.value, at), ..cookie.clone() });
        if browser.jar.get(WIKI, &cookie.name).unwrap().value == cookie.value {
            continue;
        }
        let refused = browser.open_once(&format!("{CALLBACK}{}", pending.query));
        assert_eq!((refused.status, sets_a_session(&refused)), (400, false), "byte {at} of the cookie");
    }
    assert_eq!(scene.token_calls(), 0);
    pending.succeeds();
}

#[test]
fn lc_103_a_body_without_a_session_is_neither_kept_nor_shown() {
    let scene = Scene::new();
    let marker = b"'\"><script>marker</script>";
    let large = vec![b'x'; 1 << 20];
    for (name, body) in [("a megabyte", &large[..]), ("nothing", &b""[..]), ("a script", &marker[..])] {
        for accept in ["text/html", "application/json", "*/*"] {
            let post = Request::new("POST", "/page").with("Accept", accept).with_body(body);
            let refused = scene.gateway.request(&post);
            assert_eq!(refused.status, 401, "{name}, {accept}");
            assert_eq!(refused.field("location"), None, "{name}");
            assert!(!refused.text().contains("marker"), "{name}: {}", refused.text());
        }
    }
    assert_eq!(scene.upstream.hits(), 0);
    assert_eq!(scene.gateway.request(&navigation("/page")).status, 302, "and it is there still");
}

#[test]
fn lc_104_a_path_is_escaped_wherever_it_is_shown() {
    let scene = Scene::new();
    let raw = "/page'\";<script>alert(1)</script>";
    let encoded = "/page%27%22%3Cscript%3Ealert(1)%3C%2Fscript%3E?a='\"<script>alert(1)</script>";
    for target in
        [raw, encoded, "/oauth2/'\"%3Cscript%3Ealert(1)", "/oauth2/start?rd=/'\"%3Cscript%3Ealert(1)"]
    {
        for request in [navigation(target), Request::new("POST", target).with_body(b"")] {
            let answer = scene.gateway.request(&request);
            assert!(!answer.text().contains("<script"), "{target}: {}", answer.text());
            let shown = answer.field("location").unwrap_or_default();
            assert!(!shown.contains(['<', '"', '\'']), "{target}: {shown}");
        }
    }
    let mut browser = Browser::new(&scene.gateway);
    browser.open(PAGE);
    let page = browser.get("https://wiki.test/oauth2/%3Cscript%3Ealert(1)");
    assert!(page.status == 404 && !page.text().contains("<script"), "{}", page.text());
    assert_eq!(scene.upstream.hits(), 1, "that of the sign-in");
}
