//! A page of the provider's tells, in a frame, that somebody signed out.
//!
//! The names after `conformance` are those of the OpenID Foundation's test modules.

use url::form_urlencoded::byte_serialize;

use crate::support::browser::Browser;
use crate::support::client::{Request, Response};
use crate::support::gateway::{Gateway, ProviderEntry, WIKI};
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::Upstream;
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page";
const ON: &str = "frontchannel_logout = true\n";

/// A gateway with its provider and application.
struct Scene {
    provider: ScriptedProvider,
    gateway: Gateway,
    _upstream: Upstream,
}

impl Scene {
    fn with(lines: &str) -> Self {
        Self::of(lines, None)
    }

    fn of(lines: &str, other: Option<ProviderEntry>) -> Self {
        let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
        let mut entry = provider.entry();
        entry.more.push_str(lines);
        let mut builder = Gateway::empty()
            .route(&format!("host = \"{WIKI}\"\nprovider = \"main\"\nupstream = \"{}\"", upstream.url()))
            .provider(entry);
        if let Some(mut other) = other {
            other.id = "other".into();
            if other.issuer.is_empty() {
                other.issuer = provider.issuer();
            }
            builder = builder.provider(other);
        }
        Self { provider, gateway: builder.start(), _upstream: upstream }
    }

    /// Somebody who is signed in, in a session of the provider's of its own.
    fn signed_in(&self, sid: &'static str) -> Browser {
        self.provider.claims(move |claims| claims["sid"] = sid.into());
        let mut browser = Browser::new(&self.gateway);
        assert_eq!(browser.open(PAGE).status(), 200);
        browser
    }

    /// The path that the provider's page has in its frame.
    fn path(&self, sid: &str) -> String {
        format!("/oauth2/frontchannel_logout?iss={}&sid={sid}", encoded(&self.provider.issuer()))
    }

    /// What a browser asks for in a frame of another site: without our cookies.
    fn framed(&self, path: &str) -> Response {
        self.gateway.request(&frame(path))
    }
}

fn frame(path: &str) -> Request {
    Request::get(path)
        .with("Accept", "text/html,application/xhtml+xml")
        .with("Sec-Fetch-Site", "cross-site")
        .with("Sec-Fetch-Mode", "navigate")
        .with("Sec-Fetch-Dest", "iframe")
}

fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

fn is_signed_in(browser: &Browser) -> bool {
    browser.clone().get(PAGE).status == 200
}

#[test]
fn conformance_rp_frontchannel_rpinitlogout() {
    let scene = Scene::with(ON);
    // The same session of the provider's in two browsers' jars: one signs out, the frame ends the other.
    let (mut alice, elsewhere, bob) = (scene.signed_in("s1"), scene.signed_in("s1"), scene.signed_in("s2"));
    let frame_source = format!("https://{WIKI}{}", scene.path("s1"));
    let page = format!("<iframe src=\"{}\"></iframe>", frame_source.replace('&', "&amp;"));
    scene.provider.alter_answer(Call::EndSession, move |answer| {
        answer.status = 200;
        answer.fields = vec![("Content-Type".to_owned(), "text/html".to_owned())];
        answer.body = page.clone().into_bytes();
    });
    let sign_out = alice.open("https://wiki.test/oauth2/sign_out");
    assert!(sign_out.url.as_str().starts_with(&scene.provider.issuer()), "{:?}", sign_out.urls());
    let framed = sign_out.html().split('"').nth(1).unwrap().replace("&amp;", "&");
    let answer = scene.framed(framed.strip_prefix("https://wiki.test").unwrap());
    assert_eq!(answer.status, 200);
    assert!(!is_signed_in(&alice) && !is_signed_in(&elsewhere), "the sessions of the sid");
    assert!(is_signed_in(&bob), "and no other");
    scene.gateway.wait_for_log(&["logout_heard", "front-channel", "\"sessions\":1"]);
}

