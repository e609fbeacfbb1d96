use std::sync::atomic::Ordering::SeqCst;

use futures::future::join_all;

use super::*;
use crate::gateway::rig::{CACHE, IDLE, Owned, Rig, limits};
use crate::gateway::{Refusal, SetCookies};
use crate::policy::Why;
use crate::store::Change;
use crate::store::memory::MemoryStore;
use crate::store::peer::{Peer, pair};

type Verdict = Result<bool, Refusal>;

const SERVED: Verdict = Ok(true);
const GONE: Verdict = Err(Refusal::SignInRequired(Why::NoSession));
const DOWN: Verdict = Err(Refusal::StoreUnavailable);

/// Two gateways on one store, by one clock.
struct Cluster {
    a: Rig,
    b: Rig,
    peers: [Arc<Peer>; 2],
    clock: Clock,
}

impl Cluster {
    fn new(cache: CacheSettings) -> Self {
        let clock = Clock::manual(UnixTime::from_secs(1_800_000_000));
        let peers = pair(MemoryStore::new(clock.clone()));
        let [a, b] = peers.each_ref().map(|peer| {
            let store: Arc<dyn crate::store::SessionStore> = Arc::<Peer>::clone(peer);
            Rig::with(store, clock.clone(), cache)
        });
        Self { a, b, peers, clock }
    }

    /// The cookie of an admin whom both gateways have in memory, and what b serves them.
    async fn signed_in(&self) -> (String, Arc<ReadySession>) {
        let cookie = self.a.sign_in(&["admins"]).await;
        assert_eq!(verdict(&self.a, "/x", &cookie).await, SERVED);
        (cookie.clone(), ready(&self.b, &cookie).await)
    }

    /// Changes the groups of a session, through a.
    async fn regroup(&self, key: StoreKey, groups: &[&str]) {
        let shared = self.a.gateway.shared();
        let lease = shared.store.lease(key, Duration::from_mins(1)).await.unwrap().unwrap();
        let claims = self.a.session(groups).claims;
        let change = |record: &mut Session| record.claims = claims.clone();
        let changed = shared.sessions.rewrite(key, change, &lease, &limits()).await.unwrap();
        assert!(matches!(changed, Replaced::Done(_)));
    }

    /// Nobody hears anything of the other any more.
    fn cut_the_feed(&self) {
        self.peers.iter().for_each(|peer| peer.is_silent.store(true, SeqCst));
    }

    fn reads_of_b(&self) -> usize {
        self.peers[1].take_reads()
    }
}

async fn verdict(rig: &Rig, path: &str, cookie: &str) -> Verdict {
    let request = Owned::get("app.test", path).with_cookie(cookie);
    let plan = rig.gateway.decide(&request.request(), &crate::gateway::LastCookie::default()).await;
    plan.map(|plan| plan.session().is_some())
}

async fn ready(rig: &Rig, cookie: &str) -> Arc<ReadySession> {
    let request = Owned::get("app.test", "/x").with_cookie(cookie);
    let plan = rig.gateway.decide(&request.request(), &crate::gateway::LastCookie::default()).await.unwrap();
    Arc::clone(plan.session().unwrap())
}

/// The verdicts on fifty requests at the same time.
async fn fifty(rig: &Rig, cookie: &str) -> Vec<Verdict> {
    join_all((0..50).map(|_| verdict(rig, "/x", cookie))).await
}

/// Lets the tasks beside the requests do what they can do now.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn sc_159_what_ends_on_one_gateway_ends_on_the_other_with_what_it_serves() {
    let cluster = Cluster::new(CACHE);
    let (cookie, session) = cluster.signed_in().await;
    let index = Index::of_sub("https://op.test", "alice");
    assert_eq!(cluster.a.gateway.shared().sessions.end_by(index, None).await.unwrap(), 1);
    settle().await;
    assert!(session.ended.is_cancelled());
    for rig in [&cluster.a, &cluster.b] {
        assert_eq!(verdict(rig, "/x", &cookie).await, GONE);
    }
}

#[tokio::test]
async fn what_another_gateway_wrote_counts_from_the_next_request_on() {
    let cluster = Cluster::new(CACHE);
    let (cookie, session) = cluster.signed_in().await;
    assert_eq!(verdict(&cluster.b, "/admin", &cookie).await, SERVED);
    cluster.regroup(session.key, &["users"]).await;
    settle().await;
    assert_eq!(verdict(&cluster.b, "/admin", &cookie).await, Err(Refusal::GroupMissing));
    assert!(!session.ended.is_cancelled(), "the session itself lives");
}

