//! `response_mode=form_post`: the provider's answer as a form that its page posts to the callback.
//!
//! The browser of these tests sends cookies as browsers do: a POST from another site carries those with
//! `SameSite=None` alone. The name after `conformance` is that of the OpenID Foundation's test module.

use serde_json::json;

use crate::support::browser::{Browser, Page};
use crate::support::client::{Request, Response};
use crate::support::cookie_jar::Cookie;
use crate::support::form::find_form;
use crate::support::gateway::Gateway;
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::{Echo, Upstream};

const PAGE: &str = "https://wiki.test/page?x=1";
const CALLBACK: &str = "https://wiki.test/oauth2/callback";
const SESSION: &str = "__Host-portcullis";

fn stage() -> (Upstream, ScriptedProvider, Gateway) {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let mut entry = provider.entry();
    entry.more.push_str("response_mode = \"form_post\"\n");
    let gateway = Gateway::in_front_of(&upstream)
        .path("/fresh/", &upstream, "require = { max_age = \"5m\" }")
        .provider(entry)
        .start();
    (upstream, provider, gateway)
}

/// Opens a page and sends the form that the provider answers with.
fn sign_in(browser: &mut Browser, url: &str) -> Page {
    let form = browser.open(url);
    assert!(form.url.as_str().starts_with("http://localhost"), "{:?}", form.urls());
    browser.submit(&form, &[])
}

fn session(browser: &Browser) -> Option<&Cookie> {
    browser.jar.get("wiki.test", SESSION)
}

fn attempts(browser: &Browser) -> Vec<&Cookie> {
    browser.jar.of("wiki.test").into_iter().filter(|cookie| cookie.name.contains("-login-")).collect()
}

fn is_refusal(response: &Response, status: u16, code: &str) -> bool {
    response.status == status && response.text().contains(code)
}

#[test]
fn conformance_form_post_client_test() {
    let (_upstream, provider, gateway) = stage();
    let mut browser = Browser::new(&gateway);
    let form = browser.open(PAGE);
    let authorize = provider.last(Call::Authorize);
    assert_eq!(authorize.parameter("response_mode").as_deref(), Some("form_post"));
    assert_eq!(authorize.parameter("response_type").as_deref(), Some("code"));
    let nonce = authorize.parameter("nonce").expect("a nonce is sent");
    assert!(nonce.len() >= 22 && nonce.len() <= 43, "{nonce}");
    let [attempt] = attempts(&browser)[..] else { panic!("one attempt") };
    assert!(attempt.secure && attempt.http_only && attempt.same_site == "None", "{attempt:?}");

    let page = browser.submit(&form, &[]);
    assert_eq!((page.url.as_str(), page.status()), (PAGE, 200), "{:?}", page.urls());
    assert_eq!(page.hop(CALLBACK).1.status, 303);
    assert_eq!(page.hop(CALLBACK).0.query(), None, "nothing of the answer is in a URL");
    assert_eq!(Echo::of(&page.response).one("x-forwarded-user"), Some("alice"));
    assert_eq!((provider.calls(Call::Token), provider.calls(Call::Userinfo)), (1, 1));
    assert_eq!(session(&browser).expect("a session").same_site, "Lax");
    assert!(attempts(&browser).is_empty(), "the attempt's cookie goes with its callback");
    assert_eq!(browser.jar.rejected, Vec::<String>::new(), "cookies that a browser would refuse");
}

#[test]
fn cb_1_only_a_form_in_the_body_of_a_post_is_an_answer() {
    let (_upstream, provider, gateway) = stage();
    let mut browser = Browser::new(&gateway);
    let form = browser.open(PAGE);
    let fields = find_form(&form.html()).expect("a form").fields;
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
    let [attempt] = attempts(&browser)[..] else { panic!("one attempt") };
    let cookie = format!("{}={}", attempt.name, attempt.value);
    let post =
        || Request::new("POST", "/oauth2/callback").with("Accept", "text/html").with("Cookie", &cookie);
    let with = |name: &str, value: &str| {
        let mut fields = fields.clone();
        fields.push((name.to_owned(), value.to_owned()));
        post().with_form(&fields)
    };
    let form_type = "application/x-www-form-urlencoded";
    let rows = [
        (
            "JSON",
            post().with("Content-Type", "application/json").with_body(query.as_bytes()),
            "login_malformed",
        ),
        ("text", post().with("Content-Type", "text/plain").with_body(query.as_bytes()), "login_malformed"),
        ("no type", post().with_body(query.as_bytes()), "login_malformed"),
        ("empty", post().with_form(&[]), "login_malformed"),
        (
            "in the query",
            Request::new("POST", &format!("/oauth2/callback?{query}")).with("Cookie", &cookie).with_form(&[]),
            "login_malformed",
        ),
        (
            "no UTF-8",
            post().with("Content-Type", form_type).with_body(b"code=c&state=\xff"),
            "login_malformed",
        ),
        ("CB-2 over 16 KiB", with("x", &"y".repeat(17_000)), "login_malformed"),
        ("CB-6 two codes", with("code", "x"), "login_malformed"),
        ("CB-6 two states", with("state", "x"), "login_malformed"),
        ("CB-9 a token", with("id_token", "x"), "login_malformed"),
        ("code and error", with("error", "access_denied"), "login_malformed"),
        ("CB-7 another issuer", with("iss", "https://evil.test"), "login_state_mismatch"),
    ];
    for (name, request, code) in rows {
        let refused = gateway.request(&request);
        assert!(is_refusal(&refused, 400, code), "{name}: {} {}", refused.status, refused.text());
    }
    let large = gateway.request(&with("x", &"y".repeat(66_000)));
    assert!(is_refusal(&large, 413, "body_too_large"), "{}", large.text());
    for method in ["GET", "HEAD", "PUT"] {
        let wrong = gateway
            .request(&Request::new(method, &format!("/oauth2/callback?{query}")).with("Cookie", &cookie));
        assert_eq!((wrong.status, wrong.field("allow")), (405, Some("POST")), "{method}");
    }
    assert_eq!(provider.calls(Call::Token), 0);
    assert_eq!(browser.submit(&form, &[]).url.as_str(), PAGE, "the honest answer works after all that");
}

