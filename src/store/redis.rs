//! Sessions in Redis or Valkey, one server or a cluster: for several gateways that share them.
//!
//! # Keys
//!
//! Below a prefix, `K` and `I` the hash of a key or an index in base64url:
//!
//! ```text
//! s:{K}     a record: format, version, fence, id of the write, indexes, payload; ends by the server's TTL
//! l:{K}     the lease on it: its fence; ends by the server's TTL
//! m:{K}     a mark; ends by the server's TTL
//! r:{K}     a rate: what was taken is regained when the server's TTL ends
//! x:{I}     an index: a sorted set of members (key of a record, id of a write), the score is their end
//! changes   the channel on which writes tell of themselves
//! ```
//!
//! The braces put a record and its lease into one slot of a cluster, so that a script may look at both;
//! an index lives in a slot of its own and is never touched in one step with a record.
//!
//! # An index never misses a live record
//!
//! A record that an index missed would outlive the sign-out of its user. Every write has a random id, in
//! the record and in the members of that write, and goes in this order: its members join the indexes;
//! the record is written; the members of the write that it replaced leave. A removal takes the record
//! first, then its members. From this follows:
//!
//! - A crash or a lost answer anywhere leaves members too many, never too few. Who reads an index looks at
//!   each record and believes the record's own list of indexes, so a member too many is nothing.
//! - A member leaves for one of three reasons. Its write was told not to have happened (and is not sent
//!   again). The record of its write was found overwritten or taken, which happens once and to whoever did
//!   it. Or its end has passed.
//! - So somebody who removes an old record of a key can't take away the member of a new one, and a replace
//!   that drops an index can't take away what a later replace has put there: the ids differ.
//! - Between a write and the leaving of the old members an index has both. At any moment it has at least
//!   one member of a live record; members are therefore read in one step, never by a scan that could pass
//!   the new one before it came and the old one after it left.
//! - A command that a server does late (it was stopped, the answer was given up) can't make a record that
//!   outlives its members: [`JOIN`] says until when the record may live, and [`PUT`] and [`REPLACE`] hold
//!   the record to it. Between the two stands [`SLACK`], by which the clocks of a cluster's servers may
//!   differ. Nothing depends on the clocks of gateways.
//! - Members that nobody takes away are gone at their end, with the next member that joins, or with the
//!   whole set, which ends with the last of all that ever joined it.
//!
//! What none of this can mend: a failover to a replica that has not got everything yet loses the writes
//! that it has not got; `docs/operations.md` says what that means.
//!
//! # Once
//!
//! A command is sent once. An answer that did not come is an error, and what was sent may happen or not;
//! only a server that says that it did nothing (moved, script not known) is followed by another attempt.
//! So nobody is told that his `put_once` came too late when it was his own.

mod dial;
mod feed;
mod layout;
mod link;
mod scripts;
mod servers;
mod settings;
mod trouble;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::future::join_all;
use redis::{Cmd, FromRedisValue, ServerErrorKind, Value};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::broadcast;
use tokio::time::sleep;

pub use self::settings::{Address, Password, RedisSettings, Trust};

use self::dial::Dialer;
use self::feed::{Feed, Origin, WAITING_CHANGES};
use self::layout::{Head, Name, Names, key_of_member, member};
use self::link::Keeper;
use self::scripts::{
    EXTEND, GET, JOIN, LEASE, LOOK, Lua, MARK, PROBE, PUT, RELEASE, REPLACE, TAKE, TAKE_OF_RATE,
};
use self::servers::Servers;
use super::{
    Change, Cursor, Index, Lease, Page, Record, Replaced, SessionStore, StoreError, StoreKey, Stored, Take,
    Taken,
};
use crate::clock::bucket::Rate;
use crate::clock::{Clock, UnixTime};
use crate::random::{RandomError, random_bytes};

/// By how much the clocks of a cluster's servers may differ.
const SLACK: Duration = Duration::from_secs(30);
/// A time to live that is longer has no end: Redis could not count it.
const LONGEST_MILLIS: u128 = 1 << 52;
/// How many commands of one operation are under way at once.
const AT_ONCE: usize = 256;
/// How many keys one step of a walk looks at, and how many steps make a page at most.
const SCANNED: std::ops::RangeInclusive<usize> = 10..=1000;
const STEPS: usize = 100;