#[tokio::test]
async fn where_nothing_is_heard_fifty_requests_ask_once_when_the_word_of_the_store_is_too_old() {
    let cluster = Cluster::new(CACHE);
    let (cookie, session) = cluster.signed_in().await;
    cluster.cut_the_feed();
    cluster.reads_of_b();
    cluster.clock.advance(CACHE.staleness.saturating_sub(Duration::from_millis(1)));
    assert!(fifty(&cluster.b, &cookie).await.iter().all(|verdict| *verdict == SERVED));
    assert_eq!(cluster.reads_of_b(), 0, "not yet");

    cluster.clock.advance(Duration::from_millis(1));
    assert!(fifty(&cluster.b, &cookie).await.iter().all(|verdict| *verdict == SERVED));
    assert_eq!(cluster.reads_of_b(), 1);
    assert!(Arc::ptr_eq(&session, &ready(&cluster.b, &cookie).await), "what is unchanged is not made anew");

    cluster.a.gateway.shared().sessions.end(session.key).await.unwrap();
    assert_eq!(verdict(&cluster.b, "/x", &cookie).await, SERVED, "who hears nothing does not know");
    cluster.clock.advance(CACHE.staleness);
    assert!(fifty(&cluster.b, &cookie).await.iter().all(|verdict| *verdict == GONE));
    assert_eq!(cluster.reads_of_b(), 1, "one question answers them all");
}

#[tokio::test]
async fn with_a_staleness_of_zero_the_store_is_asked_for_each_request() {
    let cluster = Cluster::new(CacheSettings { staleness: Duration::ZERO, ..CACHE });
    let (cookie, session) = cluster.signed_in().await;
    cluster.cut_the_feed();
    cluster.reads_of_b();
    for _ in 0..3 {
        assert_eq!(verdict(&cluster.b, "/x", &cookie).await, SERVED);
    }
    assert_eq!(cluster.reads_of_b(), 3);
    cluster.a.gateway.shared().sessions.end(session.key).await.unwrap();
    assert_eq!(verdict(&cluster.b, "/x", &cookie).await, GONE);
}

#[tokio::test]
async fn a_store_of_its_own_is_not_asked_for_a_session_in_memory() {
    let clock = Clock::manual(UnixTime::from_secs(1_800_000_000));
    let rig = Rig::on(Arc::new(MemoryStore::new(clock.clone())), clock);
    let cookie = rig.sign_in(&[]).await;
    let gets = |rig: &Rig| {
        let text = rig.gateway.shared().events.metrics().render();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("portcullis_store_seconds_count{operation=\"get\"} "));
        line.map_or(0, |count| count.parse::<u32>().unwrap())
    };
    for _ in 0..50 {
        rig.clock.advance(IDLE / 100);
        assert_eq!(verdict(&rig, "/x", &cookie).await, SERVED);
    }
    settle().await;
    // The first, and one for each time that the use was written back.
    assert_eq!(gets(&rig), 1 + 5);
}

#[tokio::test]
async fn after_an_interruption_everything_is_held_against_the_store_and_open_connections_at_once() {
    let cluster = Cluster::new(CACHE);
    let (kept, _) = cluster.signed_in().await;
    let (ended, open) = cluster.signed_in().await;
    let (regrouped, session) = cluster.signed_in().await;
    cluster.cut_the_feed();
    cluster.a.gateway.shared().sessions.end(open.key).await.unwrap();
    cluster.regroup(session.key, &["users"]).await;
    settle().await;
    assert!(!open.ended.is_cancelled());
    let in_use = Arc::clone(&open.ended);

    cluster.peers[1].heard.send(Change::Missed).unwrap();
    settle().await;
    assert!(in_use.is_cancelled(), "without any request");
    for (name, path, cookie, wanted) in [
        ("unchanged", "/admin", &kept, SERVED),
        ("ended", "/x", &ended, GONE),
        ("changed", "/admin", &regrouped, Err(Refusal::GroupMissing)),
    ] {
        assert_eq!(verdict(&cluster.b, path, cookie).await, wanted, "{name}");
    }
}

#[tokio::test]
async fn a_feed_that_was_too_fast_is_an_interruption() {
    let cluster = Cluster::new(CACHE);
    let (cookie, session) = cluster.signed_in().await;
    cluster.cut_the_feed();
    cluster.a.gateway.shared().sessions.end(session.key).await.unwrap();
    for byte in 0..200 {
        let _ = cluster.peers[1].heard.send(Change::Written(StoreKey([byte; 32])));
    }
    settle().await;
    assert_eq!(verdict(&cluster.b, "/x", &cookie).await, GONE);
}

