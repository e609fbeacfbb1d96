//! Ready sessions: the cache in front of the store, and the end of a session.
//!
//! Owns the only ways by which a session begins, is found, is kept alive and ends, so that the cache,
//! the store and the open connections of a session never disagree. Must never take an outage of the
//! store for an absent session.

mod feed;
mod limit;
mod ready;
mod serving;
mod tokens;
mod trust;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::Notify;

use super::shared_keys::SharedKeys;
use crate::clock::{Clock, UnixTime};
use crate::identity::headers::HeaderTable;
use crate::identity::{ClaimPaths, Identity};
use crate::idp::flight::Flight;
use crate::random::{RandomError, random_bytes};
use crate::session::lifetime::{SKEW, Times, Verdict, expires_at};
use crate::session::refresh::Schedule;
use crate::session::seal::{OpenError, SealError, open_record, record_key, seal_record};
use crate::session::{KeyId, KeyRing, Limits, Session, SessionId};
use crate::store::guard::{GuardedStore, Outage};
use crate::store::{Index, Lease, Record, Replaced, SessionStore as _, StoreError, StoreKey, Stored};

pub use limit::{Admitted, AtLimit, Newcomer, PerUser};
use ready::HoldOff;
pub use ready::ReadySession;
pub use serving::Serving;
use tokens::Tokens;
use trust::{Question, Trust};

/// How sessions are read: where the identity is, what headers are made of it, how long they live.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Where the identity is in the claims.
    pub claim_paths: ClaimPaths,
    /// The identity headers.
    pub headers: HeaderTable,
    /// Lifetimes.
    pub limits: Limits,
}

/// How much is kept in memory, and how long it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// About the most bytes of ready sessions.
    pub bytes: u64,
    /// How long a session serves requests without the store being asked, where others write to it too; zero:
    /// it is asked for each request.
    pub staleness: Duration,
    /// How long sessions in memory serve requests while the store is down.
    pub outage_window: Duration,
}

/// What became of the search for a session.
#[derive(Clone, Debug)]
pub enum Found {
    /// It lives.
    Live(Arc<ReadySession>),
    /// There is none of this id.
    Absent,
    /// There was one; its time is over.
    Expired,
}

/// Why a session could not be begun.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// No entropy for an id.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// The sessions of this process.
#[derive(Debug)]
pub struct Sessions {
    store: Arc<GuardedStore>,
    outage: Arc<Outage>,
    keys: Arc<KeyRing>,
    clock: Clock,
    runtime: tokio::runtime::Handle,
    ready: moka::sync::Cache<StoreKey, Arc<ReadySession>, RandomState>,
    /// Sessions that ended a moment ago: a load that overlapped the end must not bring one back.
    just_ended: moka::sync::Cache<StoreKey, ()>,
    tokens: Tokens,
    /// The keys that several gateways make together, where they do.
    shared_keys: OnceLock<Arc<SharedKeys>>,
    /// `None` where nobody else writes to the store.
    staleness: Option<Duration>,
    outage_window: Duration,
    /// One more after each interruption of the feed of changes.
    generation: AtomicU64,
    missed: Notify,
}

/// Longer than any load from the store takes.
const JUST_ENDED: Duration = Duration::from_mins(2);

impl Sessions {
    /// Sessions in `store`, sealed with `keys`.
    #[must_use]
    pub fn new(
        store: Arc<GuardedStore>,
        keys: Arc<KeyRing>,
        clock: Clock,
        runtime: tokio::runtime::Handle,
        cache: CacheSettings,
    ) -> Self {
        let ready = moka::sync::Cache::builder()
            .max_capacity(cache.bytes)
            .weigher(|_, session: &Arc<ReadySession>| session.weight())
            .build_with_hasher(RandomState::default());
        let just_ended =
            moka::sync::Cache::builder().time_to_live(JUST_ENDED).max_capacity(1_000_000).build();
        let staleness = store.changes().map(|_others| cache.staleness);
        Self {
            outage: Arc::clone(store.outage()),
            store,
            keys,
            clock,
            runtime,
            ready,
            just_ended,
            tokens: Tokens::default(),
            staleness,
            outage_window: cache.outage_window,
            generation: AtomicU64::new(0),
            missed: Notify::new(),
            shared_keys: OnceLock::new(),
        }
    }

    /// Whether the store is known to be down.
    #[must_use]
    pub fn is_store_down(&self) -> bool {
        self.outage.is_on()
    }

    /// Keys of the ring come from these, which other gateways make too.
    pub fn share_keys_with(&self, keys: Arc<SharedKeys>) {
        // Said once, when the gateway is put together.
        self.shared_keys.set(keys).ok();
    }

