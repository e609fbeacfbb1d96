//! One contract suite for every store.
//!
//! A backend takes part with a module that calls `for_each_case!` with an expression which opens a
//! [`Fixture`]: every case then runs as a test of its own, on a fresh store of that backend.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Cursor, Index, Lease, Page, Record, Replaced, SessionStore, StoreKey, Stored, Take, Taken};
use crate::clock::bucket::Rate;
use crate::clock::{Clock, UnixTime};
use crate::telemetry::Events;

/// A fresh, empty store of one backend, and what the suite needs around it.
pub(super) struct Fixture {
    pub(super) store: Arc<dyn SessionStore>,
    pub(super) ground: Box<dyn Ground>,
}

/// What a store stands on.
#[async_trait]
pub(super) trait Ground: Send + Sync {
    /// The present moment, as the store's records have it.
    fn now(&self) -> UnixTime;

    /// Moves the time that the store goes by.
    async fn advance(&self, by: Duration);

    /// How many rows of any kind the backend keeps, indexes and bookkeeping included: zero when nothing is
    /// stored.
    async fn rows(&self) -> usize;

    /// How long before and after the end of something the suite asks whether it is there: more than a case
    /// takes, where the time of the store goes on meanwhile.
    fn moment(&self) -> Duration {
        Duration::from_millis(1)
    }

    /// The prefix of its keys and the addresses of its servers, where it is in Redis.
    fn place(&self) -> Option<(String, Vec<String>)> {
        None
    }

    /// How long after its end something may still take room.
    fn lingers(&self) -> Duration {
        Duration::ZERO
    }
}

/// A store of this process, whose time is the clock of the suite.
struct Own<F> {
    clock: Clock,
    rows: F,
    /// What must live as long as the store, such as its directory.
    _guard: Option<tempfile::TempDir>,
}

#[async_trait]
impl<F: Fn() -> usize + Send + Sync> Ground for Own<F> {
    fn now(&self) -> UnixTime {
        self.clock.now()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn rows(&self) -> usize {
        (self.rows)()
    }
}

const START: UnixTime = UnixTime::from_secs(1_000_000);
const MINUTE: Duration = Duration::from_mins(1);
const ALMOST_AN_HOUR: Duration = Duration::from_mins(59);
const HOUR: Duration = Duration::from_hours(1);

/// Hands the names of all cases to the macro `$each`: the one list of them.
macro_rules! for_each_case {
    ($each:ident, $open:expr) => {
        $each! { $open,
            a_record_is_read_back_as_it_was_put
            records_of_any_size_are_read_back
            a_key_that_was_never_put_is_absent
            a_put_over_a_record_starts_again_at_version_one_with_its_own_indexes_and_end
            a_replace_with_the_version_that_was_read_writes_the_next
            a_replace_with_another_version_changes_nothing
            a_replace_of_a_record_that_is_gone_writes_nothing
            of_concurrent_replaces_one_wins
            a_replace_keeps_drops_and_adds_indexes
            a_replace_moves_the_end_either_way
            a_replace_under_a_lease_needs_that_lease
            a_removed_record_is_gone_and_removed_once
            all_sessions_of_a_user_are_found
            a_sub_never_matches_a_sid
            an_index_named_twice_counts_once
            remove_by_one_index_removes_what_is_under_it_and_nothing_else
            remove_by_two_indexes_removes_what_is_under_both
            remove_by_says_only_what_was_live
            a_mark_lasts_for_its_time
            a_later_mark_only_lengthens
            put_once_is_won_once_until_it_ends
            put_once_and_mark_see_each_other
            of_concurrent_put_onces_one_wins
            a_lease_has_one_holder_until_it_ends
            of_concurrent_leases_one_is_granted
            fences_grow_with_every_lease_of_a_key
            a_lease_is_extended_by_its_holder_only
            extending_a_lease_never_shortens_it
            a_released_lease_can_be_taken_and_the_old_one_changes_nothing
            a_lease_that_ran_out_changes_nothing_for_its_old_holder
            what_others_share_is_counted_and_nothing_else
            what_was_taken_of_a_rate_comes_back_one_by_one
            of_concurrent_takes_as_many_are_granted_as_there_are
            records_marks_and_leases_under_one_key_do_not_meet
            every_record_is_on_a_page_and_the_pages_end
            a_record_that_lives_all_the_while_is_on_a_page
            pages_skip_what_has_ended
            the_page_after_a_cursor_is_there_again
            a_cursor_of_no_store_is_an_error
            a_page_for_nothing_is_a_page_for_one
            what_has_ended_is_absent_everywhere
            nothing_lives_for_no_time
            the_longest_time_is_the_end_of_time
            nothing_is_left_when_all_is_removed
            what_has_ended_is_swept_by_the_writes_that_follow
            a_store_that_works_answers_a_ping
        }
    };
}

macro_rules! tests_of {
    ($open:expr, $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(&$open).await;
            }
        )*
    };
}

mod memory {
    for_each_case!(tests_of, super::memory_fixture());
}

