//! Limits by address, user and route, and what a flood costs those who mean it.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use url::Url;

use crate::redis::Scene as OnRedis;
use crate::support::browser::Browser;
use crate::support::client::{Request, Response};
use crate::support::gateway::{Builder, Gateway, WIKI};
use crate::support::redis_server::RedisServer;
use crate::support::scripted_provider::{Call, ScriptedProvider};
use crate::support::upstream::Upstream;
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page";
const CALLBACK: &str = "https://wiki.test/oauth2/callback";

/// Nothing but what is written.
const DEFAULTS: &str = "";

struct Scene {
    upstream: Upstream,
    provider: ScriptedProvider,
}

impl Scene {
    fn new() -> Self {
        Self { upstream: Upstream::start(), provider: ScriptedProvider::start() }
    }

    fn builder(&self, limits: &str) -> Builder {
        Gateway::in_front_of(&self.upstream).provider(self.provider.entry()).limits(limits)
    }
}

/// A browser at the address 127.0.0.`host`.
fn browser_at(gateway: &Gateway, host: u8) -> Browser {
    let mut browser = Browser::default();
    browser.finds("https://wiki.test", gateway.place(WIKI).from(Ipv4Addr::new(127, 0, 0, host)));
    browser
}

/// A sign-in that waits for its callback, and the callback's address.
fn begin(gateway: &Gateway, host: u8) -> (Browser, String) {
    let mut browser = browser_at(gateway, host);
    let authorize = browser.open_once(PAGE).field("location").expect("a redirect to the provider").to_owned();
    let callback = Browser::default().open_once(&authorize).field("location").unwrap().to_owned();
    (browser, callback)
}

/// A 429 that says when it is over, and is kept nowhere.
fn is_limited(answer: &Response, code: &str, seconds: std::ops::RangeInclusive<u32>) {
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert!(answer.text().contains(code), "{}", answer.text());
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    let wait: u32 = answer.field("retry-after").expect("when it is over").parse().expect("whole seconds");
    assert!(seconds.contains(&wait), "{wait}");
}

#[test]
fn do_6_strangers_callbacks_are_limited_by_address_and_cost_no_sign_in() {
    let scene = Scene::new();
    let gateway = scene.builder(DEFAULTS).start();
    let (mut victim, callback) = begin(&gateway, 1);
    // As an image of a page elsewhere would: with the browser's cookies or without.
    let forged = |kind: &str| format!("{CALLBACK}?code=x&state=forged-{kind}");
    for n in 0..5 {
        assert_eq!(victim.open_once(&forged(&n.to_string())).status, 400, "{n}");
    }
    for _ in 0..20 {
        is_limited(&victim.open_once(&forged("again")), "too_many_failures", 50..=60);
    }
    let script = Request::get("/oauth2/callback?code=x").with("Accept", "application/json");
    let answer = gateway.request(&script);
    is_limited(&answer, "too_many_failures", 50..=60);
    assert_eq!(answer.json()["error"], "too_many_failures");
    assert_eq!(browser_at(&gateway, 2).open_once(&forged("elsewhere")).status, 400, "another address");

    assert_eq!(victim.open(&callback).status(), 200, "the victim comes back from the provider and is in");
    assert_eq!(browser_at(&gateway, 1).open(PAGE).status(), 200, "and others behind the address");
    gateway.wait_for_log(&["\"rate_limited\"", "failed_sign_ins", "127.0.0.1"]);
    let told = gateway.log().iter().filter(|line| line.contains("\"rate_limited\"")).count();
    assert_eq!(told, 1, "once, not for each");
    let failed = gateway.log().iter().filter(|line| line.contains("\"sign_in_failed\"")).count();
    assert_eq!(failed, 6, "what is limited writes no line of its own");
    assert!(gateway.metric("portcullis_rate_limited_total{limit=\"failed_sign_ins\"}") > 20.0);
}

