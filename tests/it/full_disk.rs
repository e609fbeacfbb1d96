//! A disk that is full, and a store that is damaged: a clear error, nothing lost, nothing let in.
//!
//! The disk is full where the system lets no file of the gateway grow (RLIMIT_FSIZE); then it has room again.

use std::fs;

use crate::support::browser::{Browser, Page};
use crate::support::gateway::Gateway;
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::{Echo, Upstream};
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page";
/// Large sessions fill the room that the file has inside; so many are more than enough.
const ATTEMPTS: usize = 100;

/// From now on the store can't grow.
fn fill_the_disk(gateway: &mut Gateway) {
    let file = gateway.data_dir().join("sessions.redb");
    gateway.limit_files(Some(fs::metadata(file).unwrap().len()));
}

/// Signs in until somebody is refused; that page, and those who got in before.
fn sign_in_until_refused(gateway: &Gateway) -> (Page, Vec<Browser>) {
    let mut inside = Vec::new();
    for _ in 0..ATTEMPTS {
        let mut browser = Browser::new(gateway);
        let page = browser.open(PAGE);
        if page.status() != 200 {
            assert!(browser.jar.get("wiki.test", "__Host-portcullis").is_none(), "no session, no cookie");
            return (page, inside);
        }
        inside.push(browser);
    }
    panic!("the disk does not fill up");
}

fn readyz(gateway: &Gateway) -> (u16, String) {
    let response = gateway.admin("/readyz");
    (response.status, response.json()["store"].as_str().unwrap().to_owned())
}

#[test]
fn a_full_disk_refuses_sign_ins_serves_who_is_signed_in_and_recovers() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    provider.alter_userinfo(|claims| claims["padding"] = "x".repeat(50_000).into());
    let mut gateway = Gateway::in_front_of(&upstream)
        .provider(provider.entry())
        .session("cache_size = \"1MiB\"\n")
        .where_files_may_be_limited()
        .start();
    let mut before = Browser::new(&gateway);
    assert_eq!(before.open(PAGE).status(), 200);
    fill_the_disk(&mut gateway);
    let (refused, mut inside) = sign_in_until_refused(&gateway);
    inside.push(before);
    assert_eq!(refused.status(), 503);
    assert!(refused.response.field("retry-after").is_some());
    gateway.wait_for_log(&["store_unavailable", "\"level\":\"ERROR\""]);
    wait_for("/readyz to say so", || (readyz(&gateway) == (503, "down".to_owned())).then_some(()));
    for browser in &mut inside {
        assert_eq!(Echo::of(&browser.get(PAGE)).one("x-forwarded-user"), Some("alice"));
    }
    gateway.limit_files(None);
    wait_for("/readyz to be glad", || (readyz(&gateway) == (200, "up".to_owned())).then_some(()));
    assert_eq!(Browser::new(&gateway).open(PAGE).status(), 200, "without a restart");
    gateway.kill9();
    gateway.restart();
    let calls = provider.calls(Call::Token);
    for browser in &mut inside {
        assert_eq!(browser.get(PAGE).status, 200, "nothing was lost");
    }
    assert_eq!(provider.calls(Call::Token), calls);
}

#[test]
fn a_gateway_starts_on_a_full_disk_and_serves_who_is_signed_in() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    provider.alter_userinfo(|claims| claims["padding"] = "x".repeat(50_000).into());
    let mut gateway =
        Gateway::in_front_of(&upstream).provider(provider.entry()).where_files_may_be_limited().start();
    fill_the_disk(&mut gateway);
    let (refused, mut inside) = sign_in_until_refused(&gateway);
    assert_eq!((refused.status(), inside.is_empty()), (503, false));
    gateway.kill9();
    fill_the_disk(&mut gateway);
    gateway.spawn();
    wait_for("the gateway to listen", || gateway.listens().then_some(()));
    for browser in &mut inside {
        assert_eq!(browser.get(PAGE).status, 200);
    }
}

#[test]
fn a_damaged_store_is_told_by_its_name_and_nobody_is_let_in() {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let mut gateway = Gateway::in_front_of(&upstream).provider(provider.entry()).start();
    let mut browser = Browser::new(&gateway);
    assert_eq!(browser.open(PAGE).status(), 200);
    gateway.kill9();
    let file = gateway.data_dir().join("sessions.redb");
    let whole = fs::read(&file).unwrap();
    let mut torn = whole.clone();
    torn[4096..].fill(0xaa);
    fs::write(&file, &torn).unwrap();
    gateway.spawn();
    assert_eq!(gateway.wait_for_exit().code(), Some(1));
    gateway.wait_for_log(&["sessions.redb: damaged", "move it away"]);
    assert!(fs::read(&file).unwrap() == torn, "it was left as it is");
    fs::write(&file, whole).unwrap();
    gateway.restart();
    assert_eq!(browser.get(PAGE).status, 200);
}