mod disk {
    for_each_case!(tests_of, super::disk_fixture());
}

mod observed {
    for_each_case!(tests_of, super::observed_fixture());
}

mod redis {
    for_each_case!(tests_of, crate::store::redis::tests::single());
}

mod redis_cluster {
    for_each_case!(tests_of, crate::store::redis::tests::cluster());
}

/// Over TLS, as the user that the docs give.
mod redis_tls {
    for_each_case!(tests_of, crate::store::redis::tests::tls());
}

fn memory_fixture() -> Fixture {
    let clock = Clock::manual(START);
    let store = Arc::new(super::memory::MemoryStore::new(clock.clone()));
    let counted = Arc::clone(&store);
    let ground = Own { clock, rows: move || counted.rows(), _guard: None };
    Fixture { store, ground: Box::new(ground) }
}

fn observed_fixture() -> Fixture {
    let memory = memory_fixture();
    let store = super::observed::ObservedStore::new(Arc::clone(&memory.store), Events::quiet());
    Fixture { store: Arc::new(store), ..memory }
}

fn disk_fixture() -> Fixture {
    let (clock, directory) = (Clock::manual(START), tempfile::tempdir().unwrap());
    let runtime = tokio::runtime::Handle::current();
    let store = super::disk::DiskStore::open(directory.path(), clock.clone(), runtime).unwrap();
    let store = Arc::new(store);
    let counted = Arc::clone(&store);
    let ground = Own { clock, rows: move || counted.rows(), _guard: Some(directory) };
    Fixture { store, ground: Box::new(ground) }
}

impl Fixture {
    async fn advance(&self, by: Duration) {
        self.ground.advance(by).await;
    }

    async fn rows(&self) -> usize {
        self.ground.rows().await
    }

    fn moment(&self) -> Duration {
        self.ground.moment()
    }

    /// Checks that a record is there as it was written, and lives for `ttl` from now.
    fn check(&self, stored: Option<&Stored>, record: &Record, version: u64, ttl: Duration) {
        let stored = stored.unwrap_or_else(|| panic!("it is absent: {record:?}"));
        assert_eq!((&stored.record, stored.version), (record, version));
        let end = self.ground.now() + ttl;
        assert!(stored.expires_at <= end && end.since(stored.expires_at) < self.moment(), "{stored:?}");
    }

    async fn put(&self, record: Record, ttl: Duration) {
        self.store.put(record, ttl).await.unwrap();
    }

    async fn get(&self, key: StoreKey) -> Option<Stored> {
        self.store.get(key).await.unwrap()
    }

    async fn found(&self, index: Index) -> Vec<(StoreKey, u64)> {
        let mut found = self.store.find_by(index).await.unwrap();
        found.sort_unstable();
        found
    }

    async fn is_marked(&self, key: StoreKey) -> bool {
        self.store.is_marked(key).await.unwrap()
    }

    async fn lease(&self, key: StoreKey, ttl: Duration) -> Option<Lease> {
        self.store.lease(key, ttl).await.unwrap()
    }

    /// Puts so much that ends a moment before `ttl` that the next few writes sweep nothing else: what
    /// has ended must be absent for those who come before the sweep, too.
    async fn keep_the_sweep_busy(&self, ttl: Duration) {
        let marks = (1000..1150).map(|n| self.store.mark(key(n), ttl.saturating_sub(self.moment())));
        futures::future::try_join_all(marks).await.unwrap();
    }

    async fn page(&self, cursor: Option<Cursor>, limit: usize) -> Page {
        self.store.list(cursor, limit).await.unwrap()
    }

    /// What is on the page of a cursor and on those after it.
    async fn pages_from(&self, mut cursor: Option<Cursor>, limit: usize) -> BTreeMap<StoreKey, Stored> {
        let mut listed = BTreeMap::new();
        for _ in 0..100 {
            let page = self.page(cursor, limit).await;
            listed.extend(page.records.into_iter().map(|stored| (stored.record.key, stored)));
            cursor = page.next;
            if cursor.is_none() {
                return listed;
            }
        }
        panic!("the pages don't end");
    }

    async fn listed(&self, limit: usize) -> Vec<StoreKey> {
        self.pages_from(None, limit).await.into_keys().collect()
    }
}

fn key(n: u32) -> StoreKey {
    StoreKey::derive("test", &[&n.to_be_bytes()])
}

/// A key whose place in the order of keys is `n`.
fn nth(n: u8) -> StoreKey {
    StoreKey([n; 32])
}

fn record(key: StoreKey, indexes: &[Index], payload: &'static str) -> Record {
    Record { key, indexes: indexes.to_vec(), payload: Bytes::from_static(payload.as_bytes()) }
}

fn alice() -> Index {
    Index::of_sub("https://op.test", "alice")
}

fn bob() -> Index {
    Index::of_sub("https://op.test", "bob")
}

fn sid(n: u32) -> Index {
    Index::of_sid("https://op.test", &n.to_string())
}

