//! How much of one kind somebody may do: sign-ins that begin, sign-ins and logout calls that lead to nothing,
//! requests to a route. By the client's address (DO-6), an IPv6 client being its /64, or by user.
//!
//! Each count is a [`Bucket`]: so many at once, then one whenever its share of the span has passed. So whoever
//! floods is slowed down to a rate, and with him all behind his address, for no longer than he goes on. Every
//! count is kept in this process; where gateways share a store they share the counts in it, too, and what the store
//! refused is not asked for again before its time. A limit is no authentication: while the store is down each
//! gateway goes on with its own counts, and nobody is refused for want of them.
//!
//! Memory is bounded by [`MAX_COUNTS`]; the one that was used longest ago makes room.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::{Gateway, Refusal};
use crate::clock::bucket::{Bucket, Rate};
use crate::clock::{Clock, UnixTime};
use crate::identity::Identity;
use crate::route::Route;
use crate::store::{SessionStore, StoreKey, Take, Taken};
use crate::telemetry::Events;
use crate::web::{Request, client_addr};

/// The most counts that are kept, about 300 bytes each. An address that is forgotten has all its rate again, which is
/// worth little to whoever had to use 20,000 others for it.
const MAX_COUNTS: u64 = 20_000;

/// The longest span of a rate: a count that was not used for as long is full again.
pub const LONGEST_SPAN: Duration = Duration::from_hours(1);

/// The limits that hold on every route; `None`: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// Sign-ins that begin, by address.
    pub sign_in_starts: Option<Rate>,
    /// Sign-ins that fail, by address; those with an attempt's cookie and those without apart.
    pub failed_sign_ins: Option<Rate>,
    /// Logout calls that lead to nothing, by address; front and back channel apart.
    pub failed_logouts: Option<Rate>,
}

const MINUTE: Duration = Duration::from_mins(1);

impl Default for LimitSettings {
    /// An office of hundreds behind one address comes back to work with all its tabs at once, and passes. Five
    /// failures are more than a person needs; one more each minute ends no attack and no siege. Browsers that are
    /// signed out already fail a logout too, and behind a load balancer all have one address (BC-10).
    fn default() -> Self {
        Self {
            sign_in_starts: Some(Rate { count: 300, per: MINUTE }),
            failed_sign_ins: Some(Rate { count: 5, per: 5 * MINUTE }),
            failed_logouts: Some(Rate { count: 100, per: MINUTE / 3 }),
        }
    }
}

/// What is counted. Each has counts of its own: any page can have browsers call the front channel, or a callback
/// that nobody began, which must cost neither the back channel nor a sign-in anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Sign-ins that begin.
    SignInStart,
    /// Sign-ins whose code the provider refused, or whose tokens were not good.
    FailedSignIn,
    /// Callbacks that belong to no sign-in of their browser.
    StrayCallback,
    /// Logouts told by a page of the provider's, in a frame.
    FrontLogout,
    /// Logouts told by the provider itself.
    BackLogout,
}

impl Kind {
    /// The setting, in metric and log.
    const fn name(self) -> &'static str {
        match self {
            Self::SignInStart => "sign_in_starts",
            Self::FailedSignIn | Self::StrayCallback => "failed_sign_ins",
            Self::FrontLogout | Self::BackLogout => "failed_logouts",
        }
    }

    /// What keys are derived of.
    const fn label(self) -> &'static str {
        match self {
            Self::SignInStart => "sign-in starts",
            Self::FailedSignIn => "failed sign-ins",
            Self::StrayCallback => "stray callbacks",
            Self::FrontLogout => "front-channel logouts",
            Self::BackLogout => "back-channel logouts",
        }
    }

    const fn rate(self, settings: &LimitSettings) -> Option<Rate> {
        match self {
            Self::SignInStart => settings.sign_in_starts,
            Self::FailedSignIn | Self::StrayCallback => settings.failed_sign_ins,
            Self::FrontLogout | Self::BackLogout => settings.failed_logouts,
        }
    }
}

/// How long to wait, in whole seconds, at least one: `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wait(pub u32);

