//! Gateways on one Redis: what ends on one ends on all, and an outage is one.

use std::time::{Duration, Instant};

use crate::support::browser::Browser;
use crate::support::client::{Connection, Request, Response};
use crate::support::gateway::{Builder, Gateway, WIKI};
use crate::support::redis_server::RedisServer;
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::Upstream;
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page";
const SIGN_OUT: &str = "https://wiki.test/oauth2/sign_out";

/// How often each way to sign out is measured.
const ROUNDS: usize = 20;

/// Gateways that share an application, a provider and Redis.
struct Scene {
    provider: ScriptedProvider,
    upstream: Upstream,
    redis: RedisServer,
}

impl Scene {
    fn new(redis: RedisServer) -> Self {
        Self { provider: ScriptedProvider::start(), upstream: Upstream::start(), redis }
    }

    fn gateway(&self, session: &str) -> Gateway {
        self.builder().session(session).start()
    }

    fn builder(&self) -> Builder {
        Gateway::in_front_of(&self.upstream).provider(self.provider.entry()).redis(&self.redis)
    }
}

fn cookie_field(browser: &Browser) -> String {
    let session = browser.jar.get(WIKI, "__Host-portcullis").expect("a session cookie");
    format!("{}={}", session.name, session.value)
}

/// A request of a script with this browser's session.
fn ask(gateway: &Gateway, browser: &Browser, path: &str) -> Response {
    let request = Request::get(path).with("Accept", "application/json");
    gateway.request(&request.with("Cookie", &cookie_field(browser)))
}

fn open_websocket(gateway: &Gateway, browser: &Browser) -> Connection {
    let handshake = Request::get("/ws")
        .with("Host", WIKI)
        .with("Connection", "Upgrade")
        .with("Upgrade", "websocket")
        .with("Sec-WebSocket-Version", "13")
        .with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .with("Cookie", &cookie_field(browser));
    let mut connection = gateway.place(WIKI).connect().unwrap();
    connection.send(&handshake.bytes()).unwrap();
    assert_eq!(connection.response_head("GET").0, 101);
    connection
}

type End = fn(&Scene, &mut Browser, &Gateway, &str);

fn sign_out(_: &Scene, browser: &mut Browser, _: &Gateway, _: &str) {
    assert_eq!(browser.post(SIGN_OUT, PAGE).status, 302);
}

fn back_channel(scene: &Scene, _: &mut Browser, gateway: &Gateway, sid: &str) {
    let token = scene.provider.logout_token(|_, claims| claims["sid"] = sid.into());
    let call = Request::new("POST", "/oauth2/backchannel_logout");
    assert_eq!(gateway.request(&call.with_form(&[("logout_token".to_owned(), token)])).status, 200);
}

#[test]
fn sc_159_a_logout_on_one_gateway_is_refused_on_the_other_within_a_second_and_cuts_its_websocket() {
    let scene = Scene::new(RedisServer::start());
    let (one, two) = (scene.gateway(""), scene.gateway(""));
    let ways: [(&str, End); 2] = [("sign-out", sign_out), ("back channel", back_channel)];
    for (way, end) in ways {
        let (mut refused, mut cut) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let sid = format!("{way} {round}");
            let claimed = sid.clone();
            scene.provider.claims(move |claims| claims["sid"] = claimed.clone().into());
            let mut browser = Browser::new(&one);
            assert_eq!(browser.open(PAGE).status(), 200);
            let copy = browser.clone();
            let mut websocket = open_websocket(&two, &copy);
            assert_eq!(ask(&two, &copy, "/page").status, 200);

            end(&scene, &mut browser, &one, &sid);
            let ended = Instant::now();
            let refusal = loop {
                let answer = ask(&two, &copy, "/page");
                if answer.status != 200 || ended.elapsed() > Duration::from_secs(1) {
                    break answer.status;
                }
            };
            refused.push(ended.elapsed());
            assert_eq!(refusal, 401, "{way}, round {round}: refused within a second");
            assert!(websocket.is_closed_within(Duration::from_secs(1)), "{way}, round {round}");
            cut.push(ended.elapsed());
        }
        for (what, times) in [("refused", &mut refused), ("cut", &mut cut)] {
            times.sort_unstable();
            let (median, last) = (times[ROUNDS / 2], times[ROUNDS - 1]);
            println!("{way}: {what} after {median:?} (median), {last:?} (longest of {ROUNDS})");
            assert!(last < Duration::from_secs(1), "{way}: {what} after {last:?}");
        }
    }
}

