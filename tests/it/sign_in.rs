//! Sign-in: from the page that was asked for to the provider and back.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::token::Algorithm;
use portcullis::token::sign::SigningKey;
use serde_json::json;
use url::Url;

use crate::support::browser::{Browser, Page};
use crate::support::certified_provider::CertifiedProvider;
use crate::support::client::{Request, Response};
use crate::support::cookie_jar::Cookie;
use crate::support::gateway::Gateway;
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::{Echo, Upstream};
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page?x=1&y=a%2Bb%20c";
const CALLBACK: &str = "https://wiki.test/oauth2/callback?";
const SESSION: &str = "__Host-portcullis";

/// The application, a provider that signs `alice` in without a page, and the gateway.
fn scripted() -> (Upstream, ScriptedProvider, Gateway) {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    (upstream, provider, gateway)
}

/// Whether an answer is the gateway's refusal with this code.
fn is_refusal(response: &Response, status: u16, code: &str) -> bool {
    response.status == status && response.text().contains(code)
}

fn session_cookie(browser: &Browser) -> Option<String> {
    browser.jar.get("wiki.test", SESSION).map(|cookie| cookie.value.clone())
}

fn location(response: &Response) -> String {
    response.field("location").unwrap_or_else(|| panic!("no redirect: {}", response.text())).to_owned()
}

/// The cookie of the only attempt.
fn login_cookie(browser: &Browser) -> Cookie {
    let cookies = browser.jar.of("wiki.test");
    let mut attempts = cookies.into_iter().filter(|cookie| cookie.name.contains("-login-"));
    attempts.next().expect("an attempt has a cookie").clone()
}

fn login_cookies(browser: &Browser) -> usize {
    browser.jar.of("wiki.test").iter().filter(|cookie| cookie.name.contains("-login-")).count()
}

#[test]
fn an_issuer_works_as_its_provider_spells_it() {
    for path in ["", "/", "/realms/main", "/application/o/intranet/"] {
        let provider = CertifiedProvider::builder().path(path).start();
        let upstream = Upstream::start();
        let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
        let page = Browser::new(&gateway).sign_in(PAGE, "bob");
        assert_eq!(Echo::of(&page.response).one("x-forwarded-user"), Some("bob"), "issuer path {path:?}");
    }
}