async fn a_record_is_read_back_as_it_was_put(on: &Fixture) {
    let written = record(key(1), &[alice(), sid(1)], "sealed");
    on.put(written.clone(), HOUR).await;
    on.check(on.get(key(1)).await.as_ref(), &written, 1, HOUR);
}

async fn records_of_any_size_are_read_back(on: &Fixture) {
    let sizes = [("empty", 0), ("a page", 4096), ("large", 1 << 20)];
    for (n, (name, bytes)) in (1..).zip(sizes) {
        let payload = Bytes::from(vec![n; bytes]);
        on.put(Record { key: nth(n), indexes: Vec::new(), payload: payload.clone() }, HOUR).await;
        assert_eq!(on.get(nth(n)).await.unwrap().record.payload, payload, "{name}");
    }
}

async fn a_key_that_was_never_put_is_absent(on: &Fixture) {
    on.put(record(key(1), &[alice()], "sealed"), HOUR).await;
    assert_eq!(on.get(key(2)).await, None);
    assert_eq!(on.found(bob()).await, []);
    assert!(!on.is_marked(key(1)).await);
}

async fn a_put_over_a_record_starts_again_at_version_one_with_its_own_indexes_and_end(on: &Fixture) {
    on.put(record(key(1), &[alice()], "old"), HOUR).await;
    on.store.replace(record(key(1), &[alice()], "older"), HOUR, 1, None).await.unwrap();
    let new = record(key(1), &[bob()], "new");
    on.put(new.clone(), MINUTE).await;
    on.check(on.get(key(1)).await.as_ref(), &new, 1, MINUTE);
    assert_eq!(on.found(alice()).await, []);
    assert_eq!(on.found(bob()).await, [(key(1), 1)]);
}

async fn a_replace_with_the_version_that_was_read_writes_the_next(on: &Fixture) {
    on.put(record(key(1), &[alice()], "one"), MINUTE).await;
    for version in 1..4 {
        let new = record(key(1), &[alice()], "next");
        let replaced = on.store.replace(new.clone(), HOUR, version, None).await.unwrap();
        assert_eq!(replaced, Replaced::Done(version + 1));
        on.check(on.get(key(1)).await.as_ref(), &new, version + 1, HOUR);
        assert_eq!(on.found(alice()).await, [(key(1), version + 1)]);
    }
}

async fn a_replace_with_another_version_changes_nothing(on: &Fixture) {
    on.put(record(key(1), &[alice()], "one"), HOUR).await;
    on.store.replace(record(key(1), &[alice()], "two"), HOUR, 1, None).await.unwrap();
    let before = record(key(1), &[alice()], "two");
    for (name, version) in [("zero", 0), ("older", 1), ("newer", 3), ("largest", u64::MAX)] {
        let replaced = on.store.replace(record(key(1), &[bob()], "lost"), MINUTE, version, None).await;
        assert_eq!(replaced.unwrap(), Replaced::Conflict, "{name}");
        on.check(on.get(key(1)).await.as_ref(), &before, 2, HOUR);
        assert_eq!(on.found(bob()).await, [], "{name}");
    }
}

async fn a_replace_of_a_record_that_is_gone_writes_nothing(on: &Fixture) {
    on.keep_the_sweep_busy(MINUTE).await;
    on.put(record(key(2), &[alice()], "removed"), HOUR).await;
    on.store.remove(key(2)).await.unwrap();
    on.put(record(key(3), &[alice()], "ended"), MINUTE).await;
    on.advance(MINUTE).await;
    for (name, key) in [("never put", key(1)), ("removed", key(2)), ("ended", key(3))] {
        let replaced = on.store.replace(record(key, &[alice()], "lost"), HOUR, 1, None).await;
        assert_eq!(replaced.unwrap(), Replaced::Gone, "{name}");
        assert_eq!(on.get(key).await, None, "{name}");
    }
    assert_eq!(on.found(alice()).await, []);
}

async fn of_concurrent_replaces_one_wins(on: &Fixture) {
    on.put(record(key(1), &[], "one"), HOUR).await;
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let store = Arc::clone(&on.store);
        tasks.spawn(async move { store.replace(record(key(1), &[], "two"), HOUR, 1, None).await.unwrap() });
    }
    let mut results = tasks.join_all().await;
    results.sort_unstable_by_key(|replaced| *replaced == Replaced::Conflict);
    assert_eq!(results[0], Replaced::Done(2));
    assert_eq!(results[1..], [Replaced::Conflict; 15]);
}

async fn a_replace_keeps_drops_and_adds_indexes(on: &Fixture) {
    on.put(record(key(1), &[alice(), sid(1)], "one"), HOUR).await;
    on.store.replace(record(key(1), &[alice(), sid(2)], "two"), HOUR, 1, None).await.unwrap();
    assert_eq!(on.found(alice()).await, [(key(1), 2)], "kept");
    assert_eq!(on.found(sid(1)).await, [], "dropped");
    assert_eq!(on.found(sid(2)).await, [(key(1), 2)], "added");
}

