//! Gateways that make keys together.

use super::*;
use crate::gateway::Refusal;
use crate::gateway::rig::{Owned, Rig};
use crate::policy::Why;
use crate::session::Purpose;
use crate::session::seal::{cookie_key, open_cookie, open_record, seal_cookie};
use crate::store::memory::MemoryStore;
use crate::store::observed::ObservedStore;

const DAY: Duration = Duration::from_hours(24);
const ROTATION: Rotation =
    Rotation { every: Some(Duration::from_hours(90 * 24)), life: Duration::from_hours(13), delay: DELAY };

/// Gateways with one store.
struct Bench {
    clock: Clock,
    store: Arc<dyn SessionStore>,
    events: Events,
}

impl Bench {
    fn new() -> Self {
        let clock = Clock::manual(UnixTime::from_secs(1_800_000_000));
        let events = Events::quiet();
        let memory = Arc::new(MemoryStore::new(clock.clone()));
        Self { store: Arc::new(ObservedStore::new(memory, events.clone())), clock, events }
    }

    fn gateway(&self, roots: &[u8]) -> Gateway {
        Gateway::on(Arc::clone(&self.store), roots, &self.clock)
    }

    /// How often the store was read.
    fn reads(&self) -> usize {
        let text = self.events.metrics().render();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("portcullis_store_seconds_count{operation=\"get\"} "));
        line.map_or(0, |count| count.parse().unwrap())
    }
}

/// A store that does not answer.
fn down(clock: &Clock) -> Arc<dyn SessionStore> {
    let memory = MemoryStore::new(clock.clone());
    memory.break_down();
    Arc::new(memory)
}

struct Gateway {
    ring: Arc<KeyRing>,
    keys: Arc<SharedKeys>,
}

fn root(byte: u8) -> Key {
    Key::from_bytes([byte; 32])
}

impl Gateway {
    fn on(store: Arc<dyn SessionStore>, roots: &[u8], clock: &Clock) -> Self {
        let roots: Vec<_> = roots.iter().copied().map(root).collect();
        let ring = Arc::new(KeyRing::new(&roots).unwrap());
        let around = (clock.clone(), Events::quiet(), Handle::current());
        let keys = SharedKeys::new(store, Arc::clone(&ring), &roots, ROTATION, around).unwrap();
        Self { ring, keys: Arc::new(keys) }
    }

    fn seal(&self) -> String {
        seal_cookie(&self.ring, Purpose::SessionCookie, "c", "h", b"x").unwrap()
    }

    fn opens(&self, value: &str) -> bool {
        open_cookie(&self.ring, Purpose::SessionCookie, "c", "h", value.as_bytes()).is_ok()
    }

    async fn keep_up(&self) {
        self.keys.keep_up().await.unwrap();
    }

    async fn learn(&self, value: &str) -> Result<(), StoreError> {
        self.keys.learn(cookie_key(value.as_bytes()).unwrap()).await
    }
}