#[test]
fn a_wrong_spelling_of_the_issuer_signs_nobody_in() {
    let provider = CertifiedProvider::builder().path("/realms/main").start();
    let upstream = Upstream::start();
    let mut entry = provider.entry();
    entry.issuer.push('/');
    let gateway = Gateway::in_front_of(&upstream).provider(entry).start();
    let page = Browser::new(&gateway).open(PAGE);
    assert!(is_refusal(&page.response, 503, "provider_unavailable"), "{:?}", page.urls());
    gateway.wait_for_log(&["provider_down", "issuer"]);
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn parallel_tabs_sign_in_in_reverse_order() {
    let provider = CertifiedProvider::start();
    let upstream = Upstream::start();
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let mut browser = Browser::new(&gateway);
    let urls = ["https://wiki.test/one?a=1", "https://wiki.test/two?b=2", "https://wiki.test/three"];
    let forms: Vec<Page> = urls.iter().map(|url| browser.open(url)).collect();
    assert_eq!(login_cookies(&browser), 3);
    for (url, form) in urls.iter().zip(&forms).rev() {
        let page = browser.fill_in(form, "alice");
        assert_eq!(page.url.as_str(), *url);
        assert_eq!(Echo::of(&page.response).one("x-forwarded-user"), Some("alice"));
    }
    assert_eq!(login_cookies(&browser), 0, "each attempt's cookie goes with its callback");
}

#[test]
fn a_browser_holds_at_most_five_attempts_and_the_newest_one_works() {
    let (_upstream, _provider, gateway) = scripted();
    let mut browser = Browser::new(&gateway);
    let mut last = None;
    for tab in 0..8 {
        last = Some(browser.open_once(&format!("https://wiki.test/tab{tab}")));
    }
    assert_eq!(login_cookies(&browser), 5);
    let authorize = location(&last.expect("eight tabs were opened"));
    assert_eq!(browser.open(&authorize).url.as_str(), "https://wiki.test/tab7");
}

#[test]
fn a_callback_works_once() {
    let (_upstream, provider, gateway) = scripted();
    let mut browser = Browser::new(&gateway);
    let authorize = location(&browser.open_once(PAGE));
    let attempt = login_cookie(&browser);
    let callback = browser.open(&authorize).hop(CALLBACK).0.to_string();
    assert_eq!(location(&browser.open_once(&callback)), "/", "reloaded, where the session lives");

    let mut stranger = Browser::new(&gateway);
    stranger.jar.put(attempt.clone());
    assert!(is_refusal(&stranger.open_once(&callback), 400, "login_replayed"));
    assert_eq!(session_cookie(&stranger), None);

    // Where the session lives, the person pressed "back": on to the page.
    browser.jar.put(attempt);
    assert_eq!(location(&browser.open_once(&callback)), "/page?x=1&y=a%2Bb%20c");
    assert_eq!(provider.calls(Call::Token), 1);
}

#[test]
fn a_callback_of_another_browser_or_with_other_parameters_never_reaches_the_provider() {
    let (_upstream, provider, gateway) = scripted();
    let mut browser = Browser::new(&gateway);
    let authorize = location(&browser.open_once(PAGE));
    let answer = location(&Browser::default().open_once(&authorize));
    let query = answer.strip_prefix(CALLBACK).expect("the provider answers to the callback");
    let cases = [
        ("another browser", true, query.to_owned(), "login_cookie_missing"),
        ("another state", false, query.replace("state=", "state=x"), "login_stale"),
        ("no state", false, query.replace("state=", "status="), "login_malformed"),
        ("an empty state", false, "code=c&state=".to_owned(), "login_malformed"),
        ("two states", false, format!("{query}&state=x"), "login_malformed"),
        ("no code", false, query.replace("code=", "coda="), "login_malformed"),
        ("two codes", false, format!("{query}&code=x"), "login_malformed"),
        ("code and error", false, format!("{query}&error=access_denied"), "login_malformed"),
        ("a token", false, format!("{query}&id_token=x"), "login_malformed"),
        ("another issuer", false, format!("{query}&iss=https://evil.test"), "login_state_mismatch"),
    ];
    for (name, other_browser, query, code) in cases {
        let mut browser = if other_browser { Browser::new(&gateway) } else { browser.clone() };
        let refused = browser.open_once(&format!("{CALLBACK}{query}"));
        assert!(is_refusal(&refused, 400, code), "{name}: {} {}", refused.status, refused.text());
        assert_eq!(session_cookie(&browser), None, "{name}");
    }
    assert_eq!(provider.calls(Call::Token), 0);
    assert_eq!(browser.open(&answer).url.as_str(), PAGE, "the honest callback works after all that");
}

#[test]
fn a_tampered_login_cookie_is_refused() {
    let (_upstream, provider, gateway) = scripted();
    let mut browser = Browser::new(&gateway);
    let authorize = location(&browser.open_once(PAGE));
    let mut cookie = login_cookie(&browser);
    let last = cookie.value.pop().unwrap();
    cookie.value.push(if last == 'A' { 'B' } else { 'A' });
    cookie.value.insert(10, 'x');
    let mut browser = Browser::new(&gateway);
    browser.jar.put(cookie);
    let page = browser.open(&authorize);
    assert!(is_refusal(&page.response, 400, "login_state_mismatch"), "{}", page.html());
    assert_eq!(provider.calls(Call::Token), 0);
}

#[test]
fn lc_076_a_request_that_cannot_follow_a_redirect_gets_401_and_no_cookie() {
    let (upstream, _provider, gateway) = scripted();
    let cases = [
        ("fetch", Request::get("/api").with("Sec-Fetch-Mode", "cors")),
        ("XMLHttpRequest", Request::get("/api").with("X-Requested-With", "XMLHttpRequest")),
        ("an image", Request::get("/api").with("Sec-Fetch-Mode", "no-cors").with("Sec-Fetch-Dest", "image")),
        ("JSON only", Request::get("/api").with("Accept", "application/json")),
        ("a form", Request::new("POST", "/api").with("Accept", "text/html").with_body(b"a=1")),
        ("an empty POST", Request::new("POST", "/api").with("Accept", "text/html").with_body(b"")),
        ("DELETE", Request::new("DELETE", "/api").with("Accept", "text/html")),
        (
            "a WebSocket",
            Request::get("/ws")
                .with("Connection", "Upgrade")
                .with("Upgrade", "websocket")
                .with("Sec-WebSocket-Version", "13")
                .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ),
    ];
    for (name, request) in cases {
        let refused = gateway.request(&request);
        assert_eq!(refused.status, 401, "{name}");
        assert_eq!(refused.field("content-type"), Some("application/json"), "{name}");
        assert_eq!(refused.json()["error"], json!("sign_in_required"), "{name}");
        assert!(refused.field("www-authenticate").is_some(), "{name}");
        assert_eq!(refused.field("cache-control"), Some("no-store"), "{name}");
        assert_eq!(refused.head.all("set-cookie"), Vec::<&str>::new(), "{name}");
        assert_eq!(refused.field("location"), None, "{name}");
    }
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn the_redirect_to_the_provider_tells_nothing_and_asks_for_everything() {
    let (upstream, _provider, gateway) = scripted();
    let redirect = Browser::new(&gateway).open_once(PAGE);
    assert_eq!(redirect.status, 302);
    assert_eq!(redirect.field("cache-control"), Some("no-store"));
    assert_eq!(redirect.field("referrer-policy"), Some("no-referrer"));
    assert_eq!(upstream.hits(), 0);
    let url = Url::parse(&location(&redirect)).unwrap();
    let parameter = |name: &str| {
        let found: Vec<String> =
            url.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect();
        assert_eq!(found.len(), 1, "{name} in {url}");
        found[0].clone()
    };
    assert_eq!(parameter("response_type"), "code");
    assert_eq!(parameter("code_challenge_method"), "S256");
    assert_eq!(parameter("redirect_uri"), "https://wiki.test/oauth2/callback");
    assert!(parameter("scope").split(' ').any(|scope| scope == "openid"));
    for name in ["state", "nonce", "code_challenge"] {
        assert!(parameter(name).len() >= 22, "{name} of {url}");
    }
    let other = Url::parse(&location(&Browser::new(&gateway).open_once(PAGE))).unwrap();
    assert!(!other.as_str().contains(&parameter("state")), "each attempt has its own state");
}

#[test]
fn sign_in_never_ends_at_another_origin() {
    let (_upstream, _provider, gateway) = scripted();
    let cases = [
        ("/a?b=c", "https://wiki.test/a?b=c"),
        ("https://wiki.test/a", "https://wiki.test/a"),
        ("https://evil.test/a", "https://wiki.test/"),
        ("//evil.test/a", "https://wiki.test/"),
        ("/\\evil.test", "https://wiki.test/"),
        ("http://wiki.test/a", "https://wiki.test/"),
        ("https://wiki.test@evil.test/", "https://wiki.test/"),
        ("https://wiki.test.evil.test/", "https://wiki.test/"),
        ("javascript:alert(1)", "https://wiki.test/"),
        ("/oauth2/sign_out", "https://wiki.test/"),
        ("", "https://wiki.test/"),
    ];
    for (wanted, landed) in cases {
        let rd: String = url::form_urlencoded::byte_serialize(wanted.as_bytes()).collect();
        let page = Browser::new(&gateway).open(&format!("https://wiki.test/oauth2/start?rd={rd}"));
        assert_eq!(page.url.as_str(), landed, "rd={wanted:?}");
    }
}

#[test]
fn every_sign_in_makes_a_new_session_and_ends_the_one_before() {
    let (_upstream, _provider, gateway) = scripted();
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    let mut before = browser.clone();
    browser.open("https://wiki.test/oauth2/start?rd=/again");
    assert_ne!(session_cookie(&browser), session_cookie(&before));
    assert_eq!(browser.get(PAGE).status, 200);
    assert_eq!(before.get(PAGE).status, 302, "the session of the first sign-in is over");
}

#[test]
fn the_gateway_starts_without_its_provider_and_signs_in_once_it_is_there() {
    let (upstream, public) = (Upstream::start(), Upstream::start());
    let mut provider = ScriptedProvider::start();
    provider.stop();
    let gateway = Gateway::in_front_of(&upstream)
        .path("/public/", &public, "access = \"public\"")
        .provider(provider.entry())
        .start();
    let ready = gateway.admin("/readyz");
    assert_eq!((ready.status, &ready.json()["providers"]["main"]), (200, &json!("down")));
    let mut browser = Browser::new(&gateway);
    assert_eq!(browser.open("https://wiki.test/public/").status(), 200);
    assert!(is_refusal(&browser.open(PAGE).response, 503, "provider_unavailable"));

    provider.come_back();
    let page = wait_for("sign-in to work again", || {
        let page = browser.open(PAGE);
        (page.status() == 200).then_some(page)
    });
    assert_eq!(page.url.as_str(), PAGE);
    assert_eq!(gateway.admin("/readyz").json()["providers"]["main"], json!("up"));
}

#[test]
fn live_sessions_outlast_a_provider_that_is_down_and_its_keys() {
    let mut provider = CertifiedProvider::start();
    let upstream = Upstream::start();
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let mut alice = Browser::new(&gateway);
    alice.sign_in(PAGE, "alice");

    for (name, forget) in [("the old key stays published", false), ("the old keys are gone", true)] {
        provider.rotate_keys(forget);
        assert_eq!(alice.get(PAGE).status, 200, "{name}");
        let page = Browser::new(&gateway).sign_in(PAGE, "bob");
        assert_eq!(Echo::of(&page.response).one("x-forwarded-user"), Some("bob"), "{name}");
    }
    provider.stop();
    assert_eq!(alice.get(PAGE).status, 200);
    provider.come_back();
    assert_eq!(Browser::new(&gateway).sign_in(PAGE, "bob").status(), 200);
}

#[test]
fn a_refusal_of_the_provider_is_told_and_leads_back() {
    let provider = CertifiedProvider::start();
    let upstream = Upstream::start();
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let mut browser = Browser::new(&gateway);
    let form = browser.open(PAGE);
    let page = browser.submit(&form, &[("login", "alice"), ("password", "wrong")]);
    assert!(is_refusal(&page.response, 403, "login_denied"), "{}", page.html());
    assert!(!page.html().contains("wrong name or password"), "the provider's words stay in the log");
    gateway.wait_for_log(&["sign_in_failed", "login_denied", "access_denied"]);
    let form = browser.click(&page, "/oauth2/sign_in");
    let form = browser.click(&form, "/oauth2/start");
    assert_eq!(browser.fill_in(&form, "alice").status(), 200);
}

#[test]
fn an_answer_of_the_provider_that_breaks_a_rule_signs_nobody_in() {
    type Break = fn(&ScriptedProvider);
    let cases: &[(&str, Break)] = &[
        ("nonce of another attempt", |op| op.alter_claims(|claims| claims["nonce"] = json!("other"))),
        ("no nonce", |op| op.alter_claims(|claims| claims["nonce"] = json!(null))),
        ("another issuer", |op| op.alter_claims(|claims| claims["iss"] = json!("https://evil.test"))),
        ("another audience", |op| op.alter_claims(|claims| claims["aud"] = json!("other"))),
        ("expired", |op| op.alter_claims(|claims| claims["exp"] = json!(1_000_000))),
        ("no subject", |op| op.alter_claims(|claims| claims["sub"] = json!(null))),
        ("unsigned", |op| {
            op.sign_with(|_, claims| {
                let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
                format!("{}.{}.", encode(json!({ "alg": "none" }).to_string()), encode(claims.to_string()))
            });
        }),
        ("signed by somebody else", |op| {
            let stranger = SigningKey::generate(Algorithm::ES256, Some("key-1")).unwrap();
            op.sign_with(move |header, claims| {
                stranger.sign_parts(header.to_string().as_bytes(), claims.to_string().as_bytes()).unwrap()
            });
        }),
        ("a symmetric algorithm", |op| op.alter_header(|header| header["alg"] = json!("HS256"))),
        ("another algorithm", |op| op.alter_header(|header| header["alg"] = json!("ES384"))),
        ("a logout token", |op| op.alter_header(|header| header["typ"] = json!("logout+jwt"))),
        ("an unknown critical header", |op| op.alter_header(|header| header["crit"] = json!(["x"]))),
        ("userinfo about somebody else", |op| {
            op.alter_answer(Call::Userinfo, |answer| answer.body = br#"{"sub":"mallory"}"#.to_vec());
        }),
        ("a token answer that is no object", |op| {
            op.alter_answer(Call::Token, |answer| answer.body = b"[]".to_vec());
        }),
        ("no ID token", |op| {
            op.alter_answer(Call::Token, |answer| {
                answer.body = br#"{"access_token":"a","token_type":"Bearer"}"#.to_vec();
            });
        }),
    ];
    let (upstream, provider, gateway) = scripted();
    for (name, break_it) in cases {
        break_it(&provider);
        let mut browser = Browser::new(&gateway);
        let page = browser.open(PAGE);
        assert!(is_refusal(&page.response, 400, "login_failed"), "{name}: {} {}", page.status(), page.html());
        assert_eq!(session_cookie(&browser), None, "{name}");
        provider.behave();
    }
    assert_eq!(upstream.hits(), 0);
    assert_eq!(Browser::new(&gateway).open(PAGE).status(), 200, "the same provider, behaving");
}

#[test]
fn a_discovery_document_that_breaks_a_rule_is_not_used() {
    type Break = fn(&mut serde_json::Value);
    let cases: &[(&str, Break)] = &[
        ("another issuer", |document| document["issuer"] = json!("http://localhost:1")),
        ("no token endpoint", |document| document["token_endpoint"] = json!(null)),
        ("plain challenges only", |document| document["code_challenge_methods_supported"] = json!(["plain"])),
        ("an endpoint that is no URL", |document| document["authorization_endpoint"] = json!("javascript:x")),
    ];
    for (name, break_it) in cases {
        let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
        provider.alter_discovery(*break_it);
        let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
        let page = Browser::new(&gateway).open(PAGE);
        assert!(is_refusal(&page.response, 503, "provider_unavailable"), "{name}: {}", page.html());
        assert_eq!(provider.calls(Call::Authorize), 0, "{name}");
    }
}

#[test]
fn a_key_set_with_strange_keys_still_serves_the_right_one() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    provider.alter_keys(|set| {
        let keys = set["keys"].as_array_mut().unwrap();
        keys.insert(0, json!({ "kty": "EC", "crv": "secp256k1", "kid": "key-1", "x": "AQ", "y": "AQ" }));
        keys.insert(0, json!({ "kty": "oct", "kid": "key-1", "k": "AQ" }));
        keys.insert(0, json!({ "kty": "unheard-of" }));
        keys.insert(0, json!("no object"));
    });
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    assert_eq!(Browser::new(&gateway).open(PAGE).status(), 200);
}

#[test]
fn a_provider_that_names_its_issuer_in_the_callback_must_do_so_always() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    provider.alter_discovery(|document| {
        document["authorization_response_iss_parameter_supported"] = json!(true);
    });
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let page = Browser::new(&gateway).open(PAGE);
    assert!(is_refusal(&page.response, 400, "login_state_mismatch"), "{}", page.html());
    assert_eq!(provider.calls(Call::Token), 0);
    let issuer = provider.issuer();
    provider.alter_callback(move |parameters| parameters.push(("iss".into(), issuer.clone())));
    assert_eq!(Browser::new(&gateway).open(PAGE).status(), 200);
}

#[test]
fn the_place_of_the_endpoints_is_a_setting() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream)
        .top("endpoint_prefix = \"/_auth\"\n")
        .provider(provider.entry())
        .start();
    let mut browser = Browser::new(&gateway);
    let page = browser.open(PAGE);
    page.hop("https://wiki.test/_auth/callback?");
    let echo = Echo::of(&browser.get("https://wiki.test/oauth2/callback?state=x"));
    assert_eq!(echo.line, "GET /oauth2/callback?state=x HTTP/1.1", "it is the application's");
}