async fn a_replace_moves_the_end_either_way(on: &Fixture) {
    for (n, first, then) in [(1, MINUTE, HOUR), (2, HOUR, MINUTE)] {
        on.put(record(key(n), &[], "one"), first).await;
        on.store.replace(record(key(n), &[], "two"), then, 1, None).await.unwrap();
    }
    on.advance(MINUTE).await;
    assert!(on.get(key(1)).await.is_some(), "lengthened");
    assert_eq!(on.get(key(2)).await, None, "shortened");
    // What the first, shorter end has left behind must not take the record away.
    on.put(record(key(3), &[], "sweeps"), HOUR).await;
    assert!(on.get(key(1)).await.is_some(), "swept");
}

async fn a_replace_under_a_lease_needs_that_lease(on: &Fixture) {
    on.keep_the_sweep_busy(MINUTE).await;
    on.put(record(key(1), &[], "one"), HOUR).await;
    let lost = on.lease(key(1), MINUTE).await.unwrap();
    on.advance(MINUTE).await;
    let try_with = async |version, lease: &Lease| {
        on.store.replace(record(key(1), &[], "two"), HOUR, version, Some(lease)).await.unwrap()
    };
    assert_eq!(try_with(1, &lost).await, Replaced::Conflict, "ran out, not taken again");
    let held = on.lease(key(1), MINUTE).await.unwrap();
    assert_eq!(try_with(1, &lost).await, Replaced::Conflict, "an older fence");
    let later = Lease { fence: held.fence + 1, ..held };
    assert_eq!(try_with(1, &later).await, Replaced::Conflict, "a fence that was never granted");
    let elsewhere = Lease { key: key(8), ..held };
    assert_eq!(try_with(1, &elsewhere).await, Replaced::Conflict, "that was never granted on another key");
    let elsewhere = on.lease(key(8), MINUTE).await.unwrap();
    assert_eq!(try_with(1, &elsewhere).await, Replaced::Conflict, "held, on another key");
    assert_eq!(try_with(7, &held).await, Replaced::Conflict, "the lease does not excuse the version");
    assert_eq!(on.get(key(1)).await.unwrap().record.payload, "one");
    assert_eq!(try_with(1, &held).await, Replaced::Done(2), "held");
    on.store.release(held.clone()).await.unwrap();
    assert_eq!(try_with(2, &held).await, Replaced::Conflict, "given back");
}

async fn a_removed_record_is_gone_and_removed_once(on: &Fixture) {
    on.keep_the_sweep_busy(MINUTE).await;
    on.put(record(key(1), &[alice()], "one"), HOUR).await;
    on.put(record(key(2), &[alice()], "ended"), MINUTE).await;
    on.advance(MINUTE).await;
    assert!(on.store.remove(key(1)).await.unwrap(), "there");
    assert!(!on.store.remove(key(1)).await.unwrap(), "a second time");
    assert!(!on.store.remove(key(2)).await.unwrap(), "ended");
    assert!(!on.store.remove(key(3)).await.unwrap(), "never put");
    assert_eq!(on.get(key(1)).await, None);
    assert_eq!(on.found(alice()).await, []);
}

async fn all_sessions_of_a_user_are_found(on: &Fixture) {
    let mut expected = Vec::new();
    for n in 0..20 {
        let of = if n % 2 == 0 { alice() } else { bob() };
        on.put(record(key(n), &[of, sid(n)], "one"), HOUR).await;
        if n % 2 == 0 {
            expected.push((key(n), 1));
        }
    }
    expected.sort_unstable();
    assert_eq!(on.found(alice()).await, expected);
    assert_eq!(on.found(sid(7)).await, [(key(7), 1)]);
}

async fn a_sub_never_matches_a_sid(on: &Fixture) {
    let sub = Index::of_sub("https://op.test", "same");
    let sid = Index::of_sid("https://op.test", "same");
    on.put(record(key(1), &[sub], "by sub"), HOUR).await;
    assert_eq!(on.found(sid).await, []);
    assert_eq!(on.store.remove_by(sid, None).await.unwrap(), []);
    assert_eq!(on.found(Index::of_sub("https://other.test", "same")).await, [], "of another issuer");
    assert_eq!(on.found(sub).await, [(key(1), 1)]);
}

async fn an_index_named_twice_counts_once(on: &Fixture) {
    on.put(record(key(1), &[alice(), alice()], "one"), HOUR).await;
    assert_eq!(on.found(alice()).await, [(key(1), 1)]);
    assert_eq!(on.store.remove_by(alice(), Some(alice())).await.unwrap(), [key(1)]);
    assert_eq!(on.rows().await, 0);
}

