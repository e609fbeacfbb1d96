//! Lifetimes by route, the number of a user's sessions, and what a session tells of its sign-in.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use portcullis::clock::Clock;
use portcullis::config::KeyFile;
use portcullis::session::seal::open_record;
use portcullis::session::{KeyRing, Session};
use portcullis::store::SessionStore as _;
use portcullis::store::disk::DiskStore;

use crate::support::browser::Browser;
use crate::support::client::Request;
use crate::support::gateway::{Builder, Gateway};
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::Upstream;
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page";
const BRIEF: &str = "https://wiki.test/brief/x";
const START: &str = "https://wiki.test/oauth2/start";

fn stage(change: impl FnOnce(Builder, &Upstream) -> Builder) -> (Upstream, ScriptedProvider, Gateway) {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let builder = Gateway::in_front_of(&upstream).provider(provider.entry());
    let gateway = change(builder, &upstream).start();
    (upstream, provider, gateway)
}

fn session(browser: &Browser) -> Option<String> {
    browser.jar.get("wiki.test", "__Host-portcullis").map(|cookie| cookie.value.clone())
}

#[test]
fn sc_154_a_route_with_a_shorter_lifetime_asks_for_a_new_sign_in_and_others_do_not() {
    let (_upstream, provider, gateway) =
        stage(|builder, upstream| builder.path("/brief/", upstream, "session = { max_lifetime = \"2s\" }"));
    let mut browser = Browser::new(&gateway);
    assert_eq!(browser.open(BRIEF).status(), 200);
    let before = session(&browser);
    wait_for("the session to be too old for the route", || (browser.get(BRIEF).status == 302).then_some(()));
    let script = browser.fetch(BRIEF, Request::get("/brief/x").with("Accept", "application/json"));
    assert_eq!((script.status, script.json()["error"].as_str()), (401, Some("sign_in_required")));
    assert_eq!(session(&browser), before, "the session is kept");
    assert_eq!(browser.get(PAGE).status, 200, "for the other routes");

    let mut other = browser.clone();
    let page = browser.open(BRIEF);
    assert_eq!((page.status(), page.url.as_str()), (200, BRIEF), "{:?}", page.urls());
    assert_ne!(session(&browser), before, "a new session");
    assert_eq!(other.get(PAGE).status, 302, "in the place of the one before");
    assert_eq!(provider.calls(Call::Token), 2);
}

#[test]
fn a_user_has_as_many_sessions_as_the_limit_says_and_the_oldest_ends() {
    let (_upstream, provider, gateway) = stage(|builder, _| builder.session("max_per_user = 2\n"));
    let [mut first, mut second, mut third] = [0; 3].map(|_| {
        let mut browser = Browser::new(&gateway);
        assert_eq!(browser.open(PAGE).status(), 200);
        browser
    });
    for (name, browser, status) in
        [("first", &mut first, 302), ("second", &mut second, 200), ("third", &mut third, 200)]
    {
        assert_eq!(browser.get(PAGE).status, status, "{name}");
    }
    gateway.wait_for_log(&["sessions_displaced", "\"user\":\"alice\"", "\"sessions\":1"]);
    assert!((gateway.metric("portcullis_sessions_displaced_total") - 1.0).abs() < f64::EPSILON);

    // A new sign-in takes the place of the session in the same browser, and of no other.
    assert_eq!(third.open(START).status(), 200);
    assert_eq!((second.get(PAGE).status, third.get(PAGE).status), (200, 200));
    provider.claims(|claims| claims["sub"] = "bob".into());
    assert_eq!(Browser::new(&gateway).open(PAGE).status(), 200, "somebody else");
    assert_eq!((second.get(PAGE).status, third.get(PAGE).status), (200, 200));
}

#[test]
fn a_sign_in_over_the_limit_is_refused_with_a_page_and_leaves_nothing_behind() {
    let limit = "max_per_user = 1\nat_limit = \"refuse\"\n";
    let (upstream, provider, gateway) = stage(|builder, _| builder.session(limit));
    let [mut first, mut second] = [0; 2].map(|_| Browser::new(&gateway));
    assert_eq!(first.open(PAGE).status(), 200);
    let hits = upstream.hits();
    let page = second.open(PAGE);
    assert_eq!((page.status(), page.html().contains("session_limit")), (403, true), "{}", page.html());
    assert_eq!((session(&second), upstream.hits()), (None, hits));
    gateway.wait_for_log(&["sign_in_failed", "\"code\":\"session_limit\""]);
    wait_for("the tokens to be given back", || (provider.calls(Call::Revocation) == 1).then_some(()));

    assert_eq!(first.get(PAGE).status, 200, "who was there stays");
    assert_eq!(first.open(START).status(), 200, "and may sign in anew");
    first.post("https://wiki.test/oauth2/sign_out", PAGE);
    assert_eq!(second.open(PAGE).status(), 200, "there is room again");
}

/// Opens the only session in a stopped gateway's data.
fn only_session(gateway: &Gateway) -> Session {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let keys = KeyFile::of(&gateway.data_dir()).load().unwrap().expect("keys in data_dir");
    let store = DiskStore::open(&gateway.data_dir(), Clock::system(), runtime.handle().clone()).unwrap();
    let page = runtime.block_on(store.list(None, 10)).unwrap();
    let mut sealed = page.records.iter().filter(|stored| !stored.record.indexes.is_empty());
    let record = &sealed.next().expect("a session").record;
    assert!(sealed.next().is_none(), "one session");
    open_record(
        &KeyRing::new(&keys.ring(Duration::ZERO, Clock::system().now())).unwrap(),
        &record.key.0,
        &record.payload,
    )
    .unwrap()
}

#[test]
fn a_session_tells_when_from_where_and_with_which_browser_it_was_begun() {
    let agent = format!("Browser/1.0 {}", "x".repeat(400));
    let (_upstream, _provider, mut gateway) = stage(|builder, _| builder);
    let begun = Clock::system().now();
    let mut browser = Browser::new(&gateway);
    let authorize = browser.open_once(PAGE).field("location").unwrap().to_owned();
    let callback = Browser::default().open_once(&authorize).field("location").unwrap().to_owned();
    let target = callback.strip_prefix("https://wiki.test").unwrap();
    let request = Request::get(target).with("User-Agent", &agent).with("Sec-Fetch-Mode", "navigate");
    assert_eq!(browser.fetch(&callback, request).status, 302);
    gateway.terminate_cleanly();

    let session = only_session(&gateway);
    assert_eq!(session.client, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    assert_eq!(session.user_agent.as_deref(), agent.get(..256));
    assert!(session.created_at >= begun && session.created_at.since(begun) < Duration::from_mins(1));
    assert_eq!(session.last_seen, session.created_at);
}
