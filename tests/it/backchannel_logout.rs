//! The provider tells that somebody signed out.
//!
//! The names after `conformance` are those of the OpenID Foundation's test modules.

use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::certified_provider::CertifiedProvider;
use crate::support::client::{Request, Response};
use crate::support::gateway::Gateway;
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::Upstream;
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page";
const PATH: &str = "/oauth2/backchannel_logout";

/// A gateway with its provider and application.
struct Scene {
    provider: ScriptedProvider,
    gateway: Gateway,
    _upstream: Upstream,
}

impl Scene {
    fn new() -> Self {
        Self::with("")
    }

    fn with(provider_lines: &str) -> Self {
        let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
        let mut entry = provider.entry();
        entry.more.push_str(provider_lines);
        let gateway = Gateway::in_front_of(&upstream).provider(entry).start();
        Self { provider, gateway, _upstream: upstream }
    }

    /// Somebody who is signed in, in a session of the provider's of its own.
    fn signed_in(&self, sub: &'static str, sid: &'static str) -> Browser {
        self.provider.claims(move |claims| {
            claims["sub"] = sub.into();
            claims["sid"] = sid.into();
        });
        let mut browser = Browser::new(&self.gateway);
        assert_eq!(browser.open(PAGE).status(), 200);
        browser
    }

    fn tell(&self, token: &str) -> Response {
        let form = Request::new("POST", PATH).with_form(&[("logout_token".into(), token.into())]);
        self.gateway.request(&form)
    }

    /// Tells a logout whose claims are changed.
    fn tell_with(&self, change: impl FnOnce(&mut Value, &mut Value)) -> u16 {
        let answer = self.tell(&self.provider.logout_token(change));
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        answer.status
    }
}

fn is_signed_in(browser: &mut Browser) -> bool {
    browser.get(PAGE).status == 200
}

fn remove(claims: &mut Value, names: &[&str]) {
    for name in names {
        claims.as_object_mut().unwrap().remove(*name);
    }
}

#[test]
fn a_certified_provider_signs_one_of_two_browsers_out() {
    let upstream = Upstream::start();
    let gateway = Gateway::in_front_of(&upstream);
    // The provider finds the gateway on loopback by a name that it can resolve.
    let here = format!("http://localhost:{}", gateway.address().port());
    let provider = CertifiedProvider::builder().backchannel_logout(&format!("{here}{PATH}")).start();
    let gateway = gateway
        .provider(provider.entry())
        .config(&format!("[[host]]\nname = \"localhost\"\npublic_url = \"{here}\""))
        .route(&format!("host = \"localhost\"\nupstream = \"{}\"\naccess = \"public\"", upstream.url()))
        .start();
    let sign_in = |name| {
        let mut browser = Browser::new(&gateway);
        assert_eq!(browser.sign_in(PAGE, name).status(), 200);
        browser
    };
    let (mut desk, mut sofa, mut bob) = (sign_in("alice"), sign_in("alice"), sign_in("bob"));

    let asked = desk.open(&format!("{}session/end", provider.issuer()));
    let done = desk.submit(&asked, &[("logout", "yes")]);
    assert!(done.html().contains("Certified provider: signed out"), "{}", done.html());

    gateway.wait_for_log(&["\"logout_heard\"", "\"sessions\":1"]);
    assert!(!is_signed_in(&mut desk), "the browser that signed out at the provider");
    assert!(is_signed_in(&mut sofa), "the same person in another browser");
    assert!(is_signed_in(&mut bob));
}

#[test]
fn lo_176_a_valid_token_ends_the_session_it_names_and_no_other() {
    let scene = Scene::new();
    let mut alice = scene.signed_in("alice", "a1");
    let mut elsewhere = scene.signed_in("alice", "a2");
    let mut bob = scene.signed_in("bob", "b1");
    let status = scene.tell_with(|_, claims| {
        claims["sid"] = "a1".into();
        remove(claims, &["sub"]);
    });
    assert_eq!(status, 200);
    assert!(!is_signed_in(&mut alice.clone()), "the session of the sid");
    assert!(is_signed_in(&mut elsewhere), "another session of the same user");
    assert!(is_signed_in(&mut bob));

    let everywhere = scene.tell_with(|_, claims| remove(claims, &["sid"]));
    assert_eq!(everywhere, 200);
    assert!(!is_signed_in(&mut elsewhere), "BC-6: with sub, every session of the user");
    assert!(is_signed_in(&mut bob));
    assert_eq!(scene.tell_with(|_, _| ()), 200, "with none to end it is 200 still");
    assert!(!is_signed_in(&mut alice));
    scene.gateway.wait_for_log(&["logout_heard", "back-channel"]);
}