async fn remove_by_one_index_removes_what_is_under_it_and_nothing_else(on: &Fixture) {
    on.put(record(key(1), &[alice(), sid(1)], "one"), HOUR).await;
    on.put(record(key(2), &[alice(), sid(2)], "two"), HOUR).await;
    on.put(record(key(3), &[bob(), sid(3)], "three"), HOUR).await;
    let mut removed = on.store.remove_by(alice(), None).await.unwrap();
    removed.sort_unstable();
    let mut expected = [key(1), key(2)];
    expected.sort_unstable();
    assert_eq!(removed, expected);
    assert_eq!(on.get(key(1)).await, None);
    assert_eq!(on.found(sid(2)).await, [], "their other indexes are gone too");
    assert_eq!(on.found(bob()).await, [(key(3), 1)]);
    assert!(on.get(key(3)).await.is_some());
    assert_eq!(on.store.remove_by(alice(), None).await.unwrap(), [], "a second time");
}

async fn remove_by_two_indexes_removes_what_is_under_both(on: &Fixture) {
    on.put(record(key(1), &[alice(), sid(1)], "both"), HOUR).await;
    on.put(record(key(2), &[alice(), sid(2)], "the first"), HOUR).await;
    on.put(record(key(3), &[bob(), sid(1)], "the second"), HOUR).await;
    assert_eq!(on.store.remove_by(alice(), Some(sid(9))).await.unwrap(), [], "under none");
    assert_eq!(on.store.remove_by(alice(), Some(sid(1))).await.unwrap(), [key(1)]);
    assert_eq!(on.get(key(1)).await, None);
    assert_eq!(on.found(alice()).await, [(key(2), 1)]);
    assert_eq!(on.found(sid(1)).await, [(key(3), 1)]);
}

async fn remove_by_says_only_what_was_live(on: &Fixture) {
    on.keep_the_sweep_busy(MINUTE).await;
    on.put(record(key(1), &[alice()], "ended"), MINUTE).await;
    on.put(record(key(2), &[alice()], "live"), HOUR).await;
    on.advance(MINUTE).await;
    assert_eq!(on.store.remove_by(alice(), None).await.unwrap(), [key(2)]);
}

async fn a_mark_lasts_for_its_time(on: &Fixture) {
    on.store.mark(key(1), MINUTE).await.unwrap();
    assert!(on.is_marked(key(1)).await);
    assert!(!on.is_marked(key(2)).await);
    on.advance(MINUTE.saturating_sub(on.moment())).await;
    assert!(on.is_marked(key(1)).await);
    on.advance(on.moment()).await;
    assert!(!on.is_marked(key(1)).await);
}

async fn a_later_mark_only_lengthens(on: &Fixture) {
    on.store.mark(key(1), HOUR).await.unwrap();
    on.store.mark(key(1), MINUTE).await.unwrap();
    on.store.mark(key(1), Duration::ZERO).await.unwrap();
    on.advance(ALMOST_AN_HOUR).await;
    assert!(on.is_marked(key(1)).await, "a shorter one changes nothing");
    on.store.mark(key(1), HOUR).await.unwrap();
    on.advance(ALMOST_AN_HOUR).await;
    assert!(on.is_marked(key(1)).await, "a longer one counts");
    on.advance(MINUTE).await;
    assert!(!on.is_marked(key(1)).await);
    on.store.mark(key(1), MINUTE).await.unwrap();
    assert!(on.is_marked(key(1)).await, "one that ended can be set again");
}

async fn put_once_is_won_once_until_it_ends(on: &Fixture) {
    on.keep_the_sweep_busy(MINUTE).await;
    assert!(on.store.put_once(key(1), MINUTE).await.unwrap());
    assert!(!on.store.put_once(key(1), HOUR).await.unwrap(), "a second time");
    assert!(on.is_marked(key(1)).await);
    on.advance(MINUTE).await;
    assert!(!on.is_marked(key(1)).await, "the attempt that lost did not lengthen it");
    assert!(on.store.put_once(key(1), MINUTE).await.unwrap(), "after its end");
}

async fn put_once_and_mark_see_each_other(on: &Fixture) {
    on.store.mark(key(1), MINUTE).await.unwrap();
    assert!(!on.store.put_once(key(1), MINUTE).await.unwrap());
    assert!(on.store.put_once(key(2), MINUTE).await.unwrap());
    on.store.mark(key(2), HOUR).await.unwrap();
    on.advance(MINUTE).await;
    assert!(!on.store.put_once(key(2), MINUTE).await.unwrap(), "lengthened by mark");
}

async fn of_concurrent_put_onces_one_wins(on: &Fixture) {
    let mut tasks = JoinSet::new();
    for _ in 0..32 {
        let store = Arc::clone(&on.store);
        tasks.spawn(async move { store.put_once(key(1), HOUR).await.unwrap() });
    }
    let winners = tasks.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(winners, 1);
}

async fn a_lease_has_one_holder_until_it_ends(on: &Fixture) {
    on.keep_the_sweep_busy(MINUTE).await;
    let held = on.lease(key(1), MINUTE).await.unwrap();
    assert_eq!(held.key, key(1));
    assert_eq!(on.lease(key(1), MINUTE).await, None);
    assert!(on.lease(key(2), MINUTE).await.is_some(), "another key");
    on.advance(MINUTE.saturating_sub(on.moment())).await;
    assert_eq!(on.lease(key(1), MINUTE).await, None);
    on.advance(on.moment()).await;
    assert!(on.lease(key(1), MINUTE).await.is_some());
}

