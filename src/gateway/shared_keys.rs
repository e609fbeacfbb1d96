//! Session keys that several gateways make together: kept in the store, sealed under the keys of the
//! configuration, the root keys.
//!
//! Each root key has one record: the keys that were made under it, sealed by it. So a root key that is taken
//! away takes with it what was made under it and what that sealed, and gateways whose configurations differ
//! for a while never write over one another. Only the first root's record is written to, under a lease.
//! A new key opens at once and seals after [`DELAY`], when all gateways have looked; one that meets a key
//! that it does not know looks at once. An outage of the store changes nothing.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::clock::bucket::Bucket;
use crate::clock::{Clock, UnixTime};
use crate::idp::flight::Flight;
use crate::random::RandomError;
use crate::session::key_ring::KeyError;
use crate::session::made_keys::{MadeKeys, Rotation};
use crate::session::seal::{SealError, open_keys, seal_keys};
use crate::session::{Key, KeyId, KeyRing};
use crate::store::{Lease, Record, Replaced, SessionStore, StoreError, StoreKey};
use crate::telemetry::Events;

/// From when a key is made until it seals; many times as long as until the next look.
pub const DELAY: Duration = Duration::from_mins(1);

/// How often the store is asked for keys that nobody here knows: so many at once, then one each period. What
/// a client sends may name any key.
const ASKS: (u32, Duration) = (3, Duration::from_secs(2));

/// How long a record is written under its lease at most.
const LEASE: Duration = Duration::from_secs(30);

/// How much longer than its keys can matter a record is kept.
const KEPT: Duration = Duration::from_hours(30 * 24);

/// Why keys could not be made or taken.
#[derive(Debug, thiserror::Error)]
pub enum SharedKeysError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// They make no ring.
    #[error(transparent)]
    Ring(#[from] KeyError),
    /// They can't be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// No entropy.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// Another gateway is at it.
    #[error("another gateway changes the session keys at this moment")]
    Busy,
}

/// The keys of this gateway, and how it keeps up with the others.
pub struct SharedKeys {
    store: Arc<dyn SessionStore>,
    ring: Arc<KeyRing>,
    rotation: Rotation,
    clock: Clock,
    events: Events,
    runtime: Handle,
    state: Mutex<State>,
    look: Flight<bool>,
}

struct State {
    roots: Vec<Root>,
    asks: Bucket,
    /// Whether the store answered when it was asked last.
    answered: bool,
}

/// A key of the configuration.
#[derive(Clone)]
struct Root {
    key: Key,
    /// The ring of this key alone, which seals its record.
    ring: Arc<KeyRing>,
    made: Option<MadeKeys>,
}

/// A record as it is in the store.
#[derive(Default)]
struct Found {
    /// `None`: there is no record, or none that opens.
    keys: Option<MadeKeys>,
    version: Option<u64>,
}

impl Root {
    fn new(key: &Key, made: Option<MadeKeys>) -> Result<Self, KeyError> {
        let ring = Arc::new(KeyRing::new(std::slice::from_ref(key))?);
        Ok(Self { key: key.clone(), ring, made })
    }

    /// Where its record is.
    fn place(&self) -> StoreKey {
        StoreKey::derive("made session keys", &[self.key.id.to_string().as_bytes()])
    }
}

impl SharedKeys {
    /// Keys under these root keys; until the store was looked at, `ring` has the root keys alone.
    ///
    /// # Errors
    /// [`KeyError`] where the root keys make no ring.
    pub fn new(
        store: Arc<dyn SessionStore>,
        ring: Arc<KeyRing>,
        roots: &[Key],
        rotation: Rotation,
        (clock, events, runtime): (Clock, Events, Handle),
    ) -> Result<Self, KeyError> {
        let roots = roots.iter().map(|key| Root::new(key, None)).collect::<Result<_, _>>()?;
        let state = State { roots, asks: Bucket::new(ASKS, clock.now()), answered: false };
        let (state, look) = (Mutex::new(state), Flight::default());
        Ok(Self { store, ring, rotation, clock, events, runtime, state, look })
    }

