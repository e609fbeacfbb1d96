//! Sign-out: here and at the provider.

use std::io::{ErrorKind, Read as _};
use std::time::{Duration, Instant};

use crate::support::browser::Browser;
use crate::support::certified_provider::CertifiedProvider;
use crate::support::client::{Connection, Request, Response};
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

/// More than all buffers on the way hold.
const DOWNLOAD: usize = 1 << 30;

/// The next event of an answer in chunks.
fn event(connection: &mut Connection) -> String {
    // The length of the chunk, its event with an empty line, and the end of the chunk.
    let mut chunk = [0; "9\r\ndata: 0\n\n\r\n".len()];
    connection.stream().read_exact(&mut chunk).unwrap();
    String::from_utf8_lossy(&chunk).lines().nth(1).unwrap().to_owned()
}

/// The session cookie as a request has it.
fn cookie_field(browser: &Browser) -> String {
    let session = browser.jar.get(WIKI, "__Host-portcullis").unwrap();
    format!("{}={}", session.name, session.value)
}

/// A handshake with this cookie.
fn upgrade(cookie: &str) -> Request {
    Request::get("/ws")
        .with("Connection", "Upgrade")
        .with("Upgrade", "websocket")
        .with("Sec-WebSocket-Version", "13")
        .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .with("Cookie", cookie)
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

#[test]
fn the_page_after_sign_out_leads_to_a_page_of_this_host_and_nobody_is_sent_there() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let cases = [
        ("rd=/bye%3Fa=1", "href=\"/bye?a=1\""),
        ("rd=https://wiki.test/bye", "href=\"/bye\""),
        ("rd=https://evil.test/", "href=\"/\""),
        ("rd=//evil.test", "href=\"/\""),
        ("rd=/%5Cevil.test", "href=\"/\""),
        ("post_logout_redirect_uri=//evil.test", "href=\"/\""),
    ];
    for (query, link) in cases {
        for signed_in in [true, false] {
            let mut browser = Browser::new(&gateway);
            if signed_in {
                browser.open(PAGE);
            }
            let page = browser.open(&format!("{SIGN_OUT}?{query}"));
            assert_eq!((page.status(), page.url.path()), (200, "/oauth2/signed_out"), "{query}");
            assert!(page.html().contains(link), "{query}, signed in: {signed_in}: {}", page.html());
            assert!(
                page.urls().iter().skip(1).all(|url| !url.contains("evil")),
                "{query}: {:?}",
                page.urls()
            );
        }
    }
}

#[test]
fn sc_153_a_copied_cookie_is_worth_nothing_after_sign_out() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    let copy = cookie_field(&browser);
    browser.post(SIGN_OUT, PAGE);
    let hits = upstream.hits();
    let upgrade = upgrade(&copy);
    let json = |path: &str| Request::get(path).with("Accept", "application/json").with("Cookie", &copy);
    let cases = [
        ("a page", json("/page"), 401),
        ("a WebSocket", upgrade, 401),
        ("who am I", json("/oauth2/userinfo"), 401),
        ("another sign-out", json("/oauth2/sign_out"), 302),
    ];
    for (name, request, status) in cases {
        assert_eq!(gateway.request(&request).status, status, "{name}");
    }
    assert_eq!((upstream.hits(), provider.calls(Call::EndSession)), (hits, 0), "nothing was done with it");
}

type End = fn(&mut Browser, &ScriptedProvider, &Gateway);

#[test]
fn sc_157_sockets_events_and_downloads_of_a_session_that_ends_are_cut_within_a_second() {
    let ways: [(&str, End); 2] = [
        ("sign-out", |browser, _, _| assert_eq!(browser.post(SIGN_OUT, PAGE).status, 302)),
        ("back channel", |_, provider, gateway| {
            let token = provider.logout_token(|_, claims| claims["sid"] = "s1".into());
            let form = [("logout_token".to_owned(), token)];
            let call = Request::new("POST", "/oauth2/backchannel_logout").with_form(&form);
            assert_eq!(gateway.request(&call).status, 200);
        }),
    ];
    for (way, end) in ways {
        let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
        let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
        let [mut alice, bob] = ["s1", "s2"].map(|sid| {
            provider.claims(move |claims| claims["sid"] = sid.into());
            let mut browser = Browser::new(&gateway);
            assert_eq!(browser.open(PAGE).status(), 200, "{way}");
            browser
        });
        let get = |path: &str, browser: &Browser| Request::get(path).with("Cookie", &cookie_field(browser));
        let open = |request: &Request, status: u16| {
            let mut connection = gateway.place(WIKI).connect().unwrap();
            connection.send(&request.clone().with("Host", WIKI).bytes()).unwrap();
            assert_eq!(connection.response_head("GET").0, status, "{way}");
            connection
        };
        let mut served = [
            ("a WebSocket", open(&upgrade(&cookie_field(&alice)), 101)),
            ("events", open(&get("/sse", &alice), 200)),
            ("a download", open(&get(&format!("/big?bytes={DOWNLOAD}"), &alice), 200)),
        ];
        let mut others = open(&get("/sse", &bob), 200);
        assert_eq!(event(&mut others), "data: 0", "{way}");

        end(&mut alice, &provider, &gateway);
        let ended = Instant::now();
        for (name, connection) in &mut served {
            let mut left = Vec::new();
            let read = connection.stream().read_to_end(&mut left);
            let was_cut = read.map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |_| true);
            assert!(was_cut && left.len() < DOWNLOAD, "{way}: {name}");
            assert!(ended.elapsed() < Duration::from_secs(1), "{way}: {name} took {:?}", ended.elapsed());
        }
        upstream.go_on();
        assert_eq!(event(&mut others), "data: 1", "{way}: another session goes on");
    }
}
