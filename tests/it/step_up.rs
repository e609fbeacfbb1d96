//! Step-up: routes that ask for a stronger or more recent sign-in than the session has.

use serde_json::{Value, json};
use url::Url;

use crate::support::browser::{Browser, Page};
use crate::support::client::Request;
use crate::support::gateway::Gateway;
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::{Echo, Upstream};

const PAGE: &str = "https://wiki.test/page";
const STRONG: &str = "https://wiki.test/step/x?y=1";
const FRESH: &str = "https://wiki.test/fresh/x";
const SESSION: &str = "__Host-portcullis";

/// An application for everybody who is signed in, and one behind routes that ask for more.
struct Stage {
    _upstream: Upstream,
    guarded: Upstream,
    provider: ScriptedProvider,
    gateway: Gateway,
}

impl Stage {
    fn new() -> Self {
        let (upstream, guarded, provider) = (Upstream::start(), Upstream::start(), ScriptedProvider::start());
        let mut entry = provider.entry();
        entry.more.push_str("authorization_params = { ui_locales = \"en\", domain_hint = \"a.test\" }\n");
        let gateway = Gateway::in_front_of(&upstream)
            .path("/step/", &guarded, "require = { acr = [\"urn:mfa\", \"phr\"] }")
            .path("/fresh/", &guarded, "require = { max_age = \"5m\" }")
            .path("/hint/", &guarded, "authorization_params = { ui_locales = \"de\", prompt = \"consent\" }")
            .provider(entry)
            .start();
        Self { _upstream: upstream, guarded, provider, gateway }
    }

    /// A browser that is signed in without anything special.
    fn signed_in(&self) -> Browser {
        let mut browser = Browser::new(&self.gateway);
        assert_eq!(browser.open(PAGE).status(), 200);
        browser
    }

    fn authorize_calls(&self) -> usize {
        self.provider.calls(Call::Authorize)
    }
}

fn session(browser: &Browser) -> String {
    browser.jar.get("wiki.test", SESSION).expect("a session cookie").value.clone()
}

/// A parameter of each authorization request of a navigation.
fn asked(page: &Page, name: &str) -> Vec<Option<String>> {
    let requests = page.hops.iter().filter(|(url, _)| url.path() == "/authorize");
    requests.map(|(url, _)| parameter(url, name)).collect()
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    let mut found = url.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let first = found.next();
    assert_eq!(found.next(), None, "{name} stands once in {url}");
    first
}

fn is_refused(page: &Page, code: &str) -> bool {
    page.status() == 403 && page.html().contains(code) && page.url.path() == "/oauth2/callback"
}

#[test]
fn tk_139_a_route_gets_the_context_that_it_asks_for_and_the_session_is_a_new_one() {
    let stage = Stage::new();
    let mut browser = stage.signed_in();
    let mut before = browser.clone();
    stage.provider.alter_claims(|claims| claims["acr"] = json!("phr"));
    let page = browser.open(STRONG);
    assert_eq!((page.url.as_str(), page.status()), (STRONG, 200), "{:?}", page.urls());
    assert_eq!(asked(&page, "acr_values"), [Some("urn:mfa phr".to_owned())]);
    assert_eq!(asked(&page, "max_age"), [None]);
    assert_eq!(Echo::of(&page.response).one("x-forwarded-user"), Some("alice"));
    assert_ne!(session(&browser), session(&before), "CB-12: a new id");
    assert_eq!(browser.open(STRONG).urls().len(), 1, "and it stays strong");
    assert_eq!(before.get(PAGE).status, 302, "the session before the step-up is over");
    let mut strong = stage.signed_in();
    assert_eq!(strong.open(STRONG).urls().len(), 1, "who is strong already goes on");
}

#[test]
fn tk_139_a_provider_that_cannot_meet_the_context_ends_in_403_and_the_session_lives_on() {
    let stage = Stage::new();
    let mut browser = stage.signed_in();
    let cookie = session(&browser);
    let rows = [
        ("lower", json!("pwd")),
        ("null", Value::Null),
        ("a number", json!(2)),
        ("a list", json!(["urn:mfa"])),
        ("both in one string", json!("urn:mfa phr")),
        ("another case", json!("PHR")),
        ("empty", json!("")),
    ];
    for (name, acr) in rows {
        stage.provider.alter_claims(move |claims| claims["acr"] = acr.clone());
        let calls = stage.authorize_calls();
        let page = browser.open(STRONG);
        assert!(is_refused(&page, "step_up_failed"), "{name}: {:?} {}", page.urls(), page.html());
        assert_eq!(stage.authorize_calls() - calls, 1, "{name}: no loop");
        assert_eq!(session(&browser), cookie, "{name}");
        assert_eq!(browser.get(PAGE).status, 200, "{name}: the session lives on");
    }
    stage.provider.alter_claims(|claims| drop(claims.as_object_mut().unwrap().remove("acr")));
    assert!(is_refused(&browser.open(STRONG), "step_up_failed"), "absent");
    assert_eq!(stage.guarded.hits(), 0);
    stage.gateway.wait_for_log(&["sign_in_failed", "step_up_failed", "acr"]);

    // Core's error for it, and any other: told, and nothing is lost.
    for (error, code) in
        [("unmet_authentication_requirements", "step_up_failed"), ("access_denied", "login_denied")]
    {
        stage.provider.alter_callback(move |parameters| {
            parameters.retain(|(name, _)| name != "code");
            parameters.push(("error".to_owned(), error.to_owned()));
        });
        assert!(is_refused(&browser.open(STRONG), code), "{error}");
        assert_eq!(browser.get(PAGE).status, 200, "{error}");
    }
}