/// A store in Redis.
pub struct RedisStore {
    servers: Arc<Servers>,
    names: Names,
    clock: Clock,
    channel: String,
    origin: Origin,
    changes: broadcast::Sender<Change>,
    _tasks: [Keeper; 2],
}

impl RedisStore {
    /// Begins to connect on `runtime`, and goes on with it for as long as the store lives; nothing waits
    /// for a server here.
    ///
    /// # Errors
    /// Without an address, or without entropy.
    pub fn open(settings: RedisSettings, clock: Clock, runtime: &Handle) -> Result<Self, StoreError> {
        let origin = random_bytes().map_err(no_entropy)?;
        let names = Names::new(&settings.key_prefix);
        let (changes, _) = broadcast::channel(WAITING_CHANGES);
        let dialer = Arc::new(Dialer { settings });
        let servers = Arc::new(Servers::new(&dialer, runtime)?);
        let feed = Feed {
            dialer,
            servers: Arc::clone(&servers),
            channel: names.channel(),
            origin,
            changes: changes.clone(),
        };
        let watching = Keeper(runtime.spawn(warn_of_eviction(Arc::clone(&servers))));
        let tasks = [Keeper(runtime.spawn(feed.run())), watching];
        Ok(Self { servers, channel: names.channel(), names, clock, origin, changes, _tasks: tasks })
    }

    /// What a server says of how it gives memory back, where that loses sessions.
    ///
    /// # Errors
    /// [`StoreError`] when a server does not answer, or may not say it.
    pub async fn eviction(&self) -> Result<Option<String>, StoreError> {
        eviction(&self.servers).await
    }

    /// Runs a script on keys of one slot.
    async fn run<T: FromRedisValue>(
        &self,
        lua: &Lua,
        names: &[&Name],
        args: &[&[u8]],
    ) -> Result<T, StoreError> {
        let slot = names.first().map_or(0, |name| name.slot);
        let command = |verb: &str, script: &str| {
            let mut command = redis::cmd(verb);
            command.arg(script).arg(names.len());
            for name in names {
                command.arg(&name.text);
            }
            for arg in args {
                command.arg(*arg);
            }
            command
        };
        let mut answer = self.servers.send(slot, &command("EVALSHA", &lua.hash)).await;
        if answer.as_ref().is_err_and(|trouble| trouble.kind() == Some(ServerErrorKind::NoScript)) {
            answer = self.servers.send(slot, &command("EVAL", &lua.text)).await;
        }
        read(answer?)
    }

    async fn send<T: FromRedisValue>(&self, slot: u16, command: &Cmd) -> Result<T, StoreError> {
        read(self.servers.send(slot, command).await?)
    }

    /// Makes a write ready: its members are in the indexes when this returns.
    async fn prepare(&self, record: &Record, version: u64, ttl: Duration) -> Result<Write, StoreError> {
        let head =
            Head { version, write: random_bytes().map_err(no_entropy)?, indexes: record.indexes.clone() };
        let (before, mut after) =
            head.encode().ok_or_else(|| StoreError::new("a record has too many indexes"))?;
        after.extend_from_slice(&record.payload);
        let latest = if has_ended(ttl) { life(ttl) } else { self.join(record.key, &head, ttl).await? };
        let (written, removed) =
            (feed::written(self.origin, record.key), feed::removed(self.origin, record.key));
        Ok(Write { key: record.key, head, before, after, ttl: life(ttl), latest, written, removed })
    }

    /// The members of a write join its indexes; until when the record may live.
    async fn join(&self, key: StoreKey, head: &Head, ttl: Duration) -> Result<String, StoreError> {
        let (member, life, slack) = (member(key, head.write), life(ttl), SLACK.as_millis().to_string());
        let args = [&member[..], life.as_bytes(), slack.as_bytes()];
        let join = async |index: &Index| {
            let latest: String = self.run(&JOIN, &[&self.names.index(*index)], &args).await?;
            Ok::<_, StoreError>(latest)
        };
        let indexes: BTreeSet<_> = head.indexes.iter().collect();
        let joined = join_all(indexes.into_iter().map(join)).await;
        let joined = joined.into_iter().collect::<Result<Vec<_>, _>>()?;
        // What does not end is no number.
        let latest = joined.iter().filter_map(|latest| latest.parse::<u64>().ok()).min();
        Ok(latest.map_or_else(|| FOREVER.to_owned(), |latest| latest.to_string()))
    }

