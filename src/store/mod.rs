//! Where sessions live: one trait, its backends, and one contract suite that all of them pass.
//!
//! A store sees hashes and sealed bytes, never an id or a token. Absent is `Ok(None)`; an outage is
//! `Err`; nothing maps the second to the first.

pub mod disk;
pub mod guard;
pub mod memory;
pub mod observed;
pub mod redis;

#[cfg(test)]
mod contract;
#[cfg(test)]
pub(crate) mod peer;

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::broadcast;

use crate::clock::UnixTime;
use crate::clock::bucket::Rate;

/// A hashed key: of a session, a mark, a lease.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StoreKey(pub [u8; 32]);

/// A hashed secondary key: (issuer, sid), (issuer, sub), a user. Each kind hashes under its own
/// label, so that a `sub` never matches a `sid` (BC-6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Index(pub [u8; 32]);

impl StoreKey {
    /// A key under `label`; the parts are length-prefixed, so that they can't run into each other.
    #[must_use]
    pub fn derive(label: &str, parts: &[&[u8]]) -> Self {
        Self(hash(label, parts))
    }
}

impl Index {
    /// The index of a provider's session.
    #[must_use]
    pub fn of_sid(issuer: &str, sid: &str) -> Self {
        Self(hash("index issuer+sid", &[issuer.as_bytes(), sid.as_bytes()]))
    }

    /// The index of a user's sessions.
    #[must_use]
    pub fn of_sub(issuer: &str, sub: &str) -> Self {
        Self(hash("index issuer+sub", &[issuer.as_bytes(), sub.as_bytes()]))
    }
}

fn hash(label: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in std::iter::once(&label.as_bytes()).chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// A record to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: StoreKey,
    /// Its secondary keys.
    pub indexes: Vec<Index>,
    /// Sealed bytes.
    pub payload: Bytes,
}

/// A record as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// 1 after `put`, one more after each `replace`.
    pub version: u64,
    /// When it is gone.
    pub expires_at: UnixTime,
}

/// The result of a conditional write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// Written; the new version.
    Done(u64),
    /// Somebody else wrote in between, or a lease's fence was passed; nothing was written.
    Conflict,
    /// There is no such record any more; nothing was written.
    Gone,
}

/// A lease on a key: at most one holder at a time, until it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it is on.
    pub key: StoreKey,
    /// Grows with every lease granted on the key: a write with an older one is refused.
    pub fence: u64,
}

/// What is wanted of a rate: [`SessionStore::take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// One.
    One,
    /// Nothing: only to know whether there is one.
    Nothing,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// There was one.
    Yes,
    /// There is none before this long.
    NotFor(Duration),
    /// Nobody else is on this store: whoever asks counts for himself.
    Uncounted,
}

/// Where a walk through a store goes on: text that only the store which wrote it can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(Box<str>);

impl Cursor {
    /// What a store wrote, perhaps handed out and given back since.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// As text, in letters that a URL takes as they are.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// After a key, in a store that walks in the order of keys.
    fn after(key: StoreKey) -> Self {
        Self::new(URL_SAFE_NO_PAD.encode(key.0))
    }

    /// The key that this goes on after.
    fn key(&self) -> Result<StoreKey, StoreError> {
        let bytes = URL_SAFE_NO_PAD.decode(&*self.0).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(StoreKey).ok_or_else(Self::unknown)
    }

    fn unknown() -> StoreError {
        StoreError::new("the cursor is not one of this store")
    }
}

/// One page of [`SessionStore::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Records, in no particular order.
    pub records: Vec<Stored>,
    /// The cursor of the next page; `None` after the last.
    pub next: Option<Cursor>,
}

/// What another process did to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// This record was written anew.
    Written(StoreKey),
    /// This record was removed.
    Removed(StoreKey),
    /// The feed was interrupted: anything may have changed meanwhile.
    Missed,
}

/// The store did not answer. Never means "absent".
#[derive(Debug, thiserror::Error)]
#[error("the session store is unavailable: {reason}")]
pub struct StoreError {
    /// What happened, without keys or values.
    pub reason: String,
    /// The backend's error.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// An error with nothing behind it.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), source: None }
    }

    /// An error of the backend.
    #[must_use]
    pub fn caused_by(
        reason: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { reason: reason.into(), source: Some(source.into()) }
    }
}