#[tokio::test]
async fn use_of_one_gateway_keeps_a_session_alive_on_the_other() {
    let cluster = Cluster::new(CACHE);
    let (cookie, _) = cluster.signed_in().await;
    for _ in 0..4 {
        cluster.clock.advance(IDLE / 2);
        assert_eq!(verdict(&cluster.b, "/x", &cookie).await, SERVED);
        settle().await;
    }
    let session = ready(&cluster.a, &cookie).await;
    assert_eq!(session.lifetime.times().last_seen, cluster.clock.now(), "and takes over what the other saw");

    // What one of them has not written yet is not lost when it reads what the other wrote.
    cluster.clock.advance(IDLE / 20);
    assert_eq!(verdict(&cluster.a, "/x", &cookie).await, SERVED);
    cluster.regroup(session.key, &["users"]).await;
    cluster.a.gateway.shared().sessions.reread(session.key);
    let anew = ready(&cluster.a, &cookie).await;
    assert_eq!(anew.lifetime.times().last_seen, cluster.clock.now());
}

/// A gateway on a store that can be broken and mended, with somebody in memory and somebody who is not.
struct Outage {
    rig: Rig,
    memory: Arc<MemoryStore>,
    known: String,
    unknown: String,
}

impl Outage {
    async fn new(window: Duration) -> Self {
        let clock = Clock::manual(UnixTime::from_secs(1_800_000_000));
        let memory = Arc::new(MemoryStore::new(clock.clone()));
        let store: Arc<dyn crate::store::SessionStore> = Arc::<MemoryStore>::clone(&memory);
        let rig = Rig::with(store, clock, CacheSettings { outage_window: window, ..CACHE });
        let (known, unknown) = (rig.sign_in(&[]).await, rig.sign_in(&[]).await);
        assert_eq!(verdict(&rig, "/x", &known).await, SERVED);
        Self { rig, memory, known, unknown }
    }

    async fn begin(&self) {
        self.memory.break_down();
        assert!(self.rig.gateway.shared().sessions.read(StoreKey([0; 32])).await.is_err());
    }

    async fn end(&self) {
        self.memory.mend();
        self.rig.gateway.shared().sessions.outage.over().await;
    }