#[test]
fn lo_195_a_page_of_the_provider_ends_the_session_it_names() {
    let scene = Scene::with(ON);
    let alice = scene.signed_in("s1");
    let cookie = alice.jar.get(WIKI, "__Host-portcullis").unwrap().clone();
    let revocations = scene.provider.calls(Call::Revocation);
    for round in ["the first call", "the second call"] {
        let path = scene.path("s1");
        let answer =
            scene.gateway.request(&frame(&path).with("Cookie", &format!("{}={}", cookie.name, cookie.value)));
        assert_eq!(answer.status, 200, "{round}");
        assert!(answer.field("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{round}");
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{round}");
        let policy = answer.field("content-security-policy").unwrap();
        let ancestors = policy.split("; ").find(|part| part.starts_with("frame-ancestors"));
        let wanted = format!("frame-ancestors {}", scene.provider.issuer());
        assert_eq!(ancestors, Some(wanted.as_str()), "{round}");
        assert_eq!(answer.field("x-frame-options"), None, "{round}");
        assert!(!answer.text().contains("<script"), "{round}");
        assert!(!is_signed_in(&alice), "{round}");
    }
    assert_eq!(scene.provider.calls(Call::Revocation), revocations, "FC-1: no token is revoked for it");
}

#[test]
fn lo_196_whatever_does_not_name_issuer_and_session_changes_nothing() {
    let scene = Scene::with(ON);
    let alice = scene.signed_in("s1");
    let cookie = alice.jar.get(WIKI, "__Host-portcullis").unwrap();
    let cookie = format!("{}={}", cookie.name, cookie.value);
    let issuer = encoded(&scene.provider.issuer());
    let cases = [
        ("another session", format!("?iss={issuer}&sid=s2"), 200),
        ("the subject for the session", format!("?iss={issuer}&sid=alice"), 200),
        ("another issuer", "?iss=https%3A%2F%2Fop2.test&sid=s1".to_owned(), 400),
        ("the issuer with a slash", format!("?iss={issuer}%2F&sid=s1"), 400),
        ("no issuer", "?sid=s1".to_owned(), 400),
        ("no session", format!("?iss={issuer}"), 400),
        ("an empty session", format!("?iss={issuer}&sid="), 400),
        ("neither", String::new(), 400),
        ("two sessions", format!("?iss={issuer}&sid=s1&sid=s2"), 400),
        ("the session twice", format!("?iss={issuer}&sid=s1&sid=s1"), 400),
        ("the issuer twice", format!("?iss={issuer}&iss={issuer}&sid=s1"), 400),
        ("an escaped name", format!("?iss={issuer}&sid=s1&%73id=s1"), 400),
        ("an ampersand that was escaped", format!("?iss={issuer}&amp;sid=s1"), 400),
    ];
    for (name, query, status) in cases {
        let path = format!("/oauth2/frontchannel_logout{query}");
        let answer = scene.gateway.request(&frame(&path).with("Cookie", &cookie));
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{name}");
        assert!(is_signed_in(&alice), "{name}");
    }
    let post = scene.gateway.request(&Request::new("POST", &scene.path("s1")).with_body(b""));
    assert_eq!(post.status, 405);
    assert!(is_signed_in(&alice));
    assert!(!scene.gateway.log().iter().any(|line| line.contains("logout_heard")));
}

#[test]
fn lo_197_nothing_is_heard_until_every_entry_of_the_issuer_says_so() {
    let elsewhere = ScriptedProvider::start();
    let same_issuer = ProviderEntry { issuer: String::new(), ..elsewhere.entry() };
    let mut other_issuer = elsewhere.entry();
    other_issuer.more.push_str(ON);
    let cases = [
        ("by default", Scene::with(""), 404),
        ("switched off", Scene::with("frontchannel_logout = false\n"), 404),
        ("on for another issuer", Scene::of("", Some(other_issuer)), 400),
        ("on for one of two entries of the issuer", Scene::of(ON, Some(same_issuer)), 400),
    ];
    for (name, scene, status) in cases {
        let alice = scene.signed_in("s1");
        assert_eq!(scene.framed(&scene.path("s1")).status, status, "{name}");
        assert!(is_signed_in(&alice), "{name}");
        assert_eq!(scene.provider.calls(Call::Revocation), 0, "{name}");
    }
}

#[test]
fn bc_10_who_guesses_is_stopped_and_a_provider_that_is_right_is_not() {
    let scene = Scene::with(ON);
    let (alice, bob) = (scene.signed_in("s1"), scene.signed_in("s2"));
    let tell = |token: &str| {
        let form = [("logout_token".to_owned(), token.to_owned())];
        scene.gateway.request(&Request::new("POST", "/oauth2/backchannel_logout").with_form(&form)).status
    };
    for number in 0..150 {
        let token = scene.provider.logout_token(|_, claims| claims["sid"] = format!("n{number}").into());
        assert_eq!(tell(&token), 200, "good call {number}: they don't count");
    }
    let limited = (0..1000).find(|_| tell("junk") == 429);
    assert!(limited.is_some_and(|number| number >= 100), "{limited:?}");
    assert_eq!(scene.framed(&scene.path("s1")).status, 200, "the other channel has a limit of its own");
    assert!(!is_signed_in(&alice));

    let limited = (0..1000).find(|_| scene.framed(&scene.path("guess")).status == 429);
    assert!(limited.is_some_and(|number| number >= 100), "{limited:?}");
    // A failure is regained each fifth of a second: then the provider's page is heard again.
    wait_for("the limit to be over", || {
        let answer = scene.framed(&scene.path("s2"));
        assert!(answer.status == 200 || is_signed_in(&bob), "who is over the limit changes nothing");
        (answer.status == 200).then_some(())
    });
    assert!(!is_signed_in(&bob));
}
