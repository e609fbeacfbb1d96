//! Session keys: what changes on disk while people are signed in.

use portcullis::random::random_bytes;
use portcullis::session::Key;

use crate::support::browser::Browser;
use crate::support::client::Response;
use crate::support::cookie_jar::Cookie;
use crate::support::gateway::Gateway;
use crate::support::scripted_provider::ScriptedProvider;
use crate::support::upstream::{Echo, Upstream};
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page";
const COOKIE: &str = "__Host-portcullis";
const REWRITES: &str = "portcullis_store_seconds_count{operation=\"replace\"}";

/// How a gateway comes to know of a change of its key file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Restart,
    Watch,
}

fn key() -> Key {
    Key::from_bytes(random_bytes().unwrap())
}

fn text(keys: &[&Key]) -> String {
    keys.iter().map(|key| key.to_text().expose().clone()).collect()
}

/// The gateway has these keys in its file from now on.
fn change(gateway: &mut Gateway, way: Way, keys: &[&Key]) {
    gateway.replace_file("session_keys", &text(keys));
    if way == Way::Restart {
        gateway.terminate_cleanly();
        gateway.restart();
    }
    let sealing = format!("\"sealing\":\"{}\"", keys[0].id);
    let opening = keys[1..].iter().map(|key| key.id.to_string()).collect::<Vec<_>>().join(", ");
    gateway.wait_for_log(&["session_keys_loaded", &sealing, &format!("\"opening\":\"{opening}\"")]);
}

fn cookie(browser: &Browser) -> Cookie {
    browser.jar.get("wiki.test", COOKIE).expect("a session cookie").clone()
}

/// The session cookie that an answer sets: its value, and its attributes.
fn set_cookie(response: &Response) -> Option<(String, String)> {
    let mut set = response
        .head
        .all("set-cookie")
        .into_iter()
        .filter_map(|field| field.strip_prefix("__Host-portcullis="));
    let (value, attributes) = set.next()?.split_once(';')?;
    assert_eq!(set.next(), None, "the cookie is set once");
    Some((value.to_owned(), attributes.to_owned()))
}

#[test]
fn sc_144_a_new_key_takes_over_and_an_old_one_that_goes_takes_what_it_sealed() {
    for way in [Way::Restart, Way::Watch] {
        let (one, two) = (key(), key());
        let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
        let builder = Gateway::in_front_of(&upstream).provider(provider.entry());
        builder.file("session_keys", &text(&[&one]));
        let mut gateway = builder.session("keys = [{ file = \"session_keys\" }]\n").start();

        let (mut active, mut absent, mut late) =
            (Browser::new(&gateway), Browser::new(&gateway), Browser::new(&gateway));
        let callback = active.open(PAGE).hop("https://wiki.test/oauth2/callback").1.clone();
        let (_, attributes) = set_cookie(&callback).expect("a session");
        absent.open(PAGE);
        let authorize = late.open_once(PAGE).field("location").unwrap().to_owned();
        let stale = cookie(&active);
        assert_eq!(set_cookie(&active.get(PAGE)), None, "{way:?}: nothing is sealed anew without need");

        change(&mut gateway, way, &[&two, &one]);
        let page = active.get(PAGE);
        assert_eq!(Echo::of(&page).one("x-forwarded-user"), Some("alice"), "{way:?}");
        let (value, resealed) = set_cookie(&page).expect("the cookie is sealed anew");
        assert_ne!(value, stale.value, "{way:?}");
        assert_eq!(resealed, attributes, "{way:?}");
        assert_eq!(set_cookie(&active.get(PAGE)), None, "{way:?}: and only once");
        let answer = Browser::default().open_once(&authorize).field("location").unwrap().to_owned();
        assert_eq!(late.open_once(&answer).status, 302, "{way:?}: a sign-in goes on that began before");
        assert_eq!(late.get(PAGE).status, 200, "{way:?}");
        wait_for("the record to be sealed anew", || (gateway.metric(REWRITES) >= 1.0).then_some(()));

        change(&mut gateway, way, &[&two]);
        assert_eq!(active.get(PAGE).status, 200, "{way:?}: what was sealed anew lives");
        let mut thief = Browser::new(&gateway);
        thief.jar.put(stale);
        for (name, browser) in [("never came by", &mut absent), ("a copy of the old cookie", &mut thief)] {
            let refused = browser.get(PAGE);
            assert_eq!(refused.status, 302, "{way:?}: {name}");
            assert!(browser.jar.get("wiki.test", COOKIE).is_none(), "{way:?}: {name}: it is cleared");
            assert_eq!(browser.open(PAGE).status(), 200, "{way:?}: {name}: and a sign-in mends it");
        }
        assert!(gateway.metric("portcullis_requests_total{class=\"5xx\"}") < 1.0, "{way:?}");
        let secrets = [one, two].map(|key| key.to_text().expose().trim().to_owned());
        assert!(gateway.log().iter().all(|line| secrets.iter().all(|secret| !line.contains(secret))));
    }
}

#[test]
fn ax_230_a_weak_key_is_refused_at_start_and_while_the_gateway_runs() {
    let weak = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n";
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let builder = Gateway::in_front_of(&upstream).provider(provider.entry());
    builder.file("session_keys", weak);
    let mut gateway = builder.session("keys = [{ file = \"session_keys\" }]\n").prepare();
    gateway.spawn();
    assert_eq!(gateway.wait_for_exit().code(), Some(78));
    gateway.wait_for_log(&["session.keys[0]", "too weak"]);

    gateway.replace_file("session_keys", &text(&[&key()]));
    gateway.restart();
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    for (text, reason) in [(weak, "too weak"), ("AQIDBAUGBwg=\n", "32 random bytes"), ("", "no session key")]
    {
        gateway.replace_file("session_keys", text);
        gateway.wait_for_log(&["session_keys_refused", "\"level\":\"ERROR\"", "session_keys\"", reason]);
        assert_eq!(browser.get(PAGE).status, 200, "{reason}: the key of before is in use");
        assert!(gateway.metric("portcullis_session_keys_stale") > 0.0, "{reason}");
    }
}