    /// The members of a write that is no more leave its indexes. What fails leaves by itself, at its end.
    async fn leave(&self, key: StoreKey, head: &Head) {
        let member = member(key, head.write);
        let indexes: BTreeSet<_> = head.indexes.iter().collect();
        join_all(indexes.into_iter().map(|index| self.drop_members(*index, std::slice::from_ref(&member))))
            .await;
    }

    async fn drop_members(&self, index: Index, members: &[Vec<u8>]) {
        let name = self.names.index(index);
        let mut command = redis::cmd("ZREM");
        command.arg(&name.text);
        for member in members {
            command.arg(member.as_slice());
        }
        self.send::<i64>(name.slot, &command).await.ok();
    }

    /// The records that an index may be about, in one step.
    async fn members(&self, index: Index) -> Result<Vec<StoreKey>, StoreError> {
        let name = self.names.index(index);
        let mut command = redis::cmd("ZRANGE");
        command.arg(&name.text).arg(0).arg(-1);
        let members: Vec<Vec<u8>> = self.send(name.slot, &command).await?;
        let keys: BTreeSet<_> = members.iter().filter_map(|member| key_of_member(member)).collect();
        Ok(keys.into_iter().collect())
    }

    async fn look(&self, key: StoreKey) -> Result<Option<Head>, StoreError> {
        let head: Vec<u8> = self.run(&LOOK, &[&self.names.record(key)], &[]).await?;
        parse_head(&head)
    }

    /// Removes a record if it is under all these indexes; its head.
    async fn take(&self, key: StoreKey, indexes: &[Index]) -> Result<Option<Head>, StoreError> {
        let removed = feed::removed(self.origin, key);
        let mut args = vec![self.channel.as_bytes(), removed.as_slice()];
        args.extend(indexes.iter().map(|index| &index.0[..]));
        let head: Vec<u8> = self.run(&TAKE, &[&self.names.record(key)], &args).await?;
        parse_head(&head)
    }

