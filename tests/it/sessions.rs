//! Sessions: what survives, what ends, and what a copy of the disk tells.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::browser::Browser;
use crate::support::cookie_jar::Cookie;
use crate::support::gateway::{Builder, Gateway};
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::{Echo, Upstream};
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page";

fn stage(change: impl FnOnce(Builder) -> Builder) -> (Upstream, ScriptedProvider, Gateway) {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = change(Gateway::in_front_of(&upstream).provider(provider.entry())).start();
    (upstream, provider, gateway)
}

fn session(browser: &Browser) -> &Cookie {
    browser.jar.get("wiki.test", "__Host-portcullis").expect("a session cookie")
}

#[test]
fn a_session_survives_a_restart_and_a_power_cut() {
    let (_upstream, provider, mut gateway) = stage(|builder| builder);
    let mut browsers = Vec::new();
    for end in [Gateway::kill9, Gateway::terminate_cleanly] {
        let mut browser = Browser::new(&gateway);
        browser.open(PAGE);
        browsers.push(browser);
        end(&mut gateway);
        gateway.restart();
        for browser in &mut browsers {
            assert_eq!(Echo::of(&browser.get(PAGE)).one("x-forwarded-user"), Some("alice"));
        }
    }
    assert_eq!(provider.calls(Call::Token), 2, "nobody had to sign in again");
}

#[test]
fn a_session_is_on_the_disk_before_its_cookie_is_sent() {
    let (_upstream, _provider, mut gateway) = stage(|builder| builder);
    for round in 0..5 {
        let mut browser = Browser::new(&gateway);
        let authorize = browser.open_once(PAGE).field("location").unwrap().to_owned();
        let callback = Browser::default().open_once(&authorize).field("location").unwrap().to_owned();
        assert_eq!(browser.open_once(&callback).status, 302, "round {round}");
        gateway.kill9();
        gateway.restart();
        assert_eq!(browser.get(PAGE).status, 200, "round {round}");
    }
}

#[test]
fn the_memory_store_forgets_and_says_so() {
    let (_upstream, _provider, mut gateway) = stage(|builder| builder.session("store = \"memory\"\n"));
    gateway.wait_for_log(&["memory", "a restart signs everybody out"]);
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    gateway.terminate();
    gateway.restart();
    let before = session(&browser).clone();
    let refused = browser.get(PAGE);
    assert_eq!(refused.status, 302);
    assert!(browser.jar.get("wiki.test", "__Host-portcullis").is_none(), "the dead cookie is cleared");
    assert_eq!(browser.open(PAGE).status(), 200, "and no loop comes of it");
    assert_ne!(session(&browser), &before);
}

#[test]
fn the_session_cookie_is_a_short_sealed_reference() {
    let (_upstream, provider, gateway) = stage(|builder| builder);
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    let cookie = session(&browser);
    assert_eq!((cookie.path.as_str(), cookie.same_site.as_str()), ("/", "Lax"));
    assert!(cookie.secure && cookie.http_only);
    assert!((80..160).contains(&cookie.value.len()), "{} characters", cookie.value.len());
    assert!(provider.issued().iter().all(|secret| !cookie.value.contains(secret)));
}

#[test]
fn on_a_cleartext_loopback_host_cookies_go_without_their_prefix_and_the_log_says_so() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let builder = Gateway::empty();
    let origin = format!("http://localhost:{}", builder.address().port());
    let gateway = builder
        .route(&format!("host = \"localhost\"\nupstream = \"{}\"", upstream.url()))
        .config(&format!("[[host]]\nname = \"localhost\"\npublic_url = \"{origin}\""))
        .provider(provider.entry())
        .start();
    let mut browser = Browser::default();
    let page = browser.open(&format!("{origin}/page?x=1"));
    assert_eq!(page.url.as_str(), format!("{origin}/page?x=1"));
    assert_eq!(Echo::of(&page.response).one("x-forwarded-proto"), Some("http"));
    assert_eq!(browser.jar.rejected, Vec::<String>::new());
    let cookie = browser.jar.get("localhost", "portcullis").expect("a session cookie without prefix");
    assert!(!cookie.secure && cookie.http_only);
    gateway.wait_for_log(&["localhost", "plain http on a loopback host"]);
}