#[test]
fn cs_1_a_form_that_another_site_posts_signs_nobody_in() {
    let (_upstream, provider, gateway) = stage();
    let mut attacker = Browser::new(&gateway);
    let answer = attacker.open(PAGE);
    let fields = find_form(&answer.html()).expect("a form").fields;
    let mut victim = Browser::new(&gateway);
    let form = victim.open(PAGE);
    let before = victim.clone();
    let as_set: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
    let refused = victim.submit(&form, &as_set);
    assert_eq!(refused.status(), 400, "{}", refused.html());
    assert_eq!(session(&victim), None);
    assert_eq!(provider.calls(Call::Token), 0, "the attacker's code went nowhere");
    assert_eq!(attempts(&victim), attempts(&before), "the victim's own attempt lives on");
    assert_eq!(victim.submit(&form, &[]).url.as_str(), PAGE);
}

#[test]
fn an_answer_that_is_posted_works_once_and_an_error_is_told() {
    let (_upstream, provider, gateway) = stage();
    let mut browser = Browser::new(&gateway);
    let form = browser.open(PAGE);
    let mut copy = browser.clone();
    browser.submit(&form, &[]);
    assert!(is_refusal(&copy.submit(&form, &[]).response, 400, "login_replayed"));
    assert_eq!((session(&copy), provider.calls(Call::Token)), (None, 1));

    provider.alter_callback(|parameters| {
        parameters.retain(|(name, _)| name != "code");
        parameters.push(("error".to_owned(), "access_denied".to_owned()));
    });
    let denied = sign_in(&mut Browser::new(&gateway), PAGE);
    assert!(is_refusal(&denied.response, 403, "login_denied"), "{}", denied.html());
}

#[test]
fn the_session_before_ends_though_the_post_does_not_show_it() {
    let (_upstream, _provider, gateway) = stage();
    let mut browser = Browser::new(&gateway);
    sign_in(&mut browser, PAGE);
    let mut before = browser.clone();
    assert_eq!(before.get(PAGE).status, 200);
    sign_in(&mut browser, "https://wiki.test/oauth2/start?rd=/again");
    assert_eq!((browser.get(PAGE).status, before.get(PAGE).status), (200, 302), "CB-12");
}

#[test]
fn a_step_up_goes_round_once_more_and_leaves_the_session_where_it_fails() {
    let (_upstream, provider, gateway) = stage();
    let mut browser = Browser::new(&gateway);
    sign_in(&mut browser, PAGE);
    let mut before = browser.clone();
    let mut tries = 0;
    provider.alter_claims(move |claims| {
        tries += 1;
        let age = if tries < 4 { 3600 } else { 1 };
        claims["auth_time"] = json!(claims["iat"].as_u64().unwrap() - age);
    });
    let fresh = "https://wiki.test/fresh/x";
    let again = sign_in(&mut browser, fresh);
    assert_eq!(again.hop(CALLBACK).1.status, 303, "to the provider, by GET");
    assert_eq!(provider.last(Call::Authorize).parameter("prompt").as_deref(), Some("login"));
    let refused = browser.submit(&again, &[]);
    assert!(is_refusal(&refused.response, 403, "step_up_failed"), "{}", refused.html());
    assert_eq!(browser.get(PAGE).status, 200, "the session lives on");
    let again = sign_in(&mut browser, fresh);
    let page = browser.submit(&again, &[]);
    assert_eq!((page.url.as_str(), page.status()), (fresh, 200), "{:?}", page.urls());
    assert_eq!(before.get(PAGE).status, 302, "CB-12, also behind a second try");
}

#[test]
fn a_loop_of_posts_ends_on_a_page() {
    let (upstream, _provider, gateway) = stage();
    let again = "HTTP/1.1 302 Found\r\nLocation: /oauth2/start?rd=/loop\r\nContent-Length: 0\r\n\r\n";
    upstream.answers("/loop", again.as_bytes());
    let mut browser = Browser::new(&gateway);
    let mut page = browser.open("https://wiki.test/loop");
    let mut rounds = 0;
    while page.status() == 200 && rounds < 10 {
        page = browser.submit(&page, &[]);
        rounds += 1;
    }
    assert!(is_refusal(&page.response, 400, "login_loop"), "{rounds}: {}", page.html());
    assert_eq!(rounds, 4);
}