type Trouble = (&'static str, fn(&mut RedisServer), fn(&mut RedisServer));

/// No answer of these sets or clears any cookie.
fn leaves_cookies_alone(name: &str, answer: &Response) {
    assert_eq!(answer.head.all("set-cookie"), Vec::<&str>::new(), "{name}");
}

#[test]
fn sc_155_in_an_outage_memory_serves_for_the_window_and_no_cookie_is_lost() {
    let troubles: [Trouble; 2] = [
        ("killed", RedisServer::kill9, RedisServer::restart),
        ("stopped", |redis| redis.pause(), |redis| redis.resume()),
    ];
    for (trouble, begin, end) in troubles {
        let mut scene = Scene::new(RedisServer::durable());
        let window = Duration::from_secs(6);
        let (gateway, other) = (scene.gateway("outage_window = \"6s\"\n"), scene.gateway(""));
        let [mut known, mut unknown] = [&gateway, &other].map(|gateway| {
            let mut browser = Browser::new(gateway);
            assert_eq!(browser.open(PAGE).status(), 200);
            browser
        });
        unknown.finds("https://wiki.test", gateway.place(WIKI));
        let mut websocket = open_websocket(&gateway, &known);
        let mut newcomer = Browser::new(&gateway);
        let authorize = newcomer.open_once(PAGE).field("location").unwrap().to_owned();
        let callback = Browser::default().open_once(&authorize).field("location").unwrap().to_owned();

        begin(&mut scene.redis);
        let begun = Instant::now();
        assert_eq!(ask(&gateway, &unknown, "/page").status, 503, "{trouble}");
        gateway.wait_for_log(&["\"store_outage_began\""]);
        let known_is = Instant::now();
        for _ in 0..50 {
            assert_eq!(ask(&gateway, &known, "/page").status, 200, "{trouble}: in memory");
            assert_eq!(ask(&gateway, &unknown, "/page").status, 503, "{trouble}: not in memory");
        }
        assert!(known_is.elapsed() < Duration::from_secs(2), "{trouble}: nobody waits for the store");
        let token = scene.provider.logout_token(|_, _| {});
        let logout = Request::new("POST", "/oauth2/backchannel_logout");
        let logout = logout.with_form(&[("logout_token".to_owned(), token)]);
        let answers = [
            ("who am I", ask(&gateway, &known, "/oauth2/userinfo"), 200),
            ("who am I, not in memory", ask(&gateway, &unknown, "/oauth2/userinfo"), 503),
            ("sign-out", known.post(SIGN_OUT, PAGE), 503),
            ("a page, not in memory", unknown.open_once(PAGE), 503),
            ("a page, for nobody", Browser::new(&gateway).open_once(PAGE), 503),
            ("a callback", newcomer.open_once(&callback), 503),
            (
                "the start of a sign-in",
                Browser::new(&gateway).open_once("https://wiki.test/oauth2/start"),
                503,
            ),
            ("back-channel logout", gateway.request(&logout), 400),
        ];
        for (name, answer, status) in &answers {
            assert_eq!(answer.status, *status, "{trouble}: {name}: {}", answer.text());
            assert!(*status != 503 || answer.field("retry-after").is_some(), "{trouble}: {name}");
            leaves_cookies_alone(name, answer);
        }
        assert!(begun.elapsed() < window, "{trouble}: the machine is too slow for this test");
        wait_for("the end of the window", || (ask(&gateway, &known, "/page").status == 503).then_some(()));
        assert!(begun.elapsed() >= window, "{trouble}: it was {:?}", begun.elapsed());
        leaves_cookies_alone("after the window", &known.open_once(PAGE));

        end(&mut scene.redis);
        wait_for("the store to be back", || (ask(&gateway, &unknown, "/page").status == 200).then_some(()));
        assert_eq!(
            (known.get(PAGE).status, unknown.get(PAGE).status),
            (200, 200),
            "{trouble}: nobody signed in anew"
        );
        assert_eq!(newcomer.open(&callback).status(), 200, "{trouble}: the sign-in goes on where it stopped");
        assert_eq!(scene.provider.calls(Call::Token), 3, "{trouble}");
        assert!(!websocket.is_closed_within(Duration::from_millis(100)), "{trouble}: what is open goes on");
        gateway.wait_for_log(&["\"store_outage_ended\"", "\"requests\":"]);
        for event in ["\"store_outage_began\"", "\"store_outage_ended\""] {
            let lines = gateway.log().iter().filter(|line| line.contains(event)).count();
            assert_eq!(lines, 1, "{trouble}: {event}");
        }
        assert!(gateway.metric("portcullis_outage_requests_total") > 50.0, "{trouble}");
        assert_eq!(known.post(SIGN_OUT, PAGE).status, 302, "{trouble}: now it can be signed out");
    }
}