#[test]
fn do_6_no_header_makes_another_client_of_somebody_and_a_trusted_proxy_names_each() {
    let scene = Scene::new();
    let stray = |gateway: &Gateway, name: &str, value: &str| {
        gateway.request(&Request::get("/oauth2/callback?code=x").with(name, value)).status
    };
    let gateway = scene.builder(DEFAULTS).start();
    for n in 0..5 {
        assert_eq!(stray(&gateway, "X-Forwarded-For", &format!("192.0.2.{n}")), 400, "{n}");
    }
    let claims = [
        ("X-Forwarded-For", "198.51.100.1"),
        ("Forwarded", "for=198.51.100.1"),
        ("X-Real-IP", "198.51.100.1"),
        ("True-Client-IP", "198.51.100.1"),
        ("CF-Connecting-IP", "198.51.100.1"),
        ("X-Forwarded-Host", "other.test"),
        ("User-Agent", "another browser"),
        ("Cookie", "__Host-portcullis=junk"),
    ];
    for (name, value) in claims {
        assert_eq!(stray(&gateway, name, value), 429, "{name}");
    }
    let behind = scene.builder(DEFAULTS).config("[server]\ntrusted_proxies = [\"127.0.0.1\"]").start();
    let at = |client: &str| stray(&behind, "X-Forwarded-For", client);
    for n in 0..5 {
        assert_eq!(at(&format!("2001:db8:0:1::{n}, 127.0.0.1")), 400, "{n}");
    }
    for (client, wanted) in [
        ("2001:db8:0:1:ffff::9", 429),
        ("192.0.2.1, 2001:0DB8:0:1::9", 429),
        ("2001:db8:0:2::1", 400),
        ("192.0.2.1", 400),
    ] {
        assert_eq!(at(client), wanted, "{client}");
    }
}

#[test]
fn do_6_codes_that_the_provider_refuses_are_limited_before_they_are_sent() {
    let scene = Scene::new();
    let gateway = scene.builder(DEFAULTS).start();
    let guess = |callback: &str| {
        let mut url = Url::parse(callback).unwrap();
        let state = url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
        url.query_pairs_mut().clear().append_pair("code", "guessed").append_pair("state", &state);
        url.to_string()
    };
    for n in 0..5 {
        let (mut guesser, callback) = begin(&gateway, 1);
        let page = guesser.open(&guess(&callback));
        assert!(page.status() == 400 && page.html().contains("login_failed"), "{n}: {}", page.html());
    }
    let (mut next, callback) = begin(&gateway, 1);
    let calls = scene.provider.calls(Call::Token);
    is_limited(&next.open_once(&guess(&callback)), "too_many_failures", 50..=60);
    is_limited(&next.open_once(&callback), "too_many_failures", 50..=60);
    assert_eq!(scene.provider.calls(Call::Token), calls, "nothing is sent");
    let (mut other, elsewhere) = begin(&gateway, 2);
    assert_eq!(other.open(&elsewhere).status(), 200, "another address signs in");
    let (mut moved, callback) = begin(&gateway, 1);
    moved.finds("https://wiki.test", gateway.place(WIKI).from(Ipv4Addr::new(127, 0, 0, 3)));
    assert_eq!(moved.open(&callback).status(), 200, "the attempt was not spent by the address that began it");
}