    /// Takes other root keys; what was made under one that is gone opens nothing any more.
    ///
    /// # Errors
    /// [`KeyError`] where they make no ring; all is then as before.
    pub fn replace_roots(&self, keys: &[Key]) -> Result<(), KeyError> {
        let mut state = self.state();
        let made = |key: &Key| state.roots.iter().find(|root| root.key.id == key.id)?.made.clone();
        let roots: Vec<_> = keys.iter().map(|key| Root::new(key, made(key))).collect::<Result<_, _>>()?;
        self.take(&roots)?;
        state.roots = roots;
        Ok(())
    }

    /// Looks into the store, makes keys that are due, and takes what is new.
    ///
    /// # Errors
    /// [`SharedKeysError`]; the keys in use stay in use.
    pub async fn keep_up(&self) -> Result<(), SharedKeysError> {
        let kept = self.follow(false).await;
        let is_outage = matches!(kept, Err(SharedKeysError::Store(_)));
        self.state().answered = !is_outage;
        kept
    }

    /// Makes a new key whatever the age of the newest one.
    ///
    /// # Errors
    /// [`SharedKeysError`].
    pub async fn rotate(&self) -> Result<(), SharedKeysError> {
        self.follow(true).await
    }

    /// Looks into the store where a key is not known here; all who ask at the same time share one look, and
    /// there are not more than a few in a while, whatever clients send.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer: whose key it is can't be told then.
    pub async fn learn(self: &Arc<Self>, id: KeyId) -> Result<(), StoreError> {
        if self.ring.has(id) {
            return Ok(());
        }
        let look = || {
            let may_ask = self.state().asks.take(self.clock.now());
            let keys = Arc::clone(self);
            may_ask.then_some(async move { !matches!(keys.keep_up().await, Err(SharedKeysError::Store(_))) })
        };
        let looked = self.look.join(&self.runtime, look).await;
        if looked.unwrap_or_else(|| self.state().answered) {
            return Ok(());
        }
        Err(StoreError::new("a session key is not known here, and the store can't be asked for it"))
    }

    async fn follow(&self, by_hand: bool) -> Result<(), SharedKeysError> {
        let roots = self.state().roots.clone();
        let mut renewed = Ok(());
        for (place, root) in roots.iter().enumerate() {
            let mut found = self.read(root).await?;
            if place == 0 {
                match self.renew(root, &found, by_hand).await {
                    Ok(keys) => found.keys = Some(keys),
                    Err(SharedKeysError::Store(error)) => return Err(error.into()),
                    // The keys of the other roots count all the same.
                    Err(error) => renewed = Err(error),
                }
            }
            self.note(root.key.id, found.keys.as_ref())?;
        }
        // Under the lock: of two looks at the same time the later one must not be undone by the other.
        self.take(&self.state().roots)?;
        renewed
    }

    /// Remembers the keys of a root, if it still is one; what another look has found meanwhile stays.
    fn note(&self, root: KeyId, keys: Option<&MadeKeys>) -> Result<(), KeyError> {
        let mut state = self.state();
        if let Some(root) = state.roots.iter_mut().find(|known| known.key.id == root) {
            let made = together(keys, root.made.as_ref())?;
            root.made = made.map(|made| made.living(&self.rotation, self.clock.now()));
        }
        Ok(())
    }

    async fn read(&self, root: &Root) -> Result<Found, StoreError> {
        let Some(stored) = self.store.get(root.place()).await? else { return Ok(Found::default()) };
        let opened = open_keys(&root.ring, &root.place().0, &stored.record.payload);
        Ok(Found { keys: opened.ok(), version: Some(stored.version) })
    }

    /// The keys of the first root as they should be, written to the store where they are not.
    async fn renew(&self, root: &Root, found: &Found, by_hand: bool) -> Result<MadeKeys, SharedKeysError> {
        let now = self.clock.now();
        if let Some(keys) = self.unchanged(root, found, now)?.filter(|_| !by_hand) {
            return Ok(keys);
        }
        let begun = Instant::now();
        let Some(lease) = self.store.lease(root.place(), LEASE).await? else {
            let known = found.keys.as_ref().or(root.made.as_ref()).cloned().filter(|_| !by_hand);
            return known.ok_or(SharedKeysError::Busy);
        };
        let renewed = self.renew_alone(root, by_hand, &lease, begun).await;
        // It runs out by itself too.
        self.store.release(lease).await.ok();
        renewed
    }