/// A store of sessions. Every method is atomic; when a write returns `Ok` it survives a crash of the
/// process (for `disk`, of the machine; for `redis`, as much as the server is told to keep). A write that
/// returns `Err` happened whole or not at all, or still may happen where the answer of a server was lost.
///
/// Records, marks and leases have name spaces of their own. What has come to its end is absent from
/// every method at once, whenever it is swept. A `ttl` too long to be counted lasts to the end of
/// time; with a `ttl` of zero a record is absent at once, and no mark and no lease is granted.
///
/// # Errors
/// Every method: [`StoreError`] when the store can't answer.
#[async_trait]
pub trait SessionStore: Send + Sync + std::fmt::Debug {
    /// The record of a key; expired ones are absent.
    async fn get(&self, key: StoreKey) -> Result<Option<Stored>, StoreError>;

    /// Writes a record that ends after `ttl`, as version 1, over whatever was there.
    async fn put(&self, record: Record, ttl: Duration) -> Result<(), StoreError>;

    /// Writes a record if the stored one has `expected_version`. Where a lease is given it must be on the
    /// record's own key and still held: its fence the newest of its key and not run out.
    async fn replace(
        &self,
        record: Record,
        ttl: Duration,
        expected_version: u64,
        lease: Option<&Lease>,
    ) -> Result<Replaced, StoreError>;

    /// Removes a record; says whether it was there.
    async fn remove(&self, key: StoreKey) -> Result<bool, StoreError>;

    /// Keys and versions of all live records under an index.
    async fn find_by(&self, index: Index) -> Result<Vec<(StoreKey, u64)>, StoreError>;

    /// Removes all records under an index (with `and`: under both) and says which were live. Where several
    /// servers have them an error may leave some removed; to do it again is to go on with it.
    async fn remove_by(&self, index: Index, and: Option<Index>) -> Result<Vec<StoreKey>, StoreError>;

    /// Marks a key for `ttl`; a later mark only lengthens.
    async fn mark(&self, key: StoreKey, ttl: Duration) -> Result<(), StoreError>;

    /// Whether a key is marked, by `mark` or `put_once`.
    async fn is_marked(&self, key: StoreKey) -> Result<bool, StoreError>;

    /// Marks a key if it is not marked; says whether this call did it. Of any number of concurrent calls
    /// one gets `true`; one that could not mark (a `ttl` of zero) gets `false`.
    async fn put_once(&self, key: StoreKey, ttl: Duration) -> Result<bool, StoreError>;

    /// Takes a lease if nobody holds one; its fence is larger than that of any earlier lease on the key,
    /// also of those that ended.
    async fn lease(&self, key: StoreKey, ttl: Duration) -> Result<Option<Lease>, StoreError>;

    /// Lengthens a lease that is still held to `ttl` from now, and never shortens it; `false` if it was
    /// lost.
    async fn extend(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError>;

    /// Gives a lease back; one that was lost changes nothing.
    async fn release(&self, lease: Lease) -> Result<(), StoreError>;

    /// A page of live records, about `limit` of them: fewer, even none, or some more, whether or not there
    /// is a next page. Every record that lives from the first page to the last is on at least one of them,
    /// those that come or go meanwhile perhaps. A cursor that is not of this store is an error.
    async fn list(&self, cursor: Option<Cursor>, limit: usize) -> Result<Page, StoreError>;

    /// Takes from a rate that everybody on this store shares, under a key: in one step, and as
    /// [`Bucket`](crate::clock::bucket::Bucket) does. What was taken is forgotten when it is all regained. A store
    /// of one process counts nothing.
    async fn take(&self, key: StoreKey, rate: Rate, take: Take) -> Result<Taken, StoreError>;

    /// What other processes do to the store from now on; `None` where there are no others. A receiver that
    /// lags has missed changes, as [`Change::Missed`] says.
    fn changes(&self) -> Option<broadcast::Receiver<Change>>;

    /// Whether the store answers (for `disk`: can write).
    async fn ping(&self) -> Result<(), StoreError>;
}