async fn of_concurrent_leases_one_is_granted(on: &Fixture) {
    let mut tasks = JoinSet::new();
    for _ in 0..32 {
        let store = Arc::clone(&on.store);
        tasks.spawn(async move { store.lease(key(1), HOUR).await.unwrap() });
    }
    let granted = tasks.join_all().await.into_iter().flatten().count();
    assert_eq!(granted, 1);
}

async fn fences_grow_with_every_lease_of_a_key(on: &Fixture) {
    let mut last = 0;
    for round in 0..6 {
        let lease = on.lease(key(1), MINUTE).await.unwrap();
        assert!(last < lease.fence, "round {round}");
        last = lease.fence;
        if round % 2 == 0 {
            on.store.release(lease).await.unwrap();
        } else {
            on.advance(MINUTE).await;
            // Sweeps what is known of the lease.
            on.put(record(key(9), &[], "sweeps"), HOUR).await;
        }
    }
}

async fn a_lease_is_extended_by_its_holder_only(on: &Fixture) {
    on.keep_the_sweep_busy(MINUTE + MINUTE / 2).await;
    let held = on.lease(key(1), MINUTE).await.unwrap();
    let forged = Lease { fence: held.fence + 1, ..held };
    assert!(!on.store.extend(&forged, HOUR).await.unwrap());
    on.advance(MINUTE / 2).await;
    assert!(on.store.extend(&held, MINUTE).await.unwrap());
    on.advance(MINUTE.saturating_sub(on.moment())).await;
    assert_eq!(on.lease(key(1), MINUTE).await, None);
    on.advance(on.moment()).await;
    assert!(!on.store.extend(&held, MINUTE).await.unwrap(), "ran out");
    assert!(on.lease(key(1), MINUTE).await.is_some());
}

async fn extending_a_lease_never_shortens_it(on: &Fixture) {
    let held = on.lease(key(1), HOUR).await.unwrap();
    for ttl in [MINUTE, Duration::ZERO] {
        assert!(on.store.extend(&held, ttl).await.unwrap(), "{ttl:?}");
    }
    on.advance(ALMOST_AN_HOUR).await;
    assert_eq!(on.lease(key(1), MINUTE).await, None);
}

async fn a_released_lease_can_be_taken_and_the_old_one_changes_nothing(on: &Fixture) {
    let first = on.lease(key(1), HOUR).await.unwrap();
    on.store.release(first.clone()).await.unwrap();
    let second = on.lease(key(1), MINUTE).await.unwrap();
    on.store.release(first.clone()).await.unwrap();
    assert_eq!(on.lease(key(1), MINUTE).await, None, "a second release is nobody's");
    assert!(!on.store.extend(&first, HOUR).await.unwrap());
    assert!(on.store.extend(&second, MINUTE).await.unwrap());
}

async fn a_lease_that_ran_out_changes_nothing_for_its_old_holder(on: &Fixture) {
    on.keep_the_sweep_busy(MINUTE).await;
    on.put(record(key(1), &[], "one"), HOUR).await;
    let lost = on.lease(key(1), MINUTE).await.unwrap();
    on.advance(MINUTE).await;
    let held = on.lease(key(1), MINUTE).await.unwrap();
    assert!(!on.store.extend(&lost, HOUR).await.unwrap());
    on.store.release(lost.clone()).await.unwrap();
    let replaced = on.store.replace(record(key(1), &[], "lost"), HOUR, 1, Some(&lost)).await.unwrap();
    assert_eq!(replaced, Replaced::Conflict);
    assert_eq!(on.lease(key(1), MINUTE).await, None, "still held by the other");
    on.advance(MINUTE).await;
    assert!(!on.store.extend(&held, MINUTE).await.unwrap(), "the other's end was not moved");
}

/// Three in three minutes.
const RATE: Rate = Rate { count: 3, per: Duration::from_mins(3) };

impl Fixture {
    async fn take(&self, n: u32, take: Take) -> Taken {
        self.store.take(key(n), RATE, take).await.unwrap()
    }

    /// Whether there is none, and there is one as soon as `wait` is over.
    async fn has_none_for(&self, n: u32, wait: Duration) -> bool {
        match self.take(n, Take::Nothing).await {
            Taken::NotFor(left) => left <= wait && wait.saturating_sub(left) < self.moment(),
            Taken::Yes | Taken::Uncounted => false,
        }
    }

    fn is_shared(&self) -> bool {
        self.store.changes().is_some()
    }
}

async fn what_others_share_is_counted_and_nothing_else(on: &Fixture) {
    for take in [Take::Nothing, Take::One] {
        let wanted = if on.is_shared() { Taken::Yes } else { Taken::Uncounted };
        assert_eq!(on.take(1, take).await, wanted);
    }
    assert_eq!(on.rows().await, usize::from(on.is_shared()));
}