    /// Whether other gateways make keys of the ring.
    pub(super) fn share_keys(&self) -> bool {
        self.shared_keys.get().is_some()
    }

    /// Sees to it that a key is known here, if another gateway made it.
    ///
    /// # Errors
    /// [`StoreError`] where that can't be told.
    pub(super) async fn learn_key(&self, id: Option<KeyId>) -> Result<(), StoreError> {
        match (self.shared_keys.get(), id) {
            (Some(keys), Some(id)) => keys.learn(id).await,
            _ => Ok(()),
        }
    }

    /// A record, whose key is known then if anybody knows it.
    async fn fetch(&self, key: StoreKey) -> Result<Option<Stored>, StoreError> {
        let stored = self.store.get(key).await?;
        if let Some(stored) = &stored {
            self.learn_key(record_key(&stored.record.payload)).await?;
        }
        Ok(stored)
    }

    /// The live session under a key; being found counts as use.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer, and the session is not one that is served without it.
    pub async fn find(
        self: &Arc<Self>,
        key: StoreKey,
        reading: &Arc<Reading>,
        now: UnixTime,
    ) -> Result<Found, StoreError> {
        let session = match self.ready.get(&key) {
            Some(session) if self.is_known(&session, now) => session,
            cached => match Box::pin(self.ask_or_trust(key, cached, reading, now)).await? {
                Some(session) => {
                    self.reseal(&session, &reading.limits);
                    session
                }
                None => return Ok(Found::Absent),
            },
        };
        self.used(session, &reading.limits, now)
    }

    /// Whether a session in memory needs no word of the store.
    fn is_known(&self, session: &ReadySession, now: UnixTime) -> bool {
        let generation = self.generation.load(Ordering::Relaxed);
        !self.outage.is_on()
            && session.trust.is_settled(generation)
            && self.staleness.is_none_or(|staleness| session.trust.is_recent(staleness, now))
    }

    /// The session as the store has it; while that is down, as it is in memory, for some time.
    async fn ask_or_trust(
        self: &Arc<Self>,
        key: StoreKey,
        cached: Option<Arc<ReadySession>>,
        reading: &Arc<Reading>,
        now: UnixTime,
    ) -> Result<Option<Arc<ReadySession>>, StoreError> {
        let error = match self.ask(key, cached.as_ref(), reading).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        if self.just_ended.contains_key(&key) {
            return Ok(None);
        }
        let session = cached.filter(|session| self.is_in_window(session, now)).ok_or(error)?;
        self.outage.note_served();
        Ok(Some(session))
    }

    /// Whether sessions in memory are served though the store does not answer.
    fn is_in_window(&self, session: &ReadySession, now: UnixTime) -> bool {
        // Where it is no outage, this record is what can't be read. What began in the future is as long ago as
        // nobody knows: the clock was set back.
        let since = self.outage.since().unwrap_or_else(|| session.trust.failed(now, self.outage.ended()));
        since <= now + SKEW && now.since(since) < self.outage_window
    }

    /// Asks the store, once for all requests of a session that is in memory.
    async fn ask(
        self: &Arc<Self>,
        key: StoreKey,
        cached: Option<&Arc<ReadySession>>,
        reading: &Arc<Reading>,
    ) -> Result<Option<Arc<ReadySession>>, StoreError> {
        let Some(known) = cached else { return self.look(key, None, reading).await };
        // An answer on its way may have been asked for before the doubt arose; a second one was not.
        let first = self.join_question(known, reading).await?;
        let generation = self.generation.load(Ordering::Relaxed);
        match first {
            Some(session) if !session.trust.is_settled(generation) => {
                self.join_question(known, reading).await
            }
            first => Ok(first),
        }
    }

    async fn join_question(
        self: &Arc<Self>,
        known: &Arc<ReadySession>,
        reading: &Arc<Reading>,
    ) -> Result<Option<Arc<ReadySession>>, StoreError> {
        let answer = known.question.join(&self.runtime, || {
            let (sessions, known, reading) = (Arc::clone(self), Arc::clone(known), Arc::clone(reading));
            Some(async move {
                let answer = sessions.look(known.key, Some(&known), &reading).await;
                answer.map_err(|error| error.reason.into())
            })
        });
        let answer = answer.await.unwrap_or_else(|| Err("the gateway ends".into()));
        answer.map_err(|reason| StoreError::new(&*reason))
    }

