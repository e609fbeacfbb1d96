//! Refreshes at a provider that nobody here wrote, which replaces a refresh token at each use and takes
//! back all that a sign-in gave when one comes twice.

use std::thread;
use std::time::Duration;

use crate::support::browser::Browser;
use crate::support::certified_provider::CertifiedProvider;
use crate::support::client::{Connection, Request};
use crate::support::gateway::{Builder, Gateway, WIKI};
use crate::support::redis_server::RedisServer;
use crate::support::upstream::{Echo, Upstream};
use crate::support::wait_for;

const PAGE: &str = "https://wiki.test/page";

/// How long an access token lives: the shortest life that counts.
const LIFE: Duration = Duration::from_secs(10);

/// How long a slow refresh takes.
const SLOW: Duration = Duration::from_secs(5);

/// How many requests come at once.
const AT_ONCE: usize = 50;

/// An application, the provider, and gateways that share their sessions.
struct Stage {
    provider: CertifiedProvider,
    gateways: Vec<Gateway>,
    _upstream: Upstream,
    redis: Option<RedisServer>,
}

impl Stage {
    fn on_disk() -> Self {
        let (upstream, provider) = (Upstream::start(), provider());
        let gateways = vec![gateway(&upstream, &provider).start()];
        Self { provider, gateways, _upstream: upstream, redis: None }
    }

    /// Two gateways on one Redis.
    fn on_redis() -> Self {
        let (upstream, provider, redis) = (Upstream::start(), provider(), RedisServer::durable());
        let gateways = (0..2).map(|_| gateway(&upstream, &provider).redis(&redis).start()).collect();
        Self { provider, gateways, _upstream: upstream, redis: Some(redis) }
    }

    /// Signs somebody in at one of the gateways, and lets all of them see the session.
    fn sign_in(&self, at: usize) -> Browser {
        let mut browser = Browser::new(&self.gateways[at % self.gateways.len()]);
        assert_eq!(browser.sign_in(PAGE, "alice").status(), 200);
        for gateway in &self.gateways {
            assert_eq!(elsewhere(&browser, gateway).get(PAGE).status, 200);
        }
        browser
    }

    /// A request at the first gateway that waits for a refresh which the provider has been asked for.
    fn wait_in_a_refresh(&mut self, browser: &Browser) -> Connection {
        let before = self.provider.calls("token");
        let cookies = browser.jar.field(&PAGE.parse().unwrap(), false).expect("a session");
        let request = Request::get("/page").with("Host", WIKI).with("Cookie", &cookies);
        let mut connection = self.gateways[0].place(WIKI).connect().unwrap();
        connection.send(&request.bytes()).unwrap();
        wait_for("the refresh", || (self.provider.calls("token") > before).then_some(()));
        connection
    }

    /// Requests of one browser over all gateways at the same time; their statuses.
    fn at_once(&self, browser: &Browser, count: usize) -> Vec<u16> {
        thread::scope(|scope| {
            let get = |gateway| {
                let mut tab = elsewhere(browser, gateway);
                scope.spawn(move || tab.get(PAGE).status)
            };
            let running = self.gateways.iter().filter(|gateway| gateway.is_running());
            let tabs: Vec<_> = running.cycle().take(count).map(get).collect();
            tabs.into_iter().map(|tab| tab.join().unwrap()).collect()
        })
    }

    /// The access token that the application gets from each gateway, all asked at the same time.
    fn access_tokens(&self, browser: &Browser) -> Vec<String> {
        thread::scope(|scope| {
            let get = |gateway| {
                let mut tab = elsewhere(browser, gateway);
                scope.spawn(move || {
                    let echo = Echo::of(&tab.get("https://wiki.test/token"));
                    echo.one("x-forwarded-access-token").expect("an access token").to_owned()
                })
            };
            let tabs: Vec<_> = self.gateways.iter().map(get).collect();
            tabs.into_iter().map(|tab| tab.join().unwrap()).collect()
        })
    }
}

fn provider() -> CertifiedProvider {
    CertifiedProvider::builder().refresh_tokens(LIFE.as_secs()).start()
}

fn gateway(upstream: &Upstream, provider: &CertifiedProvider) -> Builder {
    let builder = Gateway::in_front_of(upstream).path("/token", upstream, "forward_access_token = true");
    builder.provider(provider.entry())
}

/// The same browser, whose requests come to this gateway.
fn elsewhere(browser: &Browser, gateway: &Gateway) -> Browser {
    let mut tab = browser.clone();
    tab.finds(&format!("https://{WIKI}"), gateway.place(WIKI));
    tab
}