#[test]
fn a_rotation_of_keys_is_followed_and_a_code_is_sent_once() {
    let (_upstream, provider, gateway) = scripted();
    Browser::new(&gateway).open(PAGE);
    let fetched = provider.calls(Call::Keys);
    Browser::new(&gateway).open(PAGE);
    assert_eq!(provider.calls(Call::Keys), fetched, "known keys are not fetched again");
    provider.rotate_keys();
    assert_eq!(Browser::new(&gateway).open(PAGE).status(), 200);
    assert_eq!(provider.calls(Call::Keys), fetched + 1);
    assert_eq!(provider.calls(Call::Token), 3, "one exchange for each sign-in");
}

#[test]
fn with_several_providers_the_person_chooses_and_comes_back_on_a_path_of_each() {
    let upstream = Upstream::start();
    let (first, second) = (ScriptedProvider::start(), ScriptedProvider::start());
    second.claims(|claims| claims["sub"] = json!("bea"));
    let mut entry = second.entry();
    entry.id = "second".into();
    entry.more.push_str("name = \"The <second> one\"\n");
    let gateway = Gateway::in_front_of(&upstream).provider(first.entry()).provider(entry).start();
    let mut browser = Browser::new(&gateway);
    let choice = browser.open(PAGE);
    assert_eq!((choice.status(), choice.url.path()), (200, "/oauth2/sign_in"));
    assert!(!choice.html().contains("<second>"), "names are escaped");
    let page = browser.click(&choice, "/oauth2/start?provider=second");
    assert_eq!(page.url.as_str(), PAGE, "{:?}", page.urls());
    page.hop("https://wiki.test/oauth2/callback/second?");
    assert_eq!(Echo::of(&page.response).one("x-forwarded-user"), Some("bea"));
    assert_eq!((first.calls(Call::Token), second.calls(Call::Token)), (0, 1));
}

