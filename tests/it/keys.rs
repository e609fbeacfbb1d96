//! Session keys: what changes on disk while people are signed in.

use std::os::unix::fs::PermissionsExt as _;

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

fn run(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(arguments)
        .arg("--config")
        .arg(gateway.config_file())
        .output()
        .unwrap();
    let told = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(told).unwrap())
}

#[test]
fn a_key_that_the_gateway_made_is_rotated_by_hand_while_it_runs() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    let (status, before) = run(&gateway, &["keys", "list"]);
    assert_eq!((status, before.lines().count(), before.contains("seals")), (Some(0), 1, true), "{before}");
    let old = before.split(' ').next().unwrap();

    let (status, told) = run(&gateway, &["keys", "rotate"]);
    assert_eq!((status, told.contains("Nobody is signed out")), (Some(0), true), "{told}");
    let new = told.split(' ').nth(2).unwrap();
    gateway.wait_for_log(&[
        "session_keys_loaded",
        &format!("\"sealing\":\"{new}\""),
        &format!("\"opening\":\"{old}\""),
    ]);
    let page = browser.get(PAGE);
    assert_eq!((page.status, set_cookie(&page).is_some()), (200, true), "and the cookie is sealed anew");
    let (_, after) = run(&gateway, &["keys", "list"]);
    let lines: Vec<_> = after.lines().collect();
    assert!(lines[0].starts_with(new) && lines[0].contains("seals"), "{after}");
    assert!(lines[1].starts_with(old) && lines[1].contains("opens until"), "{after}");
    let secrets = std::fs::read_to_string(gateway.data_dir().join("session.key")).unwrap();
    let secrets = secrets.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_at(43).0);
    for secret in secrets {
        assert!(!told.contains(secret) && !after.contains(secret), "a key is printed");
    }
}

#[test]
fn a_key_that_has_grown_old_is_followed_by_a_new_one_and_nobody_is_signed_out() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let mut gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    gateway.terminate_cleanly();
    let file = gateway.data_dir().join("session.key");
    let text = std::fs::read_to_string(&file).unwrap();
    let (key, made) = text.lines().last().unwrap().split_once(' ').unwrap();
    std::fs::write(&file, format!("{key} {}\n", made.replacen("202", "201", 1))).unwrap();
    gateway.restart();
    gateway.wait_for_log(&["session_key_made", "was old"]);
    wait_for("the new key to be used", || (gateway.metric("portcullis_session_keys") > 1.5).then_some(()));
    let page = browser.get(PAGE);
    assert_eq!((page.status, set_cookie(&page).is_some()), (200, true));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn keys_that_gateways_make_together_lie_in_the_store_and_survive_a_restart() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let builder = Gateway::in_front_of(&upstream).provider(provider.entry());
    let (root, other) = (key(), key());
    builder.file("session_keys", &text(&[&root]));
    let lines = "keys = [{ file = \"session_keys\" }]\nkey_rotation = \"30d\"\n";
    let mut gateway = builder.session(lines).start();
    let by_root = format!("\"sealing\":\"{}\"", root.id);
    let loaded = |line: &String| line.contains("session_keys_loaded");
    gateway.wait_for_log(&["session_keys_loaded", &by_root, "\"opening\":\""]);
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    wait_for("the first key to be made", || (gateway.metric("portcullis_session_keys") > 1.5).then_some(()));

    let (status, told) = run(&gateway, &["keys", "rotate"]);
    assert_eq!((status, told.contains("seals, on all gateways")), (Some(0), true), "{told}");
    wait_for("the next key to be made", || (gateway.metric("portcullis_session_keys") > 2.5).then_some(()));
    let (_, told) = run(&gateway, &["keys", "list"]);
    assert!(told.contains("root of the keys that gateways make now"), "{told}");
    let before = gateway.log().iter().rfind(|line| loaded(line)).cloned().unwrap();

    gateway.terminate_cleanly();
    gateway.restart();
    wait_for("the keys to be read", || (gateway.metric("portcullis_session_keys") > 2.5).then_some(()));
    let after = gateway.log().iter().rfind(|line| loaded(line)).cloned().unwrap();
    let ids = |line: &str| line.split_once("\"sealing\"").unwrap().1.to_owned();
    assert_eq!(ids(&before), ids(&after), "no key is made where there are some");
    assert_eq!(browser.get(PAGE).status, 200);
    assert!(!gateway.data_dir().join("session.key").exists());

    change_root(&gateway, &other);
    assert_eq!(browser.get(PAGE).status, 302, "the root key took all with it");
}

/// Another root key takes the place of all.
fn change_root(gateway: &Gateway, root: &Key) {
    gateway.replace_file("session_keys", &text(&[root]));
    let sealing = format!("\"sealing\":\"{}\"", root.id);
    gateway.wait_for_log(&["session_keys_loaded", &sealing, "\"opening\":\"\""]);
}

#[test]
fn keys_of_the_operator_are_not_rotated_and_what_to_do_is_told() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let builder = Gateway::in_front_of(&upstream).provider(provider.entry());
    let (one, two) = (key(), key());
    builder.file("session_keys", &text(&[&one, &two]));
    let gateway = builder.session("keys = [{ file = \"session_keys\" }]\n").prepare();
    let (status, told) = run(&gateway, &["keys", "rotate"]);
    assert_eq!(status, Some(1), "{told}");
    assert!(told.contains("portcullis keygen") && told.contains("session_keys"), "{told}");
    let (status, told) = run(&gateway, &["keys", "list"]);
    let lines: Vec<_> = told.lines().collect();
    assert_eq!((status, lines.len()), (Some(0), 2), "{told}");
    assert!(lines[0].starts_with(&format!("{}  seals", one.id)), "{told}");
    assert!(lines[1].starts_with(&format!("{}  opens", two.id)), "{told}");
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