/// Signs `rounds` people in, lets their tokens grow old, and asks for each of them [`AT_ONCE`] times at once.
fn every_round_is_one_refresh(mut stage: Stage, rounds: usize) {
    let browsers: Vec<Browser> = (0..rounds).map(|round| stage.sign_in(round)).collect();
    let mut tokens = stage.provider.calls("token");
    thread::sleep(LIFE);
    for (round, browser) in browsers.iter().enumerate() {
        assert_eq!(stage.at_once(browser, AT_ONCE), [200; AT_ONCE], "round {round}");
        tokens += 1;
        assert_eq!(stage.provider.calls("token"), tokens, "round {round}: one refresh");
    }
    assert_eq!(stage.provider.revoked_grants(), 0, "no refresh token came twice");
    thread::sleep(LIFE);
    for (round, browser) in browsers.iter().enumerate() {
        assert_eq!(stage.at_once(browser, 1), [200], "round {round}: what came is good for the next");
    }
}

#[test]
fn rf_160_fifty_requests_with_an_old_token_are_one_refresh_at_a_provider_that_rotates() {
    every_round_is_one_refresh(Stage::on_disk(), 10);
}

#[test]
fn rf_160_fifty_requests_over_two_gateways_on_one_redis_are_one_refresh_each_of_a_hundred_times() {
    every_round_is_one_refresh(Stage::on_redis(), 100);
}

#[test]
fn a_gateway_waits_for_the_refresh_of_another_and_has_its_tokens() {
    let mut stage = Stage::on_redis();
    let browser = stage.sign_in(0);
    let old = stage.access_tokens(&browser);
    assert_eq!(old[0], old[1]);
    thread::sleep(LIFE);
    stage.provider.delay_tokens(SLOW);
    let before = stage.provider.calls("token");
    drop(stage.wait_in_a_refresh(&browser));
    let new = stage.access_tokens(&browser);
    assert_eq!(new[0], new[1]);
    assert_ne!(new[0], old[0], "nobody was served with the old token");
    assert_eq!(stage.provider.calls("token"), before + 1, "one refresh, whose client went away");
}

#[test]
fn tokens_that_come_while_the_store_is_down_for_a_moment_are_not_lost() {
    let mut stage = Stage::on_redis();
    let browser = stage.sign_in(0);
    let old = stage.access_tokens(&browser);
    thread::sleep(LIFE);
    stage.provider.delay_tokens(SLOW);
    let before = stage.provider.calls("token");
    let _waiting = stage.wait_in_a_refresh(&browser);
    let redis = stage.redis.as_mut().expect("the store");
    redis.kill9();
    thread::sleep(SLOW + Duration::from_secs(1));
    redis.restart();
    for gateway in &stage.gateways {
        wait_for("the store to be back", || (gateway.admin("/readyz").status == 200).then_some(()));
    }
    let new = stage.access_tokens(&browser);
    assert_eq!(new[0], new[1]);
    assert_ne!(new[0], old[0]);
    assert_eq!(stage.provider.calls("token"), before + 1);
    assert_eq!(stage.provider.revoked_grants(), 0);
}

/// Kills the first gateway in a refresh whose answer is on its way, and looks at what is left of the session,
/// where somebody still runs and at all gateways after a restart.
fn a_holder_dies(mut stage: Stage) {
    let browser = stage.sign_in(0);
    thread::sleep(LIFE);
    stage.provider.delay_tokens(SLOW);
    let before = stage.provider.calls("token");
    let _waiting = stage.wait_in_a_refresh(&browser);
    stage.gateways[0].kill9();
    stage.provider.delay_tokens(Duration::ZERO);
    if stage.gateways.iter().any(Gateway::is_running) {
        assert_eq!(stage.at_once(&browser, AT_ONCE), [200; AT_ONCE], "the session lives at the others");
    }
    stage.gateways[0].restart();
    assert_eq!(stage.at_once(&browser, AT_ONCE), [200; AT_ONCE], "the session lives");
    assert_eq!(stage.provider.calls("token"), before + 1, "what was sent is not sent again");
    assert_eq!(stage.provider.revoked_grants(), 0);
}

#[test]
fn a_gateway_that_dies_in_a_refresh_leaves_the_session_to_the_others() {
    a_holder_dies(Stage::on_redis());
}

#[test]
fn a_gateway_that_dies_in_a_refresh_sends_nothing_twice_and_loses_no_session() {
    a_holder_dies(Stage::on_disk());
}

#[test]
fn a_refresh_goes_on_when_whoever_waited_for_it_went_away() {
    let mut stage = Stage::on_disk();
    let browser = stage.sign_in(0);
    thread::sleep(LIFE);
    stage.provider.delay_tokens(SLOW);
    let before = stage.provider.calls("token");
    drop(stage.wait_in_a_refresh(&browser));
    assert_eq!(stage.at_once(&browser, AT_ONCE), [200; AT_ONCE]);
    assert_eq!(stage.provider.calls("token"), before + 1, "one refresh for all of them");
}
