//! Sign-out: here and at the provider.

use std::time::Duration;

use crate::support::browser::Browser;
use crate::support::certified_provider::CertifiedProvider;
use crate::support::client::{Request, Response};
use crate::support::form::find_form;
use crate::support::gateway::{Gateway, WIKI};
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::Upstream;
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page";
const SIGN_OUT: &str = "https://wiki.test/oauth2/sign_out";
const SIGNED_OUT: &str = "https://wiki.test/oauth2/signed_out";

fn needs_sign_in(response: &Response) -> bool {
    response.status == 302 && response.field("location").is_some_and(|url| url.contains("code_challenge="))
}

#[test]
fn signing_out_ends_the_session_here_and_at_the_provider() {
    let mut provider = CertifiedProvider::start();
    let upstream = Upstream::start();
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let mut browser = Browser::new(&gateway);
    let page = browser.sign_in(PAGE, "alice");
    let mut thief = browser.clone();

    let confirm = browser.follow(&page, SIGN_OUT);
    assert!(needs_sign_in(&thief.get(PAGE)), "a copied cookie is worthless as soon as sign-out began");
    let url = &confirm.url;
    let parameter =
        |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    assert!(url.as_str().starts_with(&format!("{}session/end?", provider.issuer())), "{url}");
    assert_eq!(parameter("client_id").as_deref(), Some("client_secret_basic"));
    assert_eq!(parameter("post_logout_redirect_uri").as_deref(), Some(SIGNED_OUT));
    assert!(parameter("id_token_hint").is_some_and(|token| token.split('.').count() == 3));
    assert!(parameter("state").is_some_and(|state| state.len() >= 22));
    let redirect = &confirm.hop(SIGN_OUT).1;
    assert_eq!(redirect.field("referrer-policy"), Some("no-referrer"));

    let done = browser.submit(&confirm, &[("logout", "yes")]);
    assert_eq!((done.status(), done.url.path()), (200, "/oauth2/signed_out"));
    assert_eq!(browser.jar.of("wiki.test"), Vec::new() as Vec<&_>, "no cookie of ours is left");
    assert_eq!(provider.calls("session/end/confirm"), 1);
    let again = browser.open(PAGE);
    assert!(
        again.html().contains("Certified provider: sign in"),
        "the provider asks again: {:?}",
        again.urls()
    );
}

#[test]
fn a_form_of_the_same_site_signs_out_and_another_site_must_ask() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);

    let mut elsewhere = browser.open("https://wiki.test/link");
    elsewhere.url = "https://evil.test/".parse().unwrap();
    let asked = browser.follow(&elsewhere, SIGN_OUT);
    assert_eq!(asked.status(), 403);
    assert!(asked.html().contains("cross_site"));
    assert_eq!(browser.post(SIGN_OUT, "https://evil.test/").status, 403);
    assert_eq!(browser.get(PAGE).status, 200, "still signed in");

    // The button of that page means it.
    let done = match find_form(&asked.html()) {
        Some(_) => browser.submit(&asked, &[]),
        None => browser.click(&asked, "/oauth2/sign_out"),
    };
    assert_eq!(done.url.path(), "/oauth2/signed_out", "{:?}", done.urls());
    assert!(needs_sign_in(&browser.get(PAGE)));
    assert_eq!(provider.calls(Call::EndSession), 1);
}

#[test]
fn signing_out_takes_the_token_back_and_waits_for_nobody() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    assert_eq!(browser.post(SIGN_OUT, PAGE).status, 302);
    let taken = "portcullis_provider_seconds_count{provider=\"main\",call=\"revocation\",outcome=\"ok\"}";
    wait_for("the token to be taken back", || (gateway.metric(taken) > 0.0).then_some(()));
    assert_eq!(provider.calls(Call::Revocation), 1);

    provider.alter_answer(Call::Revocation, |answer| answer.status = 500);
    browser.open(PAGE);
    assert_eq!(browser.post(SIGN_OUT, PAGE).status, 302, "the sign-out is done all the same");
    assert!(needs_sign_in(&browser.get(PAGE)));
}

#[test]
fn signing_out_closes_a_web_socket_that_is_open() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    let session = browser.jar.get(WIKI, "__Host-portcullis").unwrap();
    let upgrade = Request::get("/ws")
        .with("Host", WIKI)
        .with("Connection", "Upgrade")
        .with("Upgrade", "websocket")
        .with("Sec-WebSocket-Version", "13")
        .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .with("Cookie", &format!("{}={}", session.name, session.value));
    let mut connection = gateway.place(WIKI).connect().unwrap();
    connection.send(&upgrade.bytes()).unwrap();
    assert_eq!(connection.response_head("GET").0, 101);
    browser.post(SIGN_OUT, PAGE);
    // The socket is idle: nothing but the end of the session closes it.
    assert!(connection.is_closed_within(Duration::from_secs(10)));
}

#[test]
fn a_provider_without_end_session_is_signed_out_of_here_only() {
    let provider = CertifiedProvider::builder().without_end_session().start();
    let upstream = Upstream::start();
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let mut browser = Browser::new(&gateway);
    browser.sign_in(PAGE, "alice");
    let mut thief = browser.clone();
    let signed_out = browser.post(SIGN_OUT, PAGE);
    assert_eq!((signed_out.status, signed_out.field("location")), (302, Some("/oauth2/signed_out")));
    assert_eq!(browser.open(SIGNED_OUT).status(), 200);
    for browser in [&mut browser, &mut thief] {
        assert!(needs_sign_in(&browser.get(PAGE)));
    }
    gateway.wait_for_log(&["sign_out", "local"]);
}

#[test]
fn a_provider_that_is_down_never_holds_up_the_local_sign_out() {
    let (upstream, mut provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    let mut thief = browser.clone();
    provider.stop();
    assert_eq!(browser.post(SIGN_OUT, PAGE).status, 302);
    assert_eq!(thief.get(PAGE).status, 302, "the session is over");
}

#[test]
fn signing_out_without_a_session_ends_on_the_page() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let page = Browser::new(&gateway).open(SIGN_OUT);
    assert_eq!((page.status(), page.url.path()), (200, "/oauth2/signed_out"));
    assert_eq!(provider.calls(Call::EndSession), 0);
}

#[test]
fn the_way_back_never_leads_where_a_client_says() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    for query in ["state=wrong", "rd=https://evil.test/", "post_logout_redirect_uri=https://evil.test/", ""] {
        let page = Browser::new(&gateway).open(&format!("{SIGNED_OUT}?{query}"));
        assert_eq!((page.status(), page.hops.len()), (200, 1), "{query}");
        assert!(!page.html().contains("evil.test"), "{query}");
    }
}