#[test]
fn userinfo_never_brings_the_context() {
    let stage = Stage::new();
    let mut browser = stage.signed_in();
    stage.provider.alter_answer(Call::Userinfo, |answer| {
        answer.body =
            json!({ "sub": "alice", "acr": "phr", "auth_time": 9_999_999_999_u64 }).to_string().into();
    });
    assert!(is_refused(&browser.open(STRONG), "step_up_failed"));
    assert!(is_refused(&browser.open(FRESH), "step_up_failed"));
}

#[test]
fn a_first_sign_in_asks_for_what_the_page_needs() {
    let stage = Stage::new();
    stage.provider.alter_claims(|claims| claims["acr"] = json!("phr"));
    let mfa = Some("urn:mfa phr".to_owned());
    let rows = [
        (STRONG, mfa.clone(), None),
        (FRESH, None, Some("300".to_owned())),
        ("https://wiki.test/oauth2/start?rd=%2Fstep%2Fx", mfa, None),
        ("https://wiki.test/oauth2/start?rd=%2Fstepx", None, None),
        ("https://wiki.test/oauth2/start?rd=%2F&acr_values=evil&max_age=1", None, None),
    ];
    for (url, acr, age) in rows {
        let page = Browser::new(&stage.gateway).open(url);
        assert_eq!(asked(&page, "acr_values"), [acr], "{url}");
        assert_eq!(asked(&page, "max_age"), [age], "{url}");
    }
}

#[test]
fn who_cannot_follow_a_redirect_gets_the_challenge_of_rfc_9470() {
    let stage = Stage::new();
    let mut browser = stage.signed_in();
    let cookie = session(&browser);
    let rows = [("/step/api", "acr_values=\"urn:mfa phr\""), ("/fresh/api", "max_age=\"300\"")];
    for (path, parameter) in rows {
        let url = format!("https://wiki.test{path}");
        for method in ["GET", "POST", "DELETE"] {
            let refused = browser.fetch(&url, Request::new(method, path).with_body(b""));
            assert_eq!(refused.status, 401, "{method} {path}");
            assert_eq!(refused.json()["error"], json!("step_up_required"), "{method} {path}");
            let challenge = refused.field("www-authenticate").expect("a challenge");
            for piece in
                ["Cookie realm=\"wiki.test\"", "error=\"insufficient_user_authentication\"", parameter]
            {
                assert!(challenge.contains(piece), "{method} {path}: {challenge}");
            }
            assert_eq!(refused.field("location"), None, "{method} {path}");
            assert_eq!(refused.head.all("set-cookie"), Vec::<&str>::new(), "{method} {path}");
        }
    }
    let refused = browser.fetch("https://wiki.test/step/api?x", Request::get("/step/api?x"));
    assert_eq!(refused.json()["sign_in_url"], json!("/oauth2/start?rd=%2Fstep%2Fapi"));
    let page = browser.clone().open("https://wiki.test/oauth2/start?rd=%2Fstep%2Fapi");
    assert_eq!(asked(&page, "acr_values"), [Some("urn:mfa phr".to_owned())], "that is the way to it");
    let nobody = stage.gateway.request(&Request::get("/page").with("Accept", "application/json"));
    assert_eq!(nobody.json()["sign_in_url"], json!("/oauth2/start"));
    let nobody = stage.gateway.request(&Request::get("/step/api").with("Accept", "application/json"));
    let challenge = nobody.field("www-authenticate").expect("a challenge");
    assert_eq!(nobody.json()["error"], json!("sign_in_required"));
    assert!(!challenge.contains("insufficient_user_authentication"), "{challenge}");
    assert_eq!((session(&browser), stage.guarded.hits()), (cookie, 0));
}

#[test]
fn tk_139_an_old_authentication_is_asked_for_once_again_and_then_refused() {
    let stage = Stage::new();
    stage.provider.alter_claims(|claims| claims["auth_time"] = json!(claims["iat"].as_u64().unwrap() - 3600));
    let mut browser = stage.signed_in();
    let (cookie, calls) = (session(&browser), stage.authorize_calls());
    let page = browser.open(FRESH);
    assert!(is_refused(&page, "step_up_failed"), "{:?}", page.urls());
    assert_eq!(stage.authorize_calls() - calls, 2);
    assert_eq!(asked(&page, "max_age"), [Some("300".to_owned()), Some("300".to_owned())]);
    assert_eq!(asked(&page, "prompt"), [None, Some("login".to_owned())]);
    assert_eq!(session(&browser), cookie);
    assert_eq!(browser.get(PAGE).status, 200, "the session lives on");
    assert_eq!(stage.guarded.hits(), 0);
    let left = browser.jar.of("wiki.test");
    assert!(left.iter().all(|cookie| !cookie.name.contains("-login-")), "no attempt is left over");
}