#[test]
fn lo_186_sub_and_sid_of_two_people_end_nobodys_session() {
    let scene = Scene::new();
    let mut alice = scene.signed_in("alice", "a1");
    let mut bob = scene.signed_in("bob", "b1");
    let mixed = scene.tell_with(|_, claims| {
        claims["sid"] = "a1".into();
        claims["sub"] = "bob".into();
    });
    assert_eq!(mixed, 200);
    // A `sub` that equals somebody's `sid`, and the other way round.
    let crossed = [json!({ "sub": "a1" }), json!({ "sid": "alice" })];
    for names in crossed {
        let status = scene.tell_with(|_, claims| {
            remove(claims, &["sub", "sid"]);
            claims.as_object_mut().unwrap().extend(names.as_object().unwrap().clone());
        });
        assert_eq!(status, 200);
    }
    assert!(is_signed_in(&mut alice));
    assert!(is_signed_in(&mut bob));
}

/// What is changed in a token: its header and its claims.
type Change = fn(&mut Value, &mut Value);

#[test]
fn conformance_rp_backchannel_every_bad_logout_token_is_400_and_ends_nothing() {
    let scene = Scene::new();
    let mut alice = scene.signed_in("alice", "provider-session-1");
    let cases: [(&str, Change); 7] = [
        ("-no-event", |_, claims| remove(claims, &["events"])),
        ("-with-nonce", |_, claims| claims["nonce"] = "n".into()),
        ("-wrong-aud", |_, claims| claims["aud"] = "wikiINVALID".into()),
        ("-wrong-event", |_, claims| {
            claims["events"] = json!({ "http://schemas.openid.net/event/foobar": {} });
        }),
        ("-wrong-iss", |_, claims| {
            claims["iss"] = format!("{}INVALID", claims["iss"].as_str().unwrap()).into();
        }),
        ("LO-192 another issuer", |_, claims| claims["iss"] = "https://op2.test".into()),
        ("LO-179 jti missing", |_, claims| remove(claims, &["jti"])),
    ];
    for (name, change) in cases {
        assert_eq!(scene.tell_with(change), 400, "{name}");
    }
    let good = scene.provider.logout_token(|_, _| ());
    let (head_and_claims, _) = good.rsplit_once('.').unwrap();
    let claims = good.split('.').nth(1).unwrap();
    // {"alg":"none"} and {"alg":"RS256"}
    let forged = [
        ("-alg-none", format!("eyJhbGciOiJub25lIn0.{claims}.")),
        ("-wrong-alg", format!("eyJhbGciOiJSUzI1NiJ9.{claims}.AAAA")),
        ("LO-177 no signature", format!("{head_and_claims}.")),
        ("LO-177 another's signature", format!("{head_and_claims}.{}", "A".repeat(86))),
        ("no token at all", "x".to_owned()),
    ];
    for (name, token) in forged {
        assert_eq!(scene.tell(&token).status, 400, "{name}");
    }
    assert!(is_signed_in(&mut alice));
    assert_eq!(scene.tell(&good).status, 200, "and the good one still works");
    assert!(!is_signed_in(&mut alice));
}

#[test]
fn lo_188_a_token_works_once_and_a_session_begun_since_survives() {
    let scene = Scene::new();
    let mut before = scene.signed_in("alice", "a1");
    let token = scene.provider.logout_token(|_, claims| {
        remove(claims, &["sid"]);
        claims["iat"] = (claims["iat"].as_u64().unwrap() - 5).into();
    });
    assert_eq!(scene.tell(&token).status, 200);
    assert!(!is_signed_in(&mut before));
    let mut since = scene.signed_in("alice", "a2");
    assert_eq!(scene.tell(&token).status, 400);
    assert!(is_signed_in(&mut since));
}