#[test]
fn a_cookie_that_cannot_be_used_is_no_session_and_is_cleared() {
    let (upstream, _provider, gateway) = stage(|builder| builder);
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    let good = session(&browser).clone();
    let hits = upstream.hits();
    let values = [
        ("empty", String::new()),
        ("garbage", "garbage".into()),
        ("not base64url", "a+b/c==".into()),
        ("cut", good.value.chars().skip(2).collect()),
        ("every A a B", good.value.replace('A', "B")),
        ("in other letters", good.value.to_ascii_uppercase()),
        ("longer", format!("{}AAAA", good.value)),
        ("very long", "A".repeat(3000)),
        ("not ASCII", "caf\u{e9}".into()),
    ];
    for (name, value) in values {
        let mut browser = Browser::new(&gateway);
        browser.jar.put(Cookie { value, ..good.clone() });
        let refused = browser.get(PAGE);
        assert_eq!(refused.status, 302, "{name}");
        assert!(browser.jar.get("wiki.test", "__Host-portcullis").is_none(), "{name}: the cookie is cleared");
    }
    let mut twice = browser.clone();
    twice.jar.put(Cookie { value: "other".into(), ..good.clone() });
    assert_eq!(twice.get(PAGE).status, 302, "two cookies of the name are none");
    assert_eq!(upstream.hits(), hits);
}

#[test]
fn a_cookie_of_one_host_is_worthless_on_another_and_under_another_name() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let gateway = Gateway::in_front_of(&upstream)
        .route(&format!("host = \"other.test\"\nupstream = \"{}\"", upstream.url()))
        .provider(provider.entry())
        .start();
    let mut browser = Browser::new(&gateway);
    browser.finds("https://other.test", gateway.place("other.test"));
    browser.open(PAGE);
    let moved = Cookie { host: "other.test".into(), ..session(&browser).clone() };
    browser.jar.put(moved);
    assert_eq!(browser.get("https://other.test/").status, 302);
    let sign_out = Cookie { name: "__Host-portcullis-sign-out".into(), ..session(&browser).clone() };
    let mut thief = Browser::new(&gateway);
    thief.jar.put(sign_out);
    assert_eq!(thief.get(PAGE).status, 302);
    assert_eq!(browser.get(PAGE).status, 200);
}

#[test]
fn a_session_ends_with_its_lifetime_and_cannot_be_prolonged_by_use() {
    let (_upstream, _provider, gateway) =
        stage(|builder| builder.session("idle_timeout = \"3s\"\nmax_lifetime = \"3s\"\n"));
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    assert_eq!(browser.get(PAGE).status, 200);
    // Each look is a use: only the absolute limit can end it.
    wait_for("the session to end", || (browser.get(PAGE).status == 302).then_some(()));
}

#[test]
fn who_reads_the_disk_learns_no_token_and_nobodys_name() {
    let (_upstream, provider, mut gateway) = stage(|builder| builder);
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    gateway.terminate();
    let mut secrets = provider.issued();
    secrets.extend(["alice@example.test", "provider-session-1", "wiki-admins"].map(str::to_owned));
    secrets.push(session(&browser).value.clone());
    let mut files = Vec::new();
    read_files(&gateway.data_dir(), &mut files);
    assert!(!files.is_empty());
    for (path, bytes) in &files {
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{path} holds {secret}");
        }
    }
}

#[test]
fn a_key_is_made_on_first_start_for_the_owner_alone_and_used_again() {
    let (_upstream, _provider, mut gateway) = stage(|builder| builder);
    let key = key_file(&gateway.data_dir());
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    gateway.wait_for_log(&["session", key.file_name().unwrap().to_str().unwrap()]);
    let before = std::fs::read(&key).unwrap();
    gateway.terminate();
    gateway.restart();
    assert_eq!(std::fs::read(&key).unwrap(), before);
}

#[test]
fn without_its_key_a_cookie_is_worthless() {
    let (_upstream, _provider, mut gateway) = stage(|builder| builder);
    let mut browser = Browser::new(&gateway);
    browser.open(PAGE);
    gateway.terminate();
    std::fs::remove_file(key_file(&gateway.data_dir())).unwrap();
    gateway.restart();
    assert_eq!(browser.get(PAGE).status, 302);
    assert_eq!(browser.open(PAGE).status(), 200);
}

/// The one small file of the data folder that is not the database.
fn key_file(folder: &Path) -> std::path::PathBuf {
    let is_key = |path: &std::path::PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().contains("key"))
    };
    let mut found = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(is_key);
    found.next().expect("a key file in data_dir")
}

fn read_files(folder: &Path, into: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_files(&path, into);
        } else {
            into.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}