impl Wait {
    fn of(duration: Duration) -> Self {
        let seconds = duration.as_millis().div_ceil(1000);
        Self(u32::try_from(seconds).unwrap_or(u32::MAX).max(1))
    }
}

/// One count: what, whose, and how much of it there may be.
#[derive(Clone, Copy, Debug)]
struct Count<'a> {
    name: &'static str,
    route: Option<&'a str>,
    client: IpAddr,
    key: StoreKey,
    rate: Rate,
}

/// The counts.
#[derive(Debug)]
pub struct Limits {
    counts: Cache<StoreKey, Arc<Mutex<Local>>>,
    store: Arc<dyn SessionStore>,
    clock: Clock,
    events: Events,
}

/// A count as this process has it.
#[derive(Debug)]
struct Local {
    bucket: Bucket,
    /// After how long one is regained: nobody waits longer.
    period: Duration,
    /// What the store said: there is none before.
    closed_until: UnixTime,
    /// Until when nothing more is told of it.
    told_until: UnixTime,
}

impl Local {
    fn new(rate: Rate, now: UnixTime) -> Self {
        let never = UnixTime::from_millis(0);
        Self { bucket: Bucket::of(rate, now), period: rate.period(), closed_until: never, told_until: never }
    }

    /// How long to wait; zero: it is taken.
    fn ask(&mut self, take: Take, now: UnixTime) -> Duration {
        let closed = self.closed_until.since(now);
        // A clock that was set back opens: nobody is locked out for as long.
        let closed = if closed <= self.period { closed } else { Duration::ZERO };
        let wait = self.bucket.wait(now).max(closed);
        if wait.is_zero() && take == Take::One {
            self.bucket.take(now);
        }
        wait
    }

    /// The store has none: what was taken here was not.
    fn close(&mut self, take: Take, until: UnixTime) {
        self.closed_until = until;
        if take == Take::One {
            self.bucket.put_back();
        }
    }

    /// Whether a refusal is the first one in its span.
    fn is_news(&mut self, span: Duration, now: UnixTime) -> bool {
        let is_news = self.told_until <= now || self.told_until > now + span;
        if is_news {
            self.told_until = now + span;
        }
        is_news
    }
}

impl Limits {
    /// Nothing is counted yet.
    #[must_use]
    pub fn new(store: Arc<dyn SessionStore>, clock: Clock, events: Events) -> Self {
        // The one that was used last stays: by how often they come a flood would keep newcomers out, uncounted.
        let counts = Cache::builder().max_capacity(MAX_COUNTS).eviction_policy(EvictionPolicy::lru());
        Self { counts: counts.time_to_idle(LONGEST_SPAN).build(), store, clock, events }
    }

    /// Counts one, or only looks; tells of what is refused.
    ///
    /// # Errors
    /// How long to [`Wait`] where there was none.
    async fn check(&self, count: &Count<'_>, take: Take) -> Result<(), Wait> {
        let wait = self.ask(count, take).await;
        if wait.is_zero() {
            return Ok(());
        }
        let wait = Wait::of(wait);
        let is_news = lock(&self.local(count)).is_news(count.rate.per, self.clock.now());
        self.events.rate_limited(count.name, count.route, count.client, wait.0, is_news);
        Err(wait)
    }

    async fn ask(&self, count: &Count<'_>, take: Take) -> Duration {
        let now = self.clock.now();
        // Whoever only looks leaves nothing behind.
        let local = match take {
            Take::One => Some(self.local(count)),
            Take::Nothing => self.counts.get(&count.key),
        };
        let wait = local.map_or(Duration::ZERO, |local| lock(&local).ask(take, now));
        if !wait.is_zero() {
            return wait;
        }
        match self.store.take(count.key, count.rate, take).await {
            Ok(Taken::NotFor(wait)) => {
                lock(&self.local(count)).close(take, now + wait);
                wait
            }
            // An outage: what was counted here holds.
            Ok(Taken::Yes | Taken::Uncounted) | Err(_) => Duration::ZERO,
        }
    }