    /// Takes some records at once; the members of those that were there leave, whatever became of the others.
    async fn take_all(
        &self,
        keys: &[StoreKey],
        indexes: &[Index],
        removed: &mut Vec<StoreKey>,
    ) -> Result<(), StoreError> {
        let taken = join_all(keys.iter().map(|key| self.take(*key, indexes))).await;
        let (mut heads, mut failed) = (Vec::new(), None);
        for (key, head) in keys.iter().zip(taken) {
            match head {
                Ok(Some(head)) => heads.push((*key, head)),
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        removed.extend(heads.iter().map(|(key, _)| *key));
        // All have left the shared index in one command, so their own part is short.
        if let Some(shared) = indexes.first().filter(|_| !heads.is_empty()) {
            let members: Vec<_> = heads.iter().map(|(key, head)| member(*key, head.write)).collect();
            self.drop_members(*shared, &members).await;
            for (_, head) in &mut heads {
                head.indexes.retain(|index| index != shared);
            }
        }
        join_all(heads.iter().map(|(key, head)| self.leave(*key, head))).await;
        failed.map_or(Ok(()), Err)
    }

    /// A page of one master's keys; where the walk goes on with it.
    async fn scan(&self, place: &mut Place, limit: usize) -> Result<Vec<StoreKey>, StoreError> {
        let masters = self.servers.masters().await?;
        let master = masters.get(place.master).ok_or_else(Cursor::unknown)?;
        let count = limit.clamp(*SCANNED.start(), *SCANNED.end());
        let mut keys = BTreeSet::new();
        for _ in 0..STEPS {
            let mut command = redis::cmd("SCAN");
            command.arg(place.scan).arg("MATCH").arg(self.names.records()).arg("COUNT").arg(count);
            let answer = self.servers.send_to(master, &command).await?;
            let (scan, names): (u64, Vec<String>) = read(answer)?;
            keys.extend(names.iter().filter_map(|name| self.names.key_of(name)));
            place.scan = scan;
            if scan == 0 || limit <= keys.len() {
                break;
            }
        }
        Ok(keys.into_iter().collect())
    }

    /// What must stay as it is while a master's keys are walked through: the slots, and the process, whose
    /// order of keys is its own.
    async fn stamp(&self, master: usize) -> Result<String, StoreError> {
        let masters = self.servers.masters().await?;
        let master = masters.get(master).ok_or_else(Cursor::unknown)?;
        let mut command = redis::cmd("INFO");
        command.arg("server");
        let info: String = read(self.servers.send_to(master, &command).await?)?;
        let process = line(&info, "run_id:").unwrap_or_default();
        let hash = Sha256::digest(format!("{master} {process} {}", self.servers.layout().await?));
        Ok(URL_SAFE_NO_PAD.encode(hash.first_chunk::<12>().copied().unwrap_or_default()))
    }
}

/// A write, made ready.
struct Write {
    key: StoreKey,
    head: Head,
    before: Vec<u8>,
    after: Vec<u8>,
    ttl: String,
    latest: String,
    written: Vec<u8>,
    removed: Vec<u8>,
}

impl Write {
    fn args<'a>(&'a self, channel: &'a str) -> Vec<&'a [u8]> {
        let (ttl, latest) = (self.ttl.as_bytes(), self.latest.as_bytes());
        vec![&self.before, &self.after, ttl, latest, channel.as_bytes(), &self.written, &self.removed]
    }
}

/// Where a walk through all masters is.
struct Place {
    master: usize,
    scan: u64,
    stamp: String,
}

impl Place {
    fn parse(cursor: &Cursor) -> Option<Self> {
        let mut parts = cursor.as_str().split('.');
        let (stamp, master, scan) = (parts.next()?, parts.next()?, parts.next()?);
        let place = Self { master: master.parse().ok()?, scan: scan.parse().ok()?, stamp: stamp.to_owned() };
        (parts.next().is_none() && stamp.len() == 16).then_some(place)
    }

    fn cursor(&self) -> Cursor {
        Cursor::new(format!("{}.{}.{}", self.stamp, self.master, self.scan))
    }
}

/// The time to live of what does not end.
const FOREVER: &str = "forever";

fn life(ttl: Duration) -> String {
    let millis = ttl.as_millis();
    if LONGEST_MILLIS < millis { FOREVER.to_owned() } else { millis.to_string() }
}

/// Redis counts milliseconds.
fn has_ended(ttl: Duration) -> bool {
    ttl.as_millis() == 0
}

fn no_entropy(error: RandomError) -> StoreError {
    StoreError::caused_by("no entropy", error)
}

fn read<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    T::from_redis_value(value).map_err(|_kind| StoreError::new("Redis gave an answer of another kind"))
}

fn parse_head(bytes: &[u8]) -> Result<Option<Head>, StoreError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (head, _) = Head::parse(bytes).ok_or_else(unreadable)?;
    Ok(Some(head))
}

fn unreadable() -> StoreError {
    StoreError::new("a record has a format that this program does not read")
}