#[tokio::test]
async fn a_key_that_one_gateway_makes_opens_everywhere_and_seals_when_all_had_time_to_hear_of_it() {
    let bench = Bench::new();
    let (one, two) = (bench.gateway(&[1]), bench.gateway(&[1]));
    one.keep_up().await;
    two.keep_up().await;
    assert_eq!(one.ring.ids(), two.ring.ids());
    assert_eq!((one.ring.sealing_id(), one.ring.ids().len()), (root(1).id, 2));
    let before = one.seal();
    bench.clock.advance(DELAY);
    one.keep_up().await;
    let made = one.seal();
    assert_ne!(one.ring.sealing_id(), root(1).id);
    assert!(two.opens(&made), "before it looked again");
    two.keep_up().await;
    assert_eq!(one.ring.ids(), two.ring.ids());
    assert!(two.opens(&before), "what the root key sealed");
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_make_a_key_at_the_same_moment_agree_on_one() {
    let bench = Bench::new();
    for round in 1..=100 {
        let gateways: Vec<_> = (0..3).map(|_| bench.gateway(&[1])).collect();
        let start = Arc::new(tokio::sync::Barrier::new(3));
        let keep_up = |gateway: &Gateway| {
            let (keys, start) = (Arc::clone(&gateway.keys), Arc::clone(&start));
            Handle::current().spawn(async move {
                start.wait().await;
                // Who comes second takes what the first one has made, or is told to come again.
                while let Err(error) = keys.keep_up().await {
                    assert!(matches!(error, SharedKeysError::Busy), "{error}");
                    tokio::task::yield_now().await;
                }
            })
        };
        for task in gateways.iter().map(keep_up).collect::<Vec<_>>() {
            task.await.unwrap();
        }
        for gateway in &gateways {
            gateway.keep_up().await;
        }
        // One was made in this round, and the one of the last round still opens.
        let made = 1.max(2.min(round));
        assert_eq!(gateways[0].ring.ids().len(), 1 + made, "round {round}");
        assert!(gateways.iter().all(|gateway| gateway.ring.ids() == gateways[0].ring.ids()), "round {round}");
        bench.clock.advance(90 * DAY);
    }
}

#[tokio::test]
async fn a_key_by_age_or_by_hand_follows_and_the_old_one_goes_when_what_it_sealed_is_over() {
    for by_hand in [false, true] {
        let bench = Bench::new();
        let (one, two) = (bench.gateway(&[1]), bench.gateway(&[1]));
        one.keep_up().await;
        bench.clock.advance(DAY);
        one.keep_up().await;
        let first = one.ring.sealing_id();
        if by_hand {
            one.keys.rotate().await.unwrap();
        } else {
            bench.clock.advance(89 * DAY);
            one.keep_up().await;
        }
        two.keep_up().await;
        assert_eq!((two.ring.sealing_id(), two.ring.ids().len()), (first, 3), "by hand: {by_hand}");
        bench.clock.advance(DELAY);
        two.keep_up().await;
        assert_ne!(two.ring.sealing_id(), first, "by hand: {by_hand}");
        assert!(two.ring.has(first), "by hand: {by_hand}");
        bench.clock.advance(ROTATION.life);
        two.keep_up().await;
        assert!(!two.ring.has(first), "by hand: {by_hand}");
    }
}

#[tokio::test]
async fn a_gateway_that_meets_a_key_that_it_does_not_know_asks_at_once() {
    let bench = Bench::new();
    let (one, late) = (bench.gateway(&[1]), bench.gateway(&[1]));
    one.keep_up().await;
    bench.clock.advance(DELAY);
    one.keep_up().await;
    let value = one.seal();
    assert!(!late.opens(&value));
    late.learn(&value).await.unwrap();
    assert!(late.opens(&value));
    let reads = bench.reads();
    late.learn(&value).await.unwrap();
    assert_eq!(bench.reads(), reads, "what is known is not asked for");
}

#[tokio::test]
async fn a_hundred_thousand_cookies_with_keys_that_nobody_made_cause_a_few_reads() {
    let bench = Bench::new();
    let gateway = bench.gateway(&[1]);
    gateway.keep_up().await;
    let reads = bench.reads();
    for number in 0..100_000_u32 {
        gateway.keys.learn(KeyId::for_tests(number.to_be_bytes())).await.unwrap();
    }
    assert_eq!(bench.reads() - reads, 3);
    bench.clock.advance(ASKS.1);
    for number in 0..1000_u32 {
        gateway.keys.learn(KeyId::for_tests(number.to_be_bytes())).await.unwrap();
    }
    assert_eq!(bench.reads() - reads, 4);
}

#[tokio::test]
async fn a_root_key_that_is_gone_takes_with_it_what_was_made_under_it() {
    let bench = Bench::new();
    let gateway = bench.gateway(&[1]);
    gateway.keep_up().await;
    let by_root = gateway.seal();
    bench.clock.advance(DELAY);
    gateway.keep_up().await;
    let by_made = gateway.seal();
    gateway.keys.replace_roots(&[root(2), root(1)]).unwrap();
    gateway.keep_up().await;
    for value in [&by_root, &by_made, &gateway.seal()] {
        assert!(gateway.opens(value));
    }
    bench.clock.advance(DELAY);
    gateway.keep_up().await;
    let anew = gateway.seal();
    gateway.keys.replace_roots(&[root(2)]).unwrap();
    let verdicts = |gateway: &Gateway| [&by_root, &by_made, &anew].map(|value| gateway.opens(value));
    assert_eq!(verdicts(&gateway), [false, false, true]);
    gateway.keep_up().await;
    assert_eq!(verdicts(&gateway), [false, false, true]);
    let fresh = bench.gateway(&[2]);
    fresh.keep_up().await;
    assert_eq!(verdicts(&fresh), [false, false, true], "nor by a restart");
}

#[tokio::test]
async fn a_record_that_is_lost_or_spoilt_is_written_anew_with_the_keys_that_are_known() {
    let bench = Bench::new();
    let (one, two) = (bench.gateway(&[1]), bench.gateway(&[1]));
    one.keep_up().await;
    two.keep_up().await;
    let place = one.keys.state().roots[0].place();
    for name in ["lost", "spoilt"] {
        let ids = one.ring.ids();
        if name == "lost" {
            assert!(bench.store.remove(place).await.unwrap());
        } else {
            let record = Record { key: place, indexes: Vec::new(), payload: vec![1; 200].into() };
            bench.store.put(record, DAY).await.unwrap();
        }
        one.keep_up().await;
        two.keep_up().await;
        let other = bench.gateway(&[1]);
        other.keep_up().await;
        for gateway in [&one, &two, &other] {
            assert_eq!(gateway.ring.ids(), ids, "{name}");
        }
    }
}

#[tokio::test]
async fn the_record_is_no_session_and_shows_nothing() {
    let bench = Bench::new();
    let gateway = bench.gateway(&[1]);
    gateway.keep_up().await;
    let page = bench.store.list(None, 10).await.unwrap();
    let [stored] = page.records.as_slice() else { panic!("{page:?}") };
    assert!(stored.record.indexes.is_empty());
    assert!(open_record(&gateway.ring, &stored.record.key.0, &stored.record.payload).is_err());
    assert!(
        open_record(&KeyRing::new(&[root(1)]).unwrap(), &stored.record.key.0, &stored.record.payload)
            .is_err()
    );
    let elsewhere = KeyRing::new(&[root(2)]).unwrap();
    assert!(open_keys(&elsewhere, &stored.record.key.0, &stored.record.payload).is_err());
}

#[tokio::test]
async fn an_outage_changes_nothing_and_makes_no_key_unknown() {
    let bench = Bench::new();
    let gateway = bench.gateway(&[1]);
    gateway.keep_up().await;
    let down = Gateway::on(down(&bench.clock), &[1], &bench.clock);
    let ids = down.ring.ids();
    assert!(matches!(down.keys.keep_up().await, Err(SharedKeysError::Store(_))));
    assert_eq!(down.ring.ids(), ids);
    for _ in 0..20 {
        assert!(down.keys.learn(KeyId::for_tests([9; 4])).await.is_err(), "whose key it is can't be told");
    }
    down.learn(&down.seal()).await.unwrap();
}

/// A gateway on a store whose ring has keys that others make too; its root key is the rig's.
fn rig(store: &Arc<dyn SessionStore>, clock: &Clock) -> (Rig, Arc<SharedKeys>) {
    let rig = Rig::on(Arc::clone(store), clock.clone());
    let own = Arc::clone(&rig.gateway.shared().keys);
    let roots = [Key::from_bytes(*b"0123456789abcdefghijklmnopqrstuv")];
    assert_eq!(own.ids(), [roots[0].id]);
    let around = (clock.clone(), Events::quiet(), Handle::current());
    let keys = Arc::new(SharedKeys::new(Arc::clone(store), own, &roots, ROTATION, around).unwrap());
    rig.gateway.shared().sessions.share_keys_with(Arc::clone(&keys));
    (rig, keys)
}

async fn verdict(rig: &Rig, cookie: &str) -> Result<bool, Refusal> {
    let request = Owned::get("app.test", "/x").with_cookie(cookie).with("accept", "text/html");
    let plan = rig.gateway.decide(&request.request(), &crate::gateway::LastCookie::default()).await;
    plan.map(|plan| plan.session().is_some())
}

#[tokio::test]
async fn a_cookie_or_a_record_of_a_key_that_only_another_gateway_knows_is_learned_and_counts() {
    let bench = Bench::new();
    let (one, keys) = rig(&bench.store, &bench.clock);
    keys.keep_up().await.unwrap();
    bench.clock.advance(DELAY);
    keys.keep_up().await.unwrap();
    let session = one.session(&[]);
    let limits = one.gateway.settings().reading.limits;
    let id = one.gateway.shared().sessions.begin(&session, &limits).await.unwrap();
    let by_made = one.cookie(&id, "app.test");
    let (two, _) = rig(&bench.store, &bench.clock);
    let by_root = two.cookie(&id, "app.test");
    assert_eq!(verdict(&two, &by_made).await, Ok(true), "the cookie");
    let (three, _) = rig(&bench.store, &bench.clock);
    assert_eq!(verdict(&three, &by_root).await, Ok(true), "the record");
    let nobodys = Rig::on(Arc::clone(&bench.store), bench.clock.clone());
    nobodys.gateway.shared().keys.replace(&[root(77)]).unwrap();
    let forged = nobodys.cookie(&id, "app.test");
    assert_eq!(verdict(&two, &forged).await, Err(Refusal::SignInRequired(Why::BadCredential)));
}

#[tokio::test]
async fn no_cookie_is_cleared_whose_key_cannot_be_asked_for() {
    let bench = Bench::new();
    let (one, keys) = rig(&bench.store, &bench.clock);
    keys.keep_up().await.unwrap();
    bench.clock.advance(DELAY);
    keys.keep_up().await.unwrap();
    let cookie = one.sign_in(&[]).await;
    let (cut_off, _) = rig(&down(&bench.clock), &bench.clock);
    for _ in 0..10 {
        assert_eq!(verdict(&cut_off, &cookie).await, Err(Refusal::StoreUnavailable));
    }
    let (back, keys) = rig(&bench.store, &bench.clock);
    keys.keep_up().await.unwrap();
    assert_eq!(verdict(&back, &cookie).await, Ok(true));
}