#[test]
fn do_1_sign_ins_that_begin_are_limited_by_address_and_soon_go_on() {
    let scene = Scene::new();
    let gateway = scene.builder("sign_in_starts = \"4/2s\"").start();
    for way in [PAGE, "https://wiki.test/oauth2/start", PAGE, "https://wiki.test/oauth2/start?rd=/x"] {
        assert_eq!(browser_at(&gateway, 1).open_once(way).status, 302, "{way}");
    }
    let refused = browser_at(&gateway, 1).open_once("https://wiki.test/page?x=1");
    is_limited(&refused, "too_many_sign_ins", 1..=1);
    assert!(refused.text().contains("/page?x=1"), "the button leads to the page: {}", refused.text());
    assert_eq!(refused.head.all("set-cookie"), Vec::<&str>::new());
    is_limited(
        &browser_at(&gateway, 1).open_once("https://wiki.test/oauth2/start"),
        "too_many_sign_ins",
        1..=1,
    );
    let script = Request::get("/page").with("Accept", "application/json");
    assert_eq!(gateway.request(&script).status, 401, "what begins no sign-in is not counted");
    assert_eq!(browser_at(&gateway, 2).open(PAGE).status(), 200, "another address");
    let back = Instant::now();
    wait_for("the next start", || (browser_at(&gateway, 1).open_once(PAGE).status == 302).then_some(()));
    assert!(back.elapsed() < Duration::from_secs(2), "one is back long before the span is over");
}

#[test]
fn a_route_limits_requests_by_address_or_by_user_and_others_not_at_all() {
    let scene = Scene::new();
    let gateway = scene
        .builder(DEFAULTS)
        .path("/few", &scene.upstream, "access = \"public\"\nrate_limit = \"3/1m\"")
        .path("/mine", &scene.upstream, "rate_limit = \"3/1m\"\nrate_limit_by = \"user\"")
        .start();
    let at = |host, path: &str| {
        let place = gateway.place(WIKI).from(Ipv4Addr::new(127, 0, 0, host));
        place.request(&Request::get(path).with("Host", WIKI).with("Accept", "application/json"))
    };
    for n in 0..3 {
        assert_eq!(at(1, &format!("/few/{n}")).status, 200);
    }
    let hits = scene.upstream.hits();
    let refused = at(1, "/few");
    is_limited(&refused, "too_many_requests", 15..=20);
    assert_eq!(scene.upstream.hits(), hits, "the application sees nothing of it");
    assert_eq!(at(2, "/few").status, 200, "another address");
    assert_eq!(at(1, "/page").status, 401, "another route");
    gateway.wait_for_log(&["\"rate_limited\"", "\"route\":\"wiki.test/few\""]);

    let mut browsers: Vec<_> = [(1, "alice"), (2, "alice"), (1, "bob")]
        .into_iter()
        .map(|(host, name)| {
            scene.provider.claims(move |claims| claims["sub"] = name.into());
            let mut browser = browser_at(&gateway, host);
            assert_eq!(browser.open(PAGE).status(), 200);
            browser
        })
        .collect();
    let mine = "https://wiki.test/mine";
    let statuses: Vec<_> = [0, 1, 0, 1, 0, 2, 2, 2, 2].map(|who| browsers[who].get(mine).status).into();
    assert_eq!(statuses, [200, 200, 200, 429, 429, 200, 200, 200, 429], "alice at two addresses, then bob");
}

#[test]
fn a_limit_that_is_off_limits_nothing() {
    let scene = Scene::new();
    let off = "sign_in_starts = \"off\"\nfailed_sign_ins = \"off\"\nfailed_logouts = \"off\"";
    let gateway = scene.builder(off).start();
    let mut connection = gateway.place(WIKI).connect().unwrap();
    for n in 0..400 {
        let start = Request::get("/oauth2/start").with("Host", WIKI).with("Accept", "text/html");
        assert_eq!(connection.request(&start).status, 302, "{n}");
        let callback = Request::get("/oauth2/callback?code=x").with("Host", WIKI);
        assert_eq!(connection.request(&callback).status, 400, "{n}");
        let form = [("logout_token".to_owned(), "junk".to_owned())];
        let logout = Request::new("POST", "/oauth2/backchannel_logout").with("Host", WIKI).with_form(&form);
        assert_eq!(connection.request(&logout).status, 400, "{n}");
    }
}

