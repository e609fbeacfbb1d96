//! Sessions in Redis: shared by gateways, gone for a while, never lost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::browser::Browser;
use crate::support::client::{Request, Response};
use crate::support::gateway::{Builder, Gateway, WIKI};
use crate::support::redis_server::RedisServer;
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::{Echo, Upstream};
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page";
const SIGN_OUT: &str = "https://wiki.test/oauth2/sign_out";

/// Gateways that share an application, a provider and Redis.
pub struct Scene {
    pub provider: ScriptedProvider,
    pub upstream: Upstream,
    pub redis: RedisServer,
}

impl Scene {
    pub fn new(redis: RedisServer) -> Self {
        Self { provider: ScriptedProvider::start(), upstream: Upstream::start(), redis }
    }

    pub fn builder(&self) -> Builder {
        Gateway::in_front_of(&self.upstream).provider(self.provider.entry()).redis(&self.redis)
    }
}

fn user(browser: &mut Browser) -> Option<String> {
    let answer = browser.get(PAGE);
    (answer.status == 200).then(|| Echo::of(&answer).one("x-forwarded-user").unwrap_or_default().to_owned())
}

fn needs_sign_in(response: &Response) -> bool {
    response.status == 302 && response.field("location").is_some_and(|url| url.contains("code_challenge="))
}

/// A request of this browser to a gateway, as a page's script sends it.
fn request(browser: &Browser) -> Request {
    let session = browser.jar.get(WIKI, "__Host-portcullis").expect("a session cookie");
    Request::get("/page").with("Cookie", &format!("{}={}", session.name, session.value))
}

#[test]
fn a_session_in_redis_survives_a_restart_of_the_gateway() {
    let scene = Scene::new(RedisServer::start());
    let mut gateway = scene.builder().start();
    let mut browser = Browser::new(&gateway);
    assert_eq!(browser.open(PAGE).status(), 200);
    gateway.kill9();
    gateway.restart();
    assert_eq!(user(&mut browser), Some("alice".to_owned()));
    assert_eq!(scene.provider.calls(Call::Token), 1, "nobody had to sign in again");
    assert!(!gateway.data_dir().exists(), "nothing is kept beside Redis");
}

#[test]
fn sc_159_gateways_that_share_redis_know_of_each_others_sign_ins_and_sign_outs() {
    let scene = Scene::new(RedisServer::start());
    let (one, two) = (scene.builder().start(), scene.builder().start());
    let mut browser = Browser::new(&one);
    assert_eq!(browser.open(PAGE).status(), 200, "signed in and used at the one");
    browser.finds("https://wiki.test", two.place(WIKI));
    assert_eq!(user(&mut browser), Some("alice".to_owned()), "used at the other");
    let copied = request(&browser);
    assert_eq!(one.request(&copied).status, 200, "and at the one again, out of its memory");
    assert_eq!(browser.open_once(SIGN_OUT).status, 302, "signed out at the other");
    let signed_out = Instant::now();
    assert!(needs_sign_in(&two.request(&copied)), "there it counts at once");
    wait_for("the one to hear of it", || needs_sign_in(&one.request(&copied)).then_some(()));
    assert!(signed_out.elapsed() < Duration::from_secs(1), "{:?}", signed_out.elapsed());
}

#[test]
fn sc_159_a_callback_is_taken_once_by_all_gateways_together() {
    let scene = Scene::new(RedisServer::start());
    let (one, two) = (scene.builder().start(), scene.builder().start());
    let mut browser = Browser::new(&one);
    let authorize = browser.open_once(PAGE).field("location").unwrap().to_owned();
    let callback = Browser::default().open_once(&authorize).field("location").unwrap().to_owned();
    let mut thief = browser.clone();
    assert_eq!(browser.open_once(&callback).status, 302);
    thief.finds("https://wiki.test", two.place(WIKI));
    assert_eq!(thief.open_once(&callback).status, 400, "replayed at the other");
    assert_eq!(scene.provider.calls(Call::Token), 1);
}

#[test]
fn sc_155_a_redis_that_is_down_is_an_outage_and_nobody_is_signed_out() {
    let mut scene = Scene::new(RedisServer::durable());
    let mut gateway = scene.builder().start();
    let (mut browser, mut stranger) = (Browser::new(&gateway), Browser::new(&gateway));
    assert_eq!(browser.open(PAGE).status(), 200);
    let authorize = stranger.open_once(PAGE).field("location").unwrap().to_owned();
    let callback = Browser::default().open_once(&authorize).field("location").unwrap().to_owned();
    gateway.kill9();
    scene.redis.kill9();
    gateway.spawn();
    wait_for("the gateway to start without Redis", || {
        gateway.log().iter().rev().find(|line| line.contains("\"redis_unreachable\"")).cloned()
    });
    wait_for("its listener", || std::net::TcpStream::connect(gateway.address()).ok());
    let answers = [
        ("a page", browser.open_once(PAGE)),
        ("a script", gateway.request(&request(&browser).with("Accept", "application/json"))),
        ("sign-out", browser.open_once(SIGN_OUT)),
        ("a callback", stranger.open_once(&callback)),
    ];
    for (name, answer) in answers {
        assert_eq!(answer.status, 503, "{name}: {}", answer.text());
        assert!(answer.field("retry-after").is_some(), "{name}");
        let clears = answer.head.all("set-cookie").iter().any(|cookie| cookie.contains("__Host-portcullis="));
        assert!(!clears, "{name}: {:?}", answer.head);
    }
    assert_eq!(gateway.admin("/readyz").status, 503);
    scene.redis.restart();
    wait_for("Redis to be found again", || (gateway.admin("/readyz").status == 200).then_some(()));
    assert_eq!(user(&mut browser), Some("alice".to_owned()), "the same session, without a restart");
    assert_eq!(stranger.open(PAGE).status(), 200, "and sign-in works");
}

#[test]
fn who_got_a_cookie_is_signed_in_after_redis_was_killed_in_the_middle_of_sign_ins() {
    let mut scene = Scene::new(RedisServer::durable());
    let mut gateway = scene.builder().start();
    let done = AtomicUsize::new(0);
    let (gateway_ref, done_ref) = (&gateway, &done);
    let redis = &mut scene.redis;
    let mut browsers: Vec<Browser> = std::thread::scope(|scope| {
        let sign_in = move || {
            let mut browser = Browser::new(gateway_ref);
            browser.open(PAGE);
            done_ref.fetch_add(1, Ordering::SeqCst);
            browser
        };
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(move || (0..15).map(|_| sign_in()).collect::<Vec<_>>())).collect();
        wait_for("the middle", || (done.load(Ordering::SeqCst) > 20).then_some(()));
        redis.kill9();
        redis.restart();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    gateway.kill9();
    gateway.restart();
    browsers.retain(|browser| browser.jar.get(WIKI, "__Host-portcullis").is_some());
    assert!(browsers.len() > 20, "{}", browsers.len());
    for browser in &mut browsers {
        assert_eq!(user(browser), Some("alice".to_owned()));
    }
}