    /// What the store has under a key: the session that is known already, or one that is made ready.
    async fn look(
        &self,
        key: StoreKey,
        known: Option<&Arc<ReadySession>>,
        reading: &Reading,
    ) -> Result<Option<Arc<ReadySession>>, StoreError> {
        let question = self.question(known);
        let Some(stored) = self.fetch(key).await? else {
            if known.is_some() {
                self.forget(key);
            }
            return Ok(None);
        };
        let ready = match known.filter(|known| known.version() == stored.version) {
            Some(known) => {
                known.trust.settle(question);
                Some(Arc::clone(known))
            }
            None => self.take(&stored, known, question, reading),
        };
        if self.just_ended.contains_key(&key) {
            self.ready.invalidate(&key);
            return Ok(None);
        }
        Ok(ready)
    }

    fn question(&self, known: Option<&Arc<ReadySession>>) -> Question {
        let doubts = known.map_or(0, |known| known.trust.doubts());
        Question { doubts, generation: self.generation.load(Ordering::Acquire), at: self.clock.now() }
    }

    /// Makes a record ready, in the place of what was known of it.
    fn take(
        &self,
        stored: &Stored,
        known: Option<&Arc<ReadySession>>,
        question: Question,
        reading: &Reading,
    ) -> Option<Arc<ReadySession>> {
        let key = stored.record.key;
        let Ok(session) = open_record(&self.keys, &key.0, &stored.record.payload) else {
            // Sealed by a key that is gone, or damaged: it ends here.
            tracing::warn!(
                event = "session_unreadable",
                "a stored session does not open with the present keys"
            );
            self.ready.invalidate(&key);
            return None;
        };
        let ready = self.make_ready(key, stored.version, &session, question, reading)?;
        ready.note_seal(record_key(&stored.record.payload));
        self.ready.insert(key, Arc::clone(&ready));
        if known.is_some_and(|known| known.trust.doubts() != question.doubts) {
            ready.trust.doubt();
        }
        Some(ready)
    }

    /// Notes a use; starts what follows from it behind the request's back.
    fn used(
        self: &Arc<Self>,
        session: Arc<ReadySession>,
        limits: &Limits,
        now: UnixTime,
    ) -> Result<Found, StoreError> {
        match session.lifetime.touch(limits, now) {
            Verdict::Fresh => Ok(Found::Live(session)),
            Verdict::WriteBack => {
                let (sessions, limits, written) = (Arc::clone(self), *limits, Arc::clone(&session));
                self.runtime.spawn(async move { sessions.write_back(&written, &limits).await });
                Ok(Found::Live(session))
            }
            // Another gateway may know of a later use, and nobody can sign in anew.
            Verdict::Ended if self.outage.is_on() => Err(StoreError::new("it is known to be down")),
            Verdict::Ended => {
                let (sessions, key) = (Arc::clone(self), session.key);
                self.forget(key);
                // The store drops it by itself too; an outage here costs nothing.
                self.runtime.spawn(async move { sessions.store.remove(key).await.ok() });
                Ok(Found::Expired)
            }
        }
    }

    fn make_ready(
        &self,
        key: StoreKey,
        version: u64,
        session: &Session,
        question: Question,
        reading: &Reading,
    ) -> Option<Arc<ReadySession>> {
        let identity = match Identity::from_claims(&session.claims, &reading.claim_paths) {
            Ok(identity) => identity,
            Err(error) => {
                // The configuration asks for another claim than when the person signed in.
                tracing::warn!(event = "session_unreadable", %error, "a stored session has no identity");
                return None;
            }
        };
        let (ended, lifetime) = self.tokens.of(key, Times::of(session), question.at);
        let headers = reading.headers.render(&identity, &session.claims).0.into_boxed_slice();
        Some(Arc::new(ReadySession {
            key,
            host: Arc::clone(&session.host),
            provider: session.provider.clone(),
            identity: Arc::new(identity),
            headers,
            ended,
            refresh: Flight::default(),
            question: Flight::default(),
            trust: Trust::new(question),
            schedule: Schedule::of(session),
            hold_off: HoldOff::default(),
            lifetime,
            version: AtomicU64::new(version),
            sealed_by: Mutex::default(),
        }))
    }

    /// Stores a new session, durably, and returns its id.
    ///
    /// # Errors
    /// [`BeginError`].
    pub async fn begin(&self, session: &Session, limits: &Limits) -> Result<SessionId, BeginError> {
        let id = SessionId::new(random_bytes()?);
        let key = StoreKey(id.store_key());
        let record = self.seal(key, session)?;
        self.store.put(record, time_to_live(session, limits, self.clock.now())).await?;
        Ok(id)
    }

    fn seal(&self, key: StoreKey, session: &Session) -> Result<Record, SealError> {
        let payload = seal_record(&self.keys, &key.0, session)?.into();
        Ok(Record { key, indexes: indexes(session), payload })
    }