    fn local(&self, count: &Count<'_>) -> Arc<Mutex<Local>> {
        let fresh = || Arc::new(Mutex::new(Local::new(count.rate, self.clock.now())));
        self.counts.get_with(count.key, fresh)
    }
}

fn lock(local: &Mutex<Local>) -> MutexGuard<'_, Local> {
    local.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gateway {
    /// Counts one of the client's, or only looks whether there is one left.
    ///
    /// # Errors
    /// How long to [`Wait`] where there is none.
    async fn limit(&self, kind: Kind, request: &Request<'_>, take: Take) -> Result<(), Wait> {
        let Some(rate) = kind.rate(&self.settings.limits) else { return Ok(()) };
        let (client, name) = (request.client, kind.name());
        let key = StoreKey::derive("rate", &[kind.label().as_bytes(), &network(client)]);
        self.shared.limits.check(&Count { name, route: None, client, key, rate }, take).await
    }

    /// Counts a sign-in that begins.
    ///
    /// # Errors
    /// [`Refusal::TooManySignIns`].
    pub(super) async fn count_sign_in_start(&self, request: &Request<'_>) -> Result<(), Refusal> {
        self.limit(Kind::SignInStart, request, Take::One).await.map_err(Refusal::TooManySignIns)
    }

    /// Whether this client failed too often lately: then it is not heard.
    ///
    /// # Errors
    /// [`Refusal::TooManyFailures`].
    pub async fn check_failures(&self, kind: Kind, request: &Request<'_>) -> Result<(), Refusal> {
        self.limit(kind, request, Take::Nothing).await.map_err(Refusal::TooManyFailures)
    }

    /// Counts a failure of this client.
    ///
    /// # Errors
    /// [`Refusal::TooManyFailures`] where it is one too many.
    pub async fn count_failure(&self, kind: Kind, request: &Request<'_>) -> Result<(), Refusal> {
        self.limit(kind, request, Take::One).await.map_err(Refusal::TooManyFailures)
    }

    /// Counts a request to a route, by its user where the route counts those and one is known.
    ///
    /// # Errors
    /// [`Refusal::TooManyRequests`].
    pub(super) async fn count_request(
        &self,
        route: &Route,
        rate: Rate,
        user: Option<&Identity>,
        request: &Request<'_>,
    ) -> Result<(), Refusal> {
        let (client, name) = (request.client, route.name.as_bytes());
        let key = match user {
            Some(user) => {
                let whose = [name, user.issuer.as_bytes(), user.subject.as_bytes()];
                StoreKey::derive("rate of a user", &whose)
            }
            None => StoreKey::derive("rate of a route", &[name, &network(client)]),
        };
        let count = Count { name: "route", route: Some(&route.name), client, key, rate };
        self.shared.limits.check(&count, Take::One).await.map_err(Refusal::TooManyRequests)
    }
}