#[test]
fn do_6_gateways_on_one_redis_count_together_and_an_outage_neither_refuses_nor_lets_all_pass() {
    let mut scene = OnRedis::new(RedisServer::durable());
    let build = || {
        let route = "access = \"public\"\nrate_limit = \"6/1m\"";
        scene.builder().limits(DEFAULTS).path("/few", &scene.upstream, route).start()
    };
    let (one, two) = (build(), build());
    let few = |gateway: &Gateway, host| {
        let place = gateway.place(WIKI).from(Ipv4Addr::new(127, 0, 0, host));
        place.request(&Request::get("/few").with("Host", WIKI)).status
    };
    let stray = |gateway: &Gateway| gateway.request(&Request::get("/oauth2/callback?code=x")).status;
    let statuses: Vec<_> = [&one, &two].iter().cycle().take(8).map(|gateway| few(gateway, 1)).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 429, 429]);
    let failures: Vec<_> = [&one, &two].iter().cycle().take(7).map(|gateway| stray(gateway)).collect();
    assert_eq!(failures, [400, 400, 400, 400, 400, 429, 429]);
    assert_eq!(few(&one, 2), 200, "another address");

    scene.redis.kill9();
    let down: Vec<_> = (0..9).map(|_| few(&one, 2)).collect();
    assert_eq!(down, [200, 200, 200, 200, 200, 429, 429, 429, 429], "what this gateway had counted goes on");
    assert_eq!(few(&one, 1), 429, "what was refused stays so");
    assert_eq!(few(&two, 3), 200, "and nobody is refused for want of the store");
}

/// AX-231: 20,000 navigations in half a minute from 200 addresses.
#[test]
fn ax_231_a_flood_of_navigations_takes_no_memory_and_stops_no_sign_in() {
    const ADDRESSES: u8 = 200;
    const EACH: usize = 100;
    let scene = OnRedis::new(RedisServer::start());
    let gateway = scene.builder().limits(DEFAULTS).log_level("warn").start();
    let warm = |host: u8, count: usize| {
        let place = gateway.place(WIKI).from(Ipv4Addr::new(127, 0, 1, host));
        let mut connection = place.connect().unwrap();
        for _ in 0..count {
            let page = Request::get("/page").with("Host", WIKI).with("Accept", "text/html");
            let answer = connection.request(&page);
            assert!(matches!(answer.status, 302 | 429), "{}", answer.text());
        }
    };
    (1..=ADDRESSES).for_each(|host| warm(host, 1));
    let before = resident_kib(gateway.pid());
    let is_over = AtomicBool::new(false);
    let begun = Instant::now();
    let signed_in = std::thread::scope(|scope| {
        let genuine = scope.spawn(|| {
            let mut times = 0;
            while !is_over.load(Ordering::SeqCst) {
                assert_eq!(browser_at(&gateway, 77).open(PAGE).status(), 200, "a genuine sign-in");
                times += 1;
            }
            times
        });
        let floods: Vec<_> = (0..8)
            .map(|lane| {
                scope.spawn(move || {
                    (1..=ADDRESSES).filter(|host| host % 8 == lane).for_each(|host| warm(host, EACH));
                })
            })
            .collect();
        for flood in floods {
            flood.join().unwrap();
        }
        is_over.store(true, Ordering::SeqCst);
        genuine.join().unwrap()
    });
    let grown = resident_kib(gateway.pid()).saturating_sub(before);
    println!(
        "{} navigations in {:?}, {signed_in} sign-ins meanwhile, {grown} KiB more",
        usize::from(ADDRESSES) * EACH,
        begun.elapsed()
    );
    assert!(signed_in >= 3, "{signed_in}");
    assert!(grown < 48 * 1024, "{grown} KiB more");
    let size = scene.redis.ask(&["DBSIZE"]);
    let keys: usize = size.trim().trim_start_matches(':').parse().unwrap();
    // A count for each address at most, and for each sign-in that was completed a session, its indexes and its state.
    assert!(keys <= usize::from(ADDRESSES) + 10 * signed_in + 50, "{keys} keys after {signed_in} sign-ins");
}

/// What a process has in memory.
fn resident_kib(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