#[test]
fn an_old_authentication_that_the_second_try_renews_is_enough() {
    let stage = Stage::new();
    let mut browser = stage.signed_in();
    let mut tries = 0;
    stage.provider.alter_claims(move |claims| {
        tries += 1;
        let age = if tries == 1 { 3600 } else { 1 };
        claims["auth_time"] = json!(claims["iat"].as_u64().unwrap() - age);
    });
    let page = browser.open(FRESH);
    assert_eq!((page.url.as_str(), page.status()), (FRESH, 200), "{:?}", page.urls());
    assert_eq!(asked(&page, "prompt").len(), 2);
    assert_eq!(browser.open(FRESH).urls().len(), 1, "and it lasts for five minutes");
}

#[test]
fn an_authentication_without_a_time_is_never_fresh() {
    let stage = Stage::new();
    let mut browser = stage.signed_in();
    let far = json!(99_999_999_999_u64);
    for (time, requests) in
        [(None, 1), (Some(Value::Null), 1), (Some(json!("1700000000")), 1), (Some(far), 2)]
    {
        let wanted = time.clone();
        stage.provider.alter_claims(move |claims| {
            if let Some(time) = &wanted {
                claims["auth_time"] = time.clone();
            }
        });
        let page = browser.open(FRESH);
        assert!(is_refused(&page, "step_up_failed"), "{time:?}: {:?}", page.urls());
        assert_eq!(asked(&page, "prompt").len(), requests, "{time:?}");
    }
    assert_eq!(stage.guarded.hits(), 0);
}

#[test]
fn parameters_of_a_route_win_over_the_providers_and_stand_once() {
    let stage = Stage::new();
    let rows = [
        ("https://wiki.test/page", "en", None),
        ("https://wiki.test/hint/x", "de", Some("consent")),
        ("https://wiki.test/oauth2/start?rd=%2Fhint%2F", "de", Some("consent")),
        ("https://wiki.test/oauth2/start?rd=%2F&ui_locales=xx&prompt=none", "en", None),
    ];
    for (url, locales, prompt) in rows {
        let page = Browser::new(&stage.gateway).open(url);
        assert_eq!(asked(&page, "ui_locales"), [Some(locales.to_owned())], "{url}");
        assert_eq!(asked(&page, "prompt"), [prompt.map(str::to_owned)], "{url}");
        assert_eq!(asked(&page, "domain_hint"), [Some("a.test".to_owned())], "{url}");
    }
}

#[test]
fn a_step_up_goes_to_the_provider_of_the_session() {
    let (upstream, guarded) = (Upstream::start(), Upstream::start());
    let (first, second) = (ScriptedProvider::start(), ScriptedProvider::start());
    let mut entry = second.entry();
    entry.id = "second".into();
    let gateway = Gateway::in_front_of(&upstream)
        .path("/step/", &guarded, "require = { acr = [\"phr\"] }")
        .provider(first.entry())
        .provider(entry)
        .start();
    let mut browser = Browser::new(&gateway);
    browser.open("https://wiki.test/oauth2/start?provider=second");
    second.alter_claims(|claims| claims["acr"] = json!("phr"));
    let page = browser.open(STRONG);
    assert_eq!((page.url.as_str(), page.status()), (STRONG, 200), "{:?}", page.urls());
    assert_eq!((first.calls(Call::Authorize), second.calls(Call::Authorize)), (0, 2));
    assert_eq!(Browser::new(&gateway).open(STRONG).url.path(), "/oauth2/sign_in", "nobody yet chose");
}

#[test]
fn another_person_who_steps_up_is_simply_signed_in() {
    let stage = Stage::new();
    let mut browser = stage.signed_in();
    let mut before = browser.clone();
    stage.provider.claims(|claims| claims["sub"] = json!("bob"));
    stage.provider.alter_claims(|claims| claims["acr"] = json!("phr"));
    let page = browser.open(STRONG);
    assert_eq!(Echo::of(&page.response).one("x-forwarded-user"), Some("bob"));
    assert_eq!(before.get(PAGE).status, 302, "alice's session is over");
}

#[test]
fn a_way_back_that_does_not_fit_into_the_cookie_ends_at_the_root() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let acr = "a".repeat(512);
    let gateway = Gateway::in_front_of(&upstream)
        .path("/step/", &upstream, &format!("require = {{ acr = [\"{acr}\"] }}"))
        .provider(provider.entry())
        .start();
    provider.alter_claims(move |claims| claims["acr"] = json!(acr));
    let long = format!("https://wiki.test/step/{}", "x".repeat(2000));
    let page = Browser::new(&gateway).open(&long);
    assert_eq!((page.url.as_str(), page.status()), ("https://wiki.test/", 200), "{:?}", page.urls());
}