#[test]
fn a_route_may_name_its_provider() {
    let (upstream, other) = (Upstream::start(), Upstream::start());
    let (first, second) = (ScriptedProvider::start(), ScriptedProvider::start());
    let mut entry = second.entry();
    entry.id = "second".into();
    let gateway = Gateway::in_front_of(&upstream)
        .path("/second", &other, "provider = \"second\"")
        .provider(first.entry())
        .provider(entry)
        .start();
    let page = Browser::new(&gateway).open("https://wiki.test/second/a?b");
    assert_eq!(page.url.as_str(), "https://wiki.test/second/a?b");
    assert_eq!((first.calls(Call::Token), second.calls(Call::Token)), (0, 1));
}

#[test]
fn userinfo_tells_who_is_signed_in_and_nothing_secret() {
    let (_upstream, provider, gateway) = scripted();
    let mut browser = Browser::new(&gateway);
    let url = "https://wiki.test/oauth2/userinfo";
    assert_eq!(browser.fetch(url, Request::get("/oauth2/userinfo")).status, 401);
    browser.open(PAGE);
    let told = browser.fetch(url, Request::get("/oauth2/userinfo"));
    assert_eq!(
        told.json(),
        json!({
            "user": "alice",
            "email": "alice@example.test",
            "groups": ["staff", "wiki-admins"],
            "preferredUsername": "alice",
        })
    );
    assert_eq!(told.field("cache-control"), Some("no-store"));
    assert!(provider.issued().iter().all(|secret| !told.text().contains(secret)));
}

#[test]
fn an_endpoint_takes_its_own_methods_and_no_other() {
    let (upstream, provider, gateway) = scripted();
    let cases = [
        ("POST", "/oauth2/callback?code=c&state=s", "GET"),
        ("HEAD", "/oauth2/callback?code=c&state=s", "GET"),
        ("PUT", "/oauth2/start", "GET, POST"),
        ("PUT", "/oauth2/sign_in", "GET, HEAD"),
        ("DELETE", "/oauth2/sign_out", "GET, POST"),
        ("POST", "/oauth2/signed_out", "GET, HEAD"),
        ("POST", "/oauth2/userinfo", "GET"),
    ];
    for (method, target, allowed) in cases {
        let refused = gateway.request(&Request::new(method, target));
        assert_eq!((refused.status, refused.field("allow")), (405, Some(allowed)), "{method} {target}");
    }
    assert_eq!((upstream.hits(), provider.calls(Call::Token)), (0, 0));
}