#[test]
fn lo_180_lo_190_old_providers_are_understood_unless_told_otherwise() {
    let old: Change = |header, claims| {
        remove(header, &["typ"]);
        remove(claims, &["exp"]);
    };
    assert_eq!(Scene::new().tell_with(old), 200);
    let strict = Scene::with("strict_logout_tokens = true\n");
    assert_eq!(strict.tell_with(old), 400);
    assert_eq!(strict.tell_with(|_, _| ()), 200);
}

#[test]
fn lo_191_only_one_token_in_a_form_in_the_body_is_heard() {
    let scene = Scene::new();
    let mut alice = scene.signed_in("alice", "provider-session-1");
    let token = scene.provider.logout_token(|_, _| ());
    let field = || ("logout_token".to_owned(), token.clone());
    let form = |fields: &[(String, String)]| Request::new("POST", PATH).with_form(fields);
    let body = format!("logout_token={token}");
    let typed = |media_type: &str| {
        Request::new("POST", PATH).with("Content-Type", media_type).with_body(body.as_bytes())
    };
    let query = format!("{PATH}?{body}");
    let cases: [(&str, Request, u16); 8] = [
        ("GET", Request::get(&query), 405),
        ("in the query", Request::new("POST", &query).with_form(&[]), 400),
        ("JSON", typed("application/json"), 400),
        ("text/plain", typed("text/plain"), 400),
        ("without a type", Request::new("POST", PATH).with_body(body.as_bytes()), 400),
        ("two tokens", form(&[field(), field()]), 400),
        ("1 MB", form(&[("x".into(), "x".repeat(1 << 20)), field()]), 413),
        ("another site's cookie and origin", form(&[field()]).with("Origin", "https://evil.test"), 200),
    ];
    let (last, refused) = cases.split_last().unwrap();
    for (name, request, status) in refused {
        assert_eq!(scene.gateway.request(request).status, *status, "{name}");
        assert!(is_signed_in(&mut alice), "{name}");
    }
    assert_eq!(scene.gateway.request(&last.1).status, last.2, "{}", last.0);
    assert!(!is_signed_in(&mut alice));
}

#[test]
fn bc_12_a_logout_that_overtakes_a_callback_wins() {
    let scene = Scene::new();
    // Made within the clock skew after the ID token will be: the scripted provider can't sign while it waits.
    let token = scene.provider.logout_token(|_, claims| {
        claims["iat"] = (claims["iat"].as_u64().unwrap() + 10).into();
    });
    // The provider holds its last answer to the callback back until the logout was told.
    let (told, wait) = mpsc::channel::<()>();
    scene.provider.alter_answer(Call::Userinfo, move |_| {
        wait.recv_timeout(Duration::from_secs(20)).unwrap();
    });
    let mut browser = Browser::new(&scene.gateway);
    let signing_in = std::thread::spawn(move || {
        let page = browser.open(PAGE);
        (browser, page.status())
    });
    let exchanged = "portcullis_provider_seconds_count{provider=\"main\",call=\"token\",outcome=\"ok\"}";
    wait_for("the code to be exchanged", || (scene.gateway.metric(exchanged) > 0.0).then_some(()));
    assert_eq!(scene.tell(&token).status, 200);
    told.send(()).unwrap();
    let (mut browser, status) = signing_in.join().unwrap();
    assert_eq!(status, 400, "the sign-in is refused");
    scene.provider.behave();
    assert!(!is_signed_in(&mut browser));
}

#[test]
fn a_flood_of_unknown_keys_from_outside_fetches_the_key_set_once_and_costs_no_sign_in() {
    let scene = Scene::new();
    let fetched = scene.provider.calls(Call::Keys);
    for number in 0..30 {
        let status = scene.tell_with(|header, _| header["kid"] = format!("made-up-{number}").into());
        assert_eq!(status, 400);
    }
    assert!(scene.provider.calls(Call::Keys) <= fetched + 1, "DO-2");
    scene.provider.rotate_keys();
    let mut alice = scene.signed_in("alice", "a1");
    assert!(is_signed_in(&mut alice), "ID-4: a rotation is not tripped over");
}