    fn served(&self) -> u64 {
        let text = self.rig.gateway.shared().events.metrics().render();
        let line = text.lines().find_map(|line| line.strip_prefix("portcullis_outage_requests_total "));
        line.unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn sc_155_while_the_store_is_down_memory_serves_for_the_window_and_then_nothing_does() {
    let window = CACHE.outage_window;
    let outage = Outage::new(window).await;
    let (rig, clock) = (&outage.rig, &outage.rig.clock);
    outage.begin().await;
    for _ in 0..3 {
        assert_eq!(verdict(rig, "/x", &outage.known).await, SERVED);
        assert_eq!(verdict(rig, "/optional", &outage.known).await, SERVED);
        assert_eq!(verdict(rig, "/x", &outage.unknown).await, DOWN);
    }
    assert_eq!(verdict(rig, "/token", &outage.known).await, DOWN, "tokens are in the store only");
    assert_eq!(outage.served(), 7);
    clock.advance(window.saturating_sub(Duration::from_millis(1)));
    assert_eq!(verdict(rig, "/x", &outage.known).await, SERVED);
    clock.advance(Duration::from_millis(1));
    assert_eq!(verdict(rig, "/x", &outage.known).await, DOWN);

    outage.end().await;
    for cookie in [&outage.known, &outage.unknown] {
        assert!(fifty(rig, cookie).await.iter().all(|verdict| *verdict == SERVED), "without a restart");
    }
    assert_eq!(outage.served(), 8);
    outage.begin().await;
    assert_eq!(verdict(rig, "/x", &outage.known).await, SERVED, "the next outage has a window of its own");
}

#[tokio::test]
async fn a_window_of_zero_serves_nothing_without_the_store() {
    let outage = Outage::new(Duration::ZERO).await;
    outage.begin().await;
    assert_eq!(verdict(&outage.rig, "/x", &outage.known).await, DOWN);
}

#[tokio::test]
async fn in_an_outage_no_browser_loses_a_cookie() {
    let outage = Outage::new(CACHE.outage_window).await;
    outage.begin().await;
    let cases = [
        ("not in memory", outage.unknown.clone()),
        ("does not open: perhaps sealed by a key that is in the store", "__Host-portcullis=junk".to_owned()),
        ("nobody", String::new()),
    ];
    for (name, cookie) in cases {
        let request = Owned::get("app.test", "/x").with_cookie(&cookie);
        let request = request.with("accept", "text/html").with("sec-fetch-mode", "navigate");
        let refusal = outage
            .rig
            .gateway
            .decide(&request.request(), &crate::gateway::LastCookie::default())
            .await
            .map(|_| ())
            .unwrap_err();
        let mut cookies = SetCookies::default();
        let (reply, refusal) = outage.rig.gateway.refuse(&request.request(), refusal, &mut cookies).await;
        assert_eq!((reply.status.as_u16(), refusal), (503, Refusal::StoreUnavailable), "{name}");
        assert!(reply.headers.contains_key("retry-after"), "{name}");
        assert!(cookies.0.is_empty(), "{name}: {cookies:?}");
    }
}

#[tokio::test]
async fn a_session_that_looks_over_in_an_outage_may_have_been_used_elsewhere() {
    let outage = Outage::new(Duration::from_hours(1)).await;
    outage.begin().await;
    outage.rig.clock.advance(IDLE);
    assert_eq!(verdict(&outage.rig, "/x", &outage.known).await, DOWN);
    outage.end().await;
    let over = Err(Refusal::SignInRequired(Why::Expired));
    assert_eq!(verdict(&outage.rig, "/x", &outage.known).await, over);
}

#[tokio::test]
async fn a_session_that_ended_here_does_not_come_back_with_an_outage() {
    let cluster = Cluster::new(CACHE);
    let (cookie, session) = cluster.signed_in().await;
    cluster.b.gateway.shared().sessions.end(session.key).await.unwrap();
    cluster.peers[0].memory.break_down();
    assert!(verdict(&cluster.b, "/x", &cookie).await.is_err());
}

#[tokio::test]
async fn a_sign_out_that_the_store_did_not_take_ends_nothing() {
    let outage = Outage::new(CACHE.outage_window).await;
    let session = ready(&outage.rig, &outage.known).await;
    outage.begin().await;
    assert!(outage.rig.gateway.shared().sessions.end(session.key).await.is_err());
    assert!(!session.ended.is_cancelled());
    assert_eq!(verdict(&outage.rig, "/x", &outage.known).await, SERVED);
}

#[tokio::test]
async fn an_interrupted_feed_and_a_store_that_is_down_are_one_outage() {
    let cluster = Cluster::new(CACHE);
    let (cookie, session) = cluster.signed_in().await;
    cluster.peers[0].memory.break_down();
    cluster.peers[1].heard.send(Change::Missed).unwrap();
    settle().await;
    assert_eq!(verdict(&cluster.b, "/x", &cookie).await, SERVED, "within the window");
    assert!(!session.ended.is_cancelled());
    cluster.clock.advance(CACHE.outage_window);
    assert_eq!(verdict(&cluster.b, "/x", &cookie).await, DOWN);
    cluster.peers[0].memory.mend();
    cluster.b.gateway.shared().sessions.outage.over().await;
    assert_eq!(verdict(&cluster.b, "/x", &cookie).await, SERVED);
}

#[tokio::test]
async fn a_session_whose_record_cannot_be_read_has_the_window_and_no_more() {
    let cluster = Cluster::new(CACHE);
    let (cookie, session) = cluster.signed_in().await;
    let (other, _) = cluster.signed_in().await;
    *cluster.peers[1].damaged.lock().unwrap() = Some(session.key);
    cluster.clock.advance(CACHE.staleness);
    let outage = &cluster.b.gateway.shared().sessions.outage;
    assert_eq!(verdict(&cluster.b, "/x", &cookie).await, SERVED);
    outage.over().await;
    cluster.clock.advance(CACHE.outage_window);
    for (cookie, wanted) in [(&cookie, DOWN), (&other, SERVED)] {
        assert_eq!(verdict(&cluster.b, "/x", cookie).await, wanted);
        outage.over().await;
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_lengthens_no_window_and_no_belief() {
    let clock = Clock::manual(UnixTime::from_secs(1_800_000_000));
    let outage = Outage::new(CACHE.outage_window).await;
    outage.begin().await;
    let sessions = &outage.rig.gateway.shared().sessions;
    let now = outage.rig.clock.now();
    let session = sessions.ready.iter().next().unwrap().1;
    assert!(sessions.is_in_window(&session, now));
    assert!(!sessions.is_in_window(&session, now - Duration::from_hours(1)));
    let trust = Trust::new(Question { doubts: 0, generation: 0, at: clock.now() });
    assert!(trust.is_recent(CACHE.staleness, clock.now()));
    assert!(!trust.is_recent(CACHE.staleness, clock.now() - Duration::from_millis(1)));
}