async fn what_was_taken_of_a_rate_comes_back_one_by_one(on: &Fixture) {
    if !on.is_shared() {
        assert_eq!(on.take(1, Take::One).await, Taken::Uncounted);
        return;
    }
    for _ in 0..10 {
        assert_eq!(on.take(1, Take::Nothing).await, Taken::Yes, "looking takes nothing");
    }
    assert_eq!(on.rows().await, 0, "and leaves nothing behind");
    for _ in 0..3 {
        assert_eq!(on.take(1, Take::One).await, Taken::Yes);
    }
    assert!(on.has_none_for(1, MINUTE).await);
    assert_ne!(on.take(1, Take::One).await, Taken::Yes);
    assert!(on.has_none_for(1, MINUTE).await, "what is refused counts nothing");
    assert_eq!(on.take(2, Take::One).await, Taken::Yes, "another key");
    on.advance(MINUTE).await;
    assert_eq!(on.take(1, Take::One).await, Taken::Yes, "one is back");
    assert!(on.has_none_for(1, MINUTE).await, "and no other");
    on.advance(10 * MINUTE + on.ground.lingers()).await;
    assert_eq!(on.rows().await, 0, "what is all back is forgotten");
    for _ in 0..3 {
        assert_eq!(on.take(1, Take::One).await, Taken::Yes, "never more than there are");
    }
    assert!(on.has_none_for(1, MINUTE).await);
}

async fn of_concurrent_takes_as_many_are_granted_as_there_are(on: &Fixture) {
    let takes = futures::future::join_all((0..20).map(|_| on.take(1, Take::One))).await;
    let granted = takes.iter().filter(|taken| **taken == Taken::Yes).count();
    assert_eq!(granted, if on.is_shared() { 3 } else { 0 });
}

async fn records_marks_and_leases_under_one_key_do_not_meet(on: &Fixture) {
    on.put(record(key(1), &[], "one"), HOUR).await;
    assert!(!on.is_marked(key(1)).await);
    assert!(on.store.put_once(key(1), HOUR).await.unwrap());
    let lease = on.lease(key(1), HOUR).await.unwrap();
    assert!(on.store.remove(key(1)).await.unwrap());
    assert!(on.is_marked(key(1)).await);
    assert!(on.store.extend(&lease, HOUR).await.unwrap());
    on.store.release(lease).await.unwrap();
    assert!(on.is_marked(key(1)).await);
}

async fn every_record_is_on_a_page_and_the_pages_end(on: &Fixture) {
    assert_eq!(on.listed(10).await, [], "an empty store");
    for n in [4, 2, 9, 7, 1, 3] {
        on.put(record(nth(n), &[alice()], "one"), HOUR).await;
    }
    for limit in [1, 2, 4, 5, 6, usize::MAX] {
        assert_eq!(on.listed(limit).await, [1, 2, 3, 4, 7, 9].map(nth), "limit {limit}");
    }
    let listed = on.pages_from(None, 10).await;
    on.check(listed.get(&nth(1)), &record(nth(1), &[alice()], "one"), 1, HOUR);
}

async fn a_record_that_lives_all_the_while_is_on_a_page(on: &Fixture) {
    for n in 0..60 {
        on.put(record(key(n), &[], "stays"), HOUR).await;
    }
    let (mut listed, mut cursor) = (Vec::new(), None);
    for round in 0..200 {
        let page = on.page(cursor, 5).await;
        listed.extend(page.records.iter().map(|stored| stored.record.key));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
        on.put(record(key(100 + round), &[], "comes"), HOUR).await;
        on.store.replace(record(key(round % 60), &[], "changes"), HOUR, 1, None).await.unwrap();
        on.store.remove(key(100 + round / 2)).await.unwrap();
    }
    assert_eq!(cursor, None, "the pages don't end");
    for n in 0..60 {
        assert!(listed.contains(&key(n)), "{n}");
    }
}

async fn pages_skip_what_has_ended(on: &Fixture) {
    for n in 1..=20 {
        let ttl = if n % 5 == 0 { HOUR } else { MINUTE };
        on.put(record(nth(n), &[], "one"), ttl).await;
    }
    on.advance(MINUTE).await;
    assert_eq!(on.listed(2).await, [5, 10, 15, 20].map(nth));
    on.advance(HOUR).await;
    assert_eq!(on.listed(10).await, []);
}

async fn the_page_after_a_cursor_is_there_again(on: &Fixture) {
    for n in 0..200 {
        on.put(record(key(n), &[], "one"), HOUR).await;
    }
    let first = on.page(None, 10).await;
    let cursor = Cursor::new(first.next.expect("there are more").as_str());
    let rest: Vec<_> = on.pages_from(Some(cursor.clone()), 10).await.into_keys().collect();
    for stored in &first.records {
        on.store.remove(stored.record.key).await.unwrap();
    }
    let again: Vec<_> = on.pages_from(Some(cursor), 10).await.into_keys().collect();
    assert_eq!(again, rest, "what it came after is gone");
    assert!(200 <= first.records.len() + rest.len());
}