/// The value of a line of `INFO`.
fn line<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Says so once where memory is given back by forgetting sessions; asks until somebody answers.
async fn warn_of_eviction(servers: Arc<Servers>) {
    for _ in 0..600 {
        match eviction(&servers).await {
            Ok(Some(problem)) => return tracing::warn!(event = "redis_evicts", "{problem}"),
            Ok(None) => return,
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    }
}

async fn eviction(servers: &Servers) -> Result<Option<String>, StoreError> {
    for master in servers.masters().await? {
        let mut command = redis::cmd("INFO");
        command.arg("memory");
        let info: String = read(servers.send_to(&master, &command).await?)?;
        let policy = line(&info, "maxmemory_policy:").unwrap_or("noeviction");
        if policy != "noeviction" {
            return Ok(Some(format!(
                "Redis at {master} has maxmemory-policy {policy}: when its memory is full it forgets sessions \
                 and what was signed out; set it to noeviction"
            )));
        }
    }
    Ok(None)
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl SessionStore for RedisStore {
    async fn get(&self, key: StoreKey) -> Result<Option<Stored>, StoreError> {
        let found: Option<(Vec<u8>, i64)> = self.run(&GET, &[&self.names.record(key)], &[]).await?;
        let Some((bytes, left)) = found else { return Ok(None) };
        let (head, payload) = Head::parse(&bytes).ok_or_else(unreadable)?;
        let Head { version, indexes, .. } = head;
        let start = bytes.len() - payload.len();
        let record = Record { key, indexes, payload: Bytes::from(bytes).slice(start..) };
        let left = u64::try_from(left).map(Duration::from_millis);
        let expires_at = left.map_or(UnixTime::MAX, |left| self.clock.now() + left);
        Ok(Some(Stored { record, version, expires_at }))
    }

    async fn put(&self, record: Record, ttl: Duration) -> Result<(), StoreError> {
        let write = self.prepare(&record, 1, ttl).await?;
        let args = write.args(&self.channel);
        let old: Vec<u8> = self.run(&PUT, &[&self.names.record(record.key)], &args).await?;
        if let Some(old) = parse_head(&old)? {
            self.leave(record.key, &old).await;
        }
        Ok(())
    }

    async fn replace(
        &self,
        record: Record,
        ttl: Duration,
        expected_version: u64,
        lease: Option<&Lease>,
    ) -> Result<Replaced, StoreError> {
        let key = record.key;
        if lease.is_some_and(|lease| lease.key != key) {
            return Ok(self.look(key).await?.map_or(Replaced::Gone, |_| Replaced::Conflict));
        }
        let version = expected_version.saturating_add(1);
        let write = self.prepare(&record, version, ttl).await?;
        let expected = expected_version.to_be_bytes();
        let fence = lease.map(|lease| fence_text(lease.fence)).unwrap_or_default();
        let mut args = write.args(&self.channel);
        args.extend([&expected[..], fence.as_bytes()]);
        let names = [&self.names.record(key), &self.names.lease(key)];
        // While a cluster moves a slot, it answers for two keys only where it has both.
        let names = if lease.is_some() { &names[..] } else { &names[..1] };
        let answer: Vec<Vec<u8>> = self.run(&REPLACE, names, &args).await?;
        let (old, replaced) = match answer.as_slice() {
            [done, old] if done == b"done" => (parse_head(old)?, Replaced::Done(version)),
            [gone] if gone == b"gone" => (Some(write.head), Replaced::Gone),
            _ => (Some(write.head), Replaced::Conflict),
        };
        if let Some(old) = old {
            self.leave(write.key, &old).await;
        }
        Ok(replaced)
    }

    async fn remove(&self, key: StoreKey) -> Result<bool, StoreError> {
        let Some(head) = self.take(key, &[]).await? else { return Ok(false) };
        self.leave(key, &head).await;
        Ok(true)
    }

    async fn find_by(&self, index: Index) -> Result<Vec<(StoreKey, u64)>, StoreError> {
        let mut found = Vec::new();
        for keys in self.members(index).await?.chunks(AT_ONCE) {
            let heads = join_all(keys.iter().map(|key| self.look(*key))).await;
            for (key, head) in keys.iter().zip(heads) {
                let under = head?.filter(|head| head.indexes.contains(&index));
                found.extend(under.map(|head| (*key, head.version)));
            }
        }
        Ok(found)
    }

    async fn remove_by(&self, index: Index, and: Option<Index>) -> Result<Vec<StoreKey>, StoreError> {
        let indexes: Vec<_> = std::iter::once(index).chain(and).collect();
        let (mut removed, mut outcome) = (Vec::new(), Ok(()));
        for keys in self.members(index).await?.chunks(AT_ONCE) {
            // Those on a server that does not answer keep nobody from removing the others.
            let taken = self.take_all(keys, &indexes, &mut removed).await;
            outcome = outcome.and(taken);
        }
        outcome.map(|()| removed)
    }

    async fn mark(&self, key: StoreKey, ttl: Duration) -> Result<(), StoreError> {
        if has_ended(ttl) {
            return Ok(());
        }
        self.run::<i64>(&MARK, &[&self.names.mark(key)], &[life(ttl).as_bytes()]).await.map(drop)
    }

    async fn is_marked(&self, key: StoreKey) -> Result<bool, StoreError> {
        let name = self.names.mark(key);
        let mut command = redis::cmd("EXISTS");
        command.arg(&name.text);
        let marks: i64 = self.send(name.slot, &command).await?;
        Ok(marks != 0)
    }

    async fn put_once(&self, key: StoreKey, ttl: Duration) -> Result<bool, StoreError> {
        if has_ended(ttl) {
            return Ok(false);
        }
        let (name, life) = (self.names.mark(key), life(ttl));
        let mut command = redis::cmd("SET");
        command.arg(&name.text).arg(1).arg("NX");
        if life != FOREVER {
            command.arg("PX").arg(life);
        }
        let done: Option<String> = self.send(name.slot, &command).await?;
        Ok(done.is_some())
    }

    async fn lease(&self, key: StoreKey, ttl: Duration) -> Result<Option<Lease>, StoreError> {
        if has_ended(ttl) {
            return Ok(None);
        }
        let names = [&self.names.lease(key), &self.names.record(key)];
        let fence: Option<u64> = self.run(&LEASE, &names, &[life(ttl).as_bytes()]).await?;
        Ok(fence.map(|fence| Lease { key, fence }))
    }

    async fn extend(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let (fence, life) = (fence_text(lease.fence), life(ttl));
        let args = [fence.as_bytes(), life.as_bytes()];
        let held: i64 = self.run(&EXTEND, &[&self.names.lease(lease.key)], &args).await?;
        Ok(held == 1)
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        let fence = fence_text(lease.fence);
        let name = self.names.lease(lease.key);
        self.run::<i64>(&RELEASE, &[&name], &[fence.as_bytes()]).await.map(drop)
    }

    async fn list(&self, cursor: Option<Cursor>, limit: usize) -> Result<Page, StoreError> {
        let place = cursor.map(|cursor| Place::parse(&cursor).ok_or_else(Cursor::unknown)).transpose()?;
        let mut place = place.unwrap_or(Place { master: 0, scan: 0, stamp: String::new() });
        let stamp = self.stamp(place.master).await?;
        if !place.stamp.is_empty() && place.stamp != stamp {
            return Err(StoreError::new("the servers have changed: the list has to begin again"));
        }
        place.stamp = stamp;
        let keys = self.scan(&mut place, limit.max(1)).await?;
        if place.scan == 0 {
            place.master += 1;
        }
        let mut records = Vec::with_capacity(keys.len());
        for keys in keys.chunks(AT_ONCE) {
            let found = join_all(keys.iter().map(|key| self.get(*key))).await;
            let found = found.into_iter().collect::<Result<Vec<_>, _>>()?;
            records.extend(found.into_iter().flatten());
        }
        let is_last = self.servers.masters().await?.len() <= place.master;
        if !is_last && place.scan == 0 {
            place.stamp = self.stamp(place.master).await?;
        }
        Ok(Page { records, next: (!is_last).then(|| place.cursor()) })
    }

    async fn take(&self, key: StoreKey, rate: Rate, take: Take) -> Result<Taken, StoreError> {
        let (count, period) = (rate.count.to_string(), rate.period().as_millis().to_string());
        let taken: &[u8] = if take == Take::One { b"1" } else { b"0" };
        let args = [count.as_bytes(), period.as_bytes(), taken];
        let wait: u64 = self.run(&TAKE_OF_RATE, &[&self.names.rate(key)], &args).await?;
        Ok(if wait == 0 { Taken::Yes } else { Taken::NotFor(Duration::from_millis(wait)) })
    }

    fn changes(&self) -> Option<broadcast::Receiver<Change>> {
        Some(self.changes.subscribe())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        // Another slot each time, so that all servers of a cluster are asked sooner or later.
        let name = self.names.probe(random_bytes().map_err(no_entropy)?);
        self.run::<i64>(&PROBE, &[&name], &[]).await.map(drop)
    }
}

/// A fence as scripts write it.
fn fence_text(fence: u64) -> String {
    format!("{fence:0width$}", width = layout::FENCE)
}

#[cfg(test)]
pub(super) mod tests;