    /// The whole session behind a key, tokens included; `None` where it is gone or does not open.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn read(&self, key: StoreKey) -> Result<Option<Session>, StoreError> {
        Ok(self.read_versioned(key).await?.map(|(session, _)| session))
    }

    async fn read_versioned(&self, key: StoreKey) -> Result<Option<(Session, u64)>, StoreError> {
        let Some(stored) = self.fetch(key).await? else { return Ok(None) };
        let opened: Result<Session, OpenError> = open_record(&self.keys, &key.0, &stored.record.payload);
        Ok(opened.ok().map(|session| (session, stored.version)))
    }

    /// Changes a record under a lease, as it is in the store now; the version that was read is the one that
    /// is replaced.
    pub(super) async fn rewrite(
        &self,
        key: StoreKey,
        change: impl Fn(&mut Session),
        lease: &Lease,
        limits: &Limits,
    ) -> Result<Replaced, StoreError> {
        let Some((mut session, version)) = self.read_versioned(key).await? else { return Ok(Replaced::Gone) };
        change(&mut session);
        let record = self.seal(key, &session).map_err(|error| StoreError::new(error.to_string()))?;
        let ttl = time_to_live(&session, limits, self.clock.now());
        self.store.replace(record, ttl, version, Some(lease)).await
    }

    /// Seals the record of a session anew, behind the request's back, where another key than that of now
    /// sealed it: the other one may go then, and the session stays.
    pub(super) fn reseal(self: &Arc<Self>, session: &Arc<ReadySession>, limits: &Limits) {
        if !session.is_sealed_anew(self.keys.sealing_id()) {
            return;
        }
        let (sessions, limits, session) = (Arc::clone(self), *limits, Arc::clone(session));
        self.runtime.spawn(async move { sessions.write_back(&session, &limits).await });
    }

    /// The next request asks the store what became of the session.
    pub(super) fn reread(&self, key: StoreKey) {
        if let Some(session) = self.ready.get(&key) {
            session.trust.doubt();
        }
    }

    /// Ends a session: in the store first, then here, then whatever serves it.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer; the session then still lives.
    pub async fn end(&self, key: StoreKey) -> Result<(), StoreError> {
        self.store.remove(key).await?;
        self.forget(key);
        Ok(())
    }

    /// Ends every session under an index, or under both, wherever it was begun; says how many.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    pub async fn end_by(&self, index: Index, and: Option<Index>) -> Result<usize, StoreError> {
        let ended = self.store.remove_by(index, and).await?;
        for key in &ended {
            self.forget(*key);
        }
        Ok(ended.len())
    }

    fn forget(&self, key: StoreKey) {
        self.just_ended.insert(key, ());
        self.ready.invalidate(&key);
        self.tokens.cancel(key);
    }

    /// Writes the time of use back, under the key that seals now. What fails here is tried again a tenth of
    /// the idle timeout later.
    async fn write_back(&self, ready: &ReadySession, limits: &Limits) {
        let (mut session, version) = match self.read_versioned(ready.key).await {
            Ok(Some(found)) => found,
            Ok(None) => return self.forget(ready.key),
            Err(_) => return ready.note_seal(None),
        };
        let stored = Times::of(&session).following(self.clock.now());
        ready.lifetime.times().merged(stored).write_to(&mut session);
        let Ok(record) = self.seal(ready.key, &session) else { return };
        let ttl = time_to_live(&session, limits, self.clock.now());
        match self.store.replace(record, ttl, version, None).await {
            Ok(Replaced::Done(version)) => ready.version.store(version, Ordering::Relaxed),
            // Somebody else wrote: what they wrote counts, and is read at the next request.
            Ok(Replaced::Conflict) => self.reread(ready.key),
            Ok(Replaced::Gone) => self.forget(ready.key),
            Err(_) => ready.note_seal(None),
        }
    }
}

/// The secondary keys of a session.
fn indexes(session: &Session) -> Vec<Index> {
    let issuer = &session.issuer.0;
    let by_sub = Index::of_sub(issuer, &session.subject);
    let by_sid = session.sid.as_ref().map(|sid| Index::of_sid(issuer, sid));
    std::iter::once(by_sub).chain(by_sid).collect()
}

/// How long the store keeps a record: a tenth of the idle timeout longer than the session lives if it
/// is not used, because the time of use is written back that late.
fn time_to_live(session: &Session, limits: &Limits, now: UnixTime) -> Duration {
    let slack = limits.idle_timeout / 10;
    let end = expires_at(session.created_at, session.last_seen + slack, limits);
    end.since(now)
}

#[cfg(test)]
mod tests;