    async fn renew_alone(
        &self,
        root: &Root,
        by_hand: bool,
        lease: &Lease,
        begun: Instant,
    ) -> Result<MadeKeys, SharedKeysError> {
        let (found, now) = (self.read(root).await?, self.clock.now());
        // Somebody was faster.
        if let Some(keys) = self.unchanged(root, &found, now)?.filter(|_| !by_hand) {
            return Ok(keys);
        }
        let keys = match together(found.keys.as_ref(), root.made.as_ref())? {
            None => MadeKeys::first(Key::random()?, now),
            Some(keys) if by_hand || keys.is_due(&self.rotation, now) => {
                keys.living(&self.rotation, now).rotated(Key::random()?, now)?
            }
            Some(keys) => keys,
        };
        // Whoever was held up for so long may not be alone any more.
        if begun.elapsed() > LEASE / 2 {
            return Err(SharedKeysError::Busy);
        }
        self.write(root, &keys, found.version, lease).await?;
        Ok(keys)
    }

    /// The keys of a record, where nothing is to be done about it: none of those that are known here and
    /// still live is missing, and no new one is due.
    fn unchanged(&self, root: &Root, found: &Found, now: UnixTime) -> Result<Option<MadeKeys>, KeyError> {
        let Some(keys) = &found.keys else { return Ok(None) };
        let known = root.made.as_ref().map(|made| made.living(&self.rotation, now));
        let all = together(Some(keys), known.as_ref())?;
        Ok(all.filter(|all| all == keys && !keys.is_due(&self.rotation, now)))
    }

    async fn write(
        &self,
        root: &Root,
        keys: &MadeKeys,
        version: Option<u64>,
        lease: &Lease,
    ) -> Result<(), SharedKeysError> {
        let key = root.place();
        let payload = seal_keys(&root.ring, &key.0, keys)?.into();
        let record = Record { key, indexes: Vec::new(), payload };
        let every = self.rotation.every.unwrap_or_default();
        let ttl = 2 * every + self.rotation.delay + self.rotation.life + KEPT;
        let Some(version) = version else { return Ok(self.store.put(record, ttl).await?) };
        match self.store.replace(record, ttl, version, Some(lease)).await? {
            Replaced::Done(_) => Ok(()),
            Replaced::Conflict | Replaced::Gone => Err(SharedKeysError::Busy),
        }
    }

    /// Gives the ring the keys that these roots make.
    fn take(&self, roots: &[Root]) -> Result<(), KeyError> {
        let keys = ring_of(roots, &self.rotation, self.clock.now());
        if self.ring.replace(&keys)? {
            self.events.session_keys_loaded(&self.ring.ids());
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What is kept here is whole after every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SharedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKeys")
    }
}

/// In front the newest key that all gateways know by now, of the first root that has one, else the first
/// root itself; then all that may still open something.
fn ring_of(roots: &[Root], rotation: &Rotation, now: UnixTime) -> Vec<Key> {
    let made: Vec<_> =
        roots.iter().filter_map(|root| Some(root.made.as_ref()?.living(rotation, now))).collect();
    let may_seal = made.iter().find_map(|keys| keys.sealing(rotation.delay, now));
    let mut ring: Vec<Key> = may_seal.cloned().into_iter().collect();
    let roots = roots.iter().map(|root| &root.key);
    let all = made.iter().flat_map(MadeKeys::as_slice).map(|made| &made.key);
    let in_order: Vec<_> =
        if ring.is_empty() { roots.chain(all).collect() } else { all.chain(roots).collect() };
    for key in in_order {
        if ring.iter().all(|known| known.id != key.id) {
            ring.push(key.clone());
        }
    }
    ring
}

fn together(one: Option<&MadeKeys>, other: Option<&MadeKeys>) -> Result<Option<MadeKeys>, KeyError> {
    match (one, other) {
        (Some(one), Some(other)) => one.merged(other).map(Some),
        (one, other) => Ok(one.or(other).cloned()),
    }
}

#[cfg(test)]
mod tests;
