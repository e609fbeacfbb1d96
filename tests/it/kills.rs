//! `kill -9` in the middle of sign-ins: a cookie that was given out is worth what it promised.

use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::browser::Browser;
use crate::support::gateway::{Builder, Gateway};
use crate::support::redis_server::RedisServer;
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::{Echo, Upstream};
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page";
const BROWSERS: usize = 200;
/// Callbacks under way at once.
const AT_ONCE: usize = 16;
/// So many browsers have their cookie when the kill comes.
const ENOUGH: usize = 50;

/// A browser on its way back from the provider, and the callback that it is to open.
struct Traveller {
    browser: Browser,
    callback: String,
}

impl Traveller {
    fn leave(gateway: &Gateway) -> Self {
        let mut browser = Browser::new(gateway);
        let authorize = browser.open_once(PAGE).field("location").unwrap().to_owned();
        let callback = Browser::default().open_once(&authorize).field("location").unwrap().to_owned();
        Self { browser, callback }
    }

    fn has_session(&self) -> bool {
        self.browser.jar.get("wiki.test", "__Host-portcullis").is_some()
    }
}

/// Has all travellers come back at once, and kills when enough of them have a session.
fn kill_in_their_middle(travellers: Vec<Traveller>, kill: impl FnOnce()) -> Vec<Traveller> {
    let (waiting, back) = (Mutex::new(travellers), Mutex::new(Vec::new()));
    let with_session = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(mut traveller) = waiting.lock().unwrap().pop() else { break };
                    traveller.browser.open_once_if_it_answers(&traveller.callback);
                    with_session.fetch_add(traveller.has_session().into(), Ordering::SeqCst);
                    back.lock().unwrap().push(traveller);
                }
            });
        }
        wait_for("enough sign-ins", || (ENOUGH <= with_session.load(Ordering::SeqCst)).then_some(()));
        kill();
    });
    back.into_inner().unwrap()
}

/// Whoever has a cookie is signed in; whoever has none is not, and can sign in. `kill` ends what is to be
/// ended; `come_back` starts it again.
fn every_cookie_is_kept(
    store: impl FnOnce(Builder) -> Builder,
    kill: impl FnOnce(&mut Gateway),
    come_back: impl FnOnce(&mut Gateway),
) {
    let (upstream, provider) = (Upstream::start(), ScriptedProvider::start());
    let mut gateway = store(Gateway::in_front_of(&upstream).provider(provider.entry())).start();
    let travellers = (0..BROWSERS).map(|_| Traveller::leave(&gateway)).collect();
    let back = kill_in_their_middle(travellers, || kill(&mut gateway));
    come_back(&mut gateway);
    let (mut lucky, mut others): (Vec<_>, Vec<_>) = back.into_iter().partition(Traveller::has_session);
    assert_eq!(lucky.len() + others.len(), BROWSERS);
    assert!(!others.is_empty(), "the kill came in the middle");
    let calls = provider.calls(Call::Token);
    for traveller in &mut lucky {
        let page = traveller.browser.get(PAGE);
        assert_eq!(page.status, 200, "got a cookie, and is signed out");
        assert_eq!(Echo::of(&page).one("x-forwarded-user"), Some("alice"));
    }
    assert_eq!(provider.calls(Call::Token), calls, "nobody had to sign in again");
    for traveller in others.iter_mut().take(AT_ONCE) {
        assert_eq!(traveller.browser.get(PAGE).status, 302, "no cookie, no session");
        assert_eq!(traveller.browser.open(PAGE).status(), 200);
    }
}

#[test]
fn every_browser_that_got_its_cookie_before_a_kill_is_signed_in_after_it() {
    every_cookie_is_kept(|builder| builder, Gateway::kill9, Gateway::restart);
}

#[test]
fn every_browser_that_got_its_cookie_before_a_kill_is_signed_in_after_it_with_redis() {
    let server = RedisServer::start();
    every_cookie_is_kept(|builder| builder.redis(&server), Gateway::kill9, Gateway::restart);
}

#[test]
fn every_browser_that_got_its_cookie_before_redis_was_killed_is_signed_in_after_it() {
    let server = RefCell::new(RedisServer::durable());
    every_cookie_is_kept(
        |builder| builder.redis(&server.borrow()),
        |_| server.borrow_mut().kill9(),
        |gateway| {
            server.borrow_mut().restart();
            wait_for("the gateway to find Redis again", || {
                (gateway.admin("/readyz").status == 200).then_some(())
            });
        },
    );
}