/// Whom an address stands for, as a part of a key.
fn network(client: IpAddr) -> [u8; 16] {
    match client_addr::network(client) {
        IpAddr::V6(network) => network.octets(),
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::peer::{Peer, pair};

    const START: UnixTime = UnixTime::from_secs(1_000_000);
    const FIVE: Rate = Rate { count: 5, per: Duration::from_mins(5) };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn count(kind: Kind, client: &str) -> Count<'static> {
        let client = address(client);
        let key = StoreKey::derive("rate", &[kind.label().as_bytes(), &network(client)]);
        Count { name: kind.name(), route: None, client, key, rate: FIVE }
    }

    fn limits(clock: &Clock) -> Limits {
        Limits::new(Arc::new(MemoryStore::new(clock.clone())), clock.clone(), Events::quiet())
    }

    /// The limits of two gateways on one store.
    fn shared(clock: &Clock) -> [(Limits, Arc<Peer>); 2] {
        pair(MemoryStore::new(clock.clone())).map(|peer| {
            let store: Arc<dyn SessionStore> = Arc::<Peer>::clone(&peer);
            (Limits::new(store, clock.clone(), Events::quiet()), peer)
        })
    }

    async fn take(limits: &Limits, client: &str) -> Result<(), Wait> {
        limits.check(&count(Kind::BackLogout, client), Take::One).await
    }

    #[tokio::test]
    async fn do_6_five_failures_and_their_address_waits_and_nobody_else_does() {
        let clock = Clock::manual(START);
        let limits = limits(&clock);
        for _ in 0..5 {
            assert_eq!(take(&limits, "192.0.2.1").await, Ok(()));
        }
        let rows = [
            ("the guesser", Kind::BackLogout, "192.0.2.1", 0, Err(Wait(60))),
            ("the same in an IPv6 socket", Kind::BackLogout, "::ffff:192.0.2.1", 0, Err(Wait(60))),
            ("a neighbour", Kind::BackLogout, "192.0.2.2", 0, Ok(())),
            ("the same address in IPv6", Kind::BackLogout, "2001:db8::c000:201", 0, Ok(())),
            ("something else", Kind::FrontLogout, "192.0.2.1", 0, Ok(())),
            ("not yet, and whole seconds are told", Kind::BackLogout, "192.0.2.1", 59_001, Err(Wait(1))),
            ("one regained", Kind::BackLogout, "192.0.2.1", 60_000, Ok(())),
        ];
        let mut at = 0;
        for (name, kind, client, millis, wanted) in rows {
            clock.advance(Duration::from_millis(millis - at));
            at = millis;
            assert_eq!(limits.check(&count(kind, client), Take::Nothing).await, wanted, "{name}");
        }
    }

    #[tokio::test]
    async fn do_6_an_ipv6_client_is_its_network() {
        let limits = limits(&Clock::manual(START));
        for number in 0..5 {
            assert_eq!(take(&limits, &format!("2001:db8:0:1::{number:x}")).await, Ok(()));
        }
        assert_eq!(take(&limits, "2001:db8:0:1:ffff::1").await, Err(Wait(60)));
        assert_eq!(take(&limits, "2001:db8:0:2::1").await, Ok(()));
    }

    #[tokio::test]
    async fn whoever_only_looks_takes_nothing_and_leaves_nothing_behind() {
        let limits = limits(&Clock::manual(START));
        for _ in 0..100 {
            assert_eq!(limits.check(&count(Kind::FailedSignIn, "192.0.2.1"), Take::Nothing).await, Ok(()));
        }
        limits.counts.run_pending_tasks();
        assert_eq!(limits.counts.entry_count(), 0);
    }

    #[tokio::test]
    async fn a_newcomer_is_counted_among_any_number_of_those_who_come_all_the_time() {
        let limits = limits(&Clock::manual(START));
        for number in 0..u32::try_from(MAX_COUNTS).unwrap() {
            for _ in 0..4 {
                take(&limits, &IpAddr::from(number.to_be_bytes()).to_string()).await.unwrap();
            }
        }
        limits.counts.run_pending_tasks();
        for _ in 0..5 {
            assert_eq!(take(&limits, "2001:db8::1").await, Ok(()));
            limits.counts.run_pending_tasks();
        }
        assert_eq!(take(&limits, "2001:db8::1").await, Err(Wait(60)));
    }

    #[tokio::test]
    async fn a_flood_of_addresses_takes_no_more_memory_and_forgets_nobody_who_goes_on() {
        let limits = limits(&Clock::manual(START));
        let max = u128::from(MAX_COUNTS);
        for number in 0..2 * max {
            // A whole /48 and more, one address in each of its networks.
            let flooder = Ipv6Addr::from_bits((0x2001_0db8 << 96) + (number << 64));
            take(&limits, &flooder.to_string()).await.unwrap();
            if number % (max / 4) == 0 {
                let wanted = if number < 5 * max / 4 { Ok(()) } else { Err(Wait(60)) };
                assert_eq!(take(&limits, "192.0.2.1").await, wanted, "after {number}");
            }
        }
        limits.counts.run_pending_tasks();
        assert!(limits.counts.entry_count() <= MAX_COUNTS, "{}", limits.counts.entry_count());
    }

    #[tokio::test]
    async fn gateways_on_one_store_count_together_and_ask_it_no_more_once_it_refused() {
        let clock = Clock::manual(START);
        let [(one, peer), (other, _)] = shared(&clock);
        for limits in [&one, &other, &one, &other, &one] {
            assert_eq!(take(limits, "192.0.2.1").await, Ok(()));
        }
        assert_eq!(
            (take(&one, "192.0.2.1").await, take(&other, "192.0.2.1").await),
            (Err(Wait(60)), Err(Wait(60)))
        );
        // A store that is not asked can't fail, and one that fails refuses nobody.
        peer.is_full.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(take(&one, "192.0.2.1").await, Err(Wait(60)), "known here");
        peer.is_full.store(false, std::sync::atomic::Ordering::SeqCst);
        clock.advance(Duration::from_mins(1));
        assert_eq!(take(&one, "192.0.2.1").await, Ok(()));
        assert_eq!(take(&other, "192.0.2.1").await, Err(Wait(60)), "one was regained, for both");
        clock.advance(Duration::from_mins(5));
        for _ in 0..5 {
            assert_eq!(
                take(&other, "192.0.2.1").await,
                Ok(()),
                "what the store refused was not counted here either"
            );
        }
    }

    #[tokio::test]
    async fn while_the_store_is_down_each_gateway_goes_on_with_what_it_counted() {
        let clock = Clock::manual(START);
        let [(one, peer), _] = shared(&clock);
        for _ in 0..3 {
            assert_eq!(take(&one, "192.0.2.1").await, Ok(()));
        }
        peer.is_full.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(take(&one, "192.0.2.1").await, Ok(()), "nobody is refused for want of the store");
        assert_eq!(take(&one, "192.0.2.1").await, Ok(()));
        assert_eq!(take(&one, "192.0.2.1").await, Err(Wait(60)), "and nobody passes uncounted");
    }

    #[tokio::test]
    async fn a_refusal_is_told_once_in_a_span_and_counted_each_time() {
        let clock = Clock::manual(START);
        let limits = limits(&clock);
        for _ in 0..20 {
            take(&limits, "192.0.2.1").await.ok();
        }
        let metrics = limits.events.metrics().render();
        assert!(
            metrics.contains("portcullis_rate_limited_total{limit=\"failed_logouts\"} 15\n"),
            "{metrics}"
        );
        let mut local = Local::new(FIVE, START);
        let rows = [("first", 0, true), ("next", 1, false), ("last", 299, false), ("span over", 300, true)];
        for (name, at, wanted) in rows {
            assert_eq!(local.is_news(FIVE.per, START + Duration::from_secs(at)), wanted, "{name}");
        }
        assert!(local.is_news(FIVE.per, UnixTime::from_secs(1)), "the clock was set back");
    }

    #[test]
    fn what_the_store_refuses_is_not_counted_here_either() {
        let mut local = Local::new(FIVE, START);
        for _ in 0..4 {
            assert_eq!(local.ask(Take::One, START), Duration::ZERO);
        }
        let over = START + Duration::from_mins(1);
        local.close(Take::One, over);
        assert_eq!(local.ask(Take::One, START), Duration::from_mins(1), "closed");
        // Two were left, and one was regained.
        let granted = (0..9).filter(|_| local.ask(Take::One, over).is_zero()).count();
        assert_eq!(granted, 3);
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let mut local = Local::new(FIVE, START);
        local.close(Take::Nothing, START + Duration::from_mins(1));
        let rows = [
            ("closed", START, Duration::from_mins(1)),
            ("almost over", START + Duration::from_secs(59), Duration::from_secs(1)),
            ("over", START + Duration::from_mins(1), Duration::ZERO),
            ("set back by a little", START, Duration::from_mins(1)),
            ("set back by a day", START - Duration::from_hours(24), Duration::ZERO),
        ];
        for (name, now, wanted) in rows {
            assert_eq!(local.ask(Take::Nothing, now), wanted, "{name}");
        }
        while local.bucket.take(START) {}
        let back = START - Duration::from_hours(24);
        assert_eq!(
            local.ask(Take::Nothing, back),
            Duration::from_mins(1),
            "what was counted is regained from there"
        );
    }
}