async fn a_cursor_of_no_store_is_an_error(on: &Fixture) {
    on.put(record(key(1), &[], "one"), HOUR).await;
    for text in ["", "0", "next", "AAAA", "-1", "\u{e4}", &"A".repeat(42), &"A".repeat(44)] {
        let error = on.store.list(Some(Cursor::new(text)), 10).await.unwrap_err();
        assert_eq!(error.reason, "the cursor is not one of this store", "{text:?}");
    }
}

async fn a_page_for_nothing_is_a_page_for_one(on: &Fixture) {
    for n in [1, 2] {
        on.put(record(nth(n), &[], "one"), HOUR).await;
    }
    assert_eq!(on.listed(0).await, [1, 2].map(nth));
}

async fn what_has_ended_is_absent_everywhere(on: &Fixture) {
    on.keep_the_sweep_busy(MINUTE).await;
    on.put(record(key(1), &[alice()], "one"), MINUTE).await;
    on.advance(MINUTE.saturating_sub(on.moment())).await;
    assert!(on.get(key(1)).await.is_some(), "a moment before its end");
    on.advance(on.moment()).await;
    assert_eq!(on.get(key(1)).await, None);
    assert_eq!(on.found(alice()).await, []);
    assert_eq!(on.page(None, 10).await.records, []);
    on.put(record(key(1), &[], "again"), MINUTE).await;
    assert_eq!(on.get(key(1)).await.unwrap().version, 1, "its key is free again");
}

async fn nothing_lives_for_no_time(on: &Fixture) {
    on.put(record(key(1), &[alice()], "lives"), HOUR).await;
    on.put(record(key(1), &[alice()], "ended"), Duration::ZERO).await;
    assert_eq!(on.get(key(1)).await, None, "a record, over a live one");
    assert_eq!(on.found(alice()).await, [], "under its index");
    on.store.mark(key(2), Duration::ZERO).await.unwrap();
    assert!(!on.is_marked(key(2)).await, "a mark");
    assert!(!on.store.put_once(key(3), Duration::ZERO).await.unwrap(), "marks nothing, so wins nothing");
    assert_eq!(on.lease(key(4), Duration::ZERO).await, None, "a lease");
    on.put(record(key(5), &[], "one"), HOUR).await;
    let replaced = on.store.replace(record(key(5), &[], "two"), Duration::ZERO, 1, None).await.unwrap();
    assert_eq!(replaced, Replaced::Done(2));
    assert_eq!(on.get(key(5)).await, None, "a record that was replaced");
}

async fn the_longest_time_is_the_end_of_time(on: &Fixture) {
    on.put(record(key(1), &[], "one"), Duration::MAX).await;
    assert_eq!(on.get(key(1)).await.unwrap().expires_at, UnixTime::MAX);
    on.store.mark(key(2), Duration::MAX).await.unwrap();
    let lease = on.lease(key(3), Duration::MAX).await.unwrap();
    on.advance(Duration::from_secs(1 << 50)).await;
    assert!(on.get(key(1)).await.is_some());
    assert!(on.is_marked(key(2)).await);
    assert!(on.store.extend(&lease, Duration::MAX).await.unwrap());
}

async fn nothing_is_left_when_all_is_removed(on: &Fixture) {
    assert_eq!(on.rows().await, 0, "at the start");
    for n in 0..10 {
        on.put(record(key(n), &[alice(), sid(n)], "one"), HOUR).await;
        on.put(record(key(n), &[alice(), sid(n + 1)], "over it"), HOUR).await;
        on.store.replace(record(key(n), &[bob(), sid(n)], "two"), MINUTE, 1, None).await.unwrap();
    }
    let lease = on.lease(key(1), HOUR).await.unwrap();
    on.store.extend(&lease, HOUR * 2).await.unwrap();
    on.store.release(lease).await.unwrap();
    assert!(on.store.remove(key(0)).await.unwrap());
    assert_eq!(on.store.remove_by(bob(), Some(sid(1))).await.unwrap(), [key(1)]);
    assert_eq!(on.store.remove_by(bob(), None).await.unwrap().len(), 8);
    assert_eq!(on.rows().await, 0);
}

async fn what_has_ended_is_swept_by_the_writes_that_follow(on: &Fixture) {
    for n in 0..6 {
        on.put(record(key(n), &[alice(), sid(n)], "one"), MINUTE).await;
        on.store.mark(key(n), MINUTE).await.unwrap();
        on.lease(key(n), MINUTE).await.unwrap();
    }
    on.advance(MINUTE + on.ground.lingers()).await;
    // A write sweeps more than one entry, so fewer writes than entries are enough.
    for n in 100..106 {
        on.put(record(key(n), &[], "new"), HOUR).await;
        assert!(on.store.remove(key(n)).await.unwrap());
    }
    assert_eq!(on.rows().await, 0);
}

async fn a_store_that_works_answers_a_ping(on: &Fixture) {
    on.store.ping().await.unwrap();
    assert_eq!(on.rows().await, 0, "and leaves nothing behind");
}
