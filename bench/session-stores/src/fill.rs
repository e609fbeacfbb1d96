//! Sessions for a gateway: in its store, sealed with its keys, of its first provider and for its first host, so that it
//! serves them as those of people who signed in.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portcullis::clock::Clock;
use portcullis::config::{self, KeyFile, Settings, StoreKind};
use portcullis::random::random_bytes;
use portcullis::route::{HostPattern, HostSettings};
use portcullis::session::cookie::CookieNames;
use portcullis::session::made_keys::MadeKeys;
use portcullis::session::seal::seal_cookie;
use portcullis::session::{Key, KeyRing, Purpose, SessionId};
use portcullis::store::SessionStore;
use portcullis::store::disk::DiskStore;
use portcullis::store::redis::RedisStore;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::people::{Place, Sealer};

/// Writes under way at once: more than go into one transaction.
const FILLERS: usize = 768;

/// What is wanted.
pub struct Plan<'a> {
    pub sessions: usize,
    pub hot: usize,
    pub cookies: &'a Path,
}

/// Fills the store of the gateway of this configuration.
pub async fn fill(config: &Path, plan: &Plan<'_>, claims: Option<&str>) -> Outcome<Value> {
    let (settings, clock, began) = (config::load(config)?, Clock::system(), Instant::now());
    let host = first_host(&settings)?;
    let sealer = Arc::new(Sealer::of(keys(&settings, &clock)?, place(&settings, &host, &clock, claims)?));
    let ids = ids(plan.sessions)?;
    fs::write(plan.cookies, cookies(&sealer, &host, &ids, plan.hot)?)?;
    let store = open(&settings, &clock).await?;
    let life = settings.gateway.reading.limits.idle_timeout;
    put_all(&store, &sealer, ids, life).await?;
    // Closed, the file can be opened by the gateway.
    drop(store);
    Ok(json!({"sessions": plan.sessions, "cookies": plan.hot, "s": began.elapsed().as_secs()}))
}

/// The host whose sessions they are.
struct Host {
    name: String,
    names: CookieNames,
}

fn first_host(settings: &Settings) -> Outcome<Host> {
    let exact = settings.hosts.iter().find_map(|host| match host {
        HostSettings { pattern: HostPattern::Exact(name), public_url, .. } => {
            Some(Host { name: name.to_string(), names: CookieNames::new(public_url.scheme() == "https") })
        }
        HostSettings { .. } => None,
    });
    Ok(exact.ok_or("the configuration names no host")?)
}

fn place(settings: &Settings, host: &Host, clock: &Clock, claims: Option<&str>) -> Outcome<Place> {
    let provider = settings.providers.first().ok_or("the configuration names no provider")?;
    Ok(Place {
        provider: provider.id.0.to_string(),
        issuer: provider.issuer.0.to_string(),
        host: host.name.clone(),
        at: clock.now(),
        claims: claims.map(serde_json::from_str).transpose()?.unwrap_or_default(),
    })
}

/// The configured keys, or those in the data directory, where the gateway finds the one that is made here.
fn keys(settings: &Settings, clock: &Clock) -> Outcome<KeyRing> {
    if !settings.keys.is_empty() {
        let keys: Vec<_> = settings.keys.iter().flat_map(|entry| &entry.keys).cloned().collect();
        return Ok(KeyRing::new(&keys)?);
    }
    let (key, now) = (Key::random()?, clock.now());
    let made = KeyFile::of(&settings.data_dir)
        .update(|present| Ok(present.unwrap_or_else(|| MadeKeys::first(key, now))))?;
    Ok(KeyRing::new(&made.ring(settings.rotation().delay, now))?)
}

async fn open(settings: &Settings, clock: &Clock) -> Outcome<Arc<dyn SessionStore>> {
    match (settings.store, &settings.redis) {
        (StoreKind::Disk, _) => {
            Ok(Arc::new(DiskStore::open(&settings.data_dir, clock.clone(), Handle::current())?))
        }
        (StoreKind::Redis, Some(redis)) => {
            let store = RedisStore::open(redis.clone(), clock.clone(), &Handle::current())?;
            // It connects behind the call.
            while store.ping().await.is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(Arc::new(store))
        }
        (StoreKind::Redis, None) | (StoreKind::Memory, _) => {
            Err("sessions in memory are the gateway's own".into())
        }
    }
}

/// Ids in the order of their keys: so the disk store writes one page after another, and not all over its tree.
fn ids(count: usize) -> Outcome<Vec<SessionId>> {
    let mut ids = (0..count).map(|_| Ok(SessionId::new(random_bytes()?))).collect::<Outcome<Vec<_>>>()?;
    ids.sort_by_cached_key(SessionId::store_key);
    Ok(ids)
}

/// Cookies of `hot` of them, evenly from among all.
fn cookies(sealer: &Sealer, host: &Host, ids: &[SessionId], hot: usize) -> Outcome<String> {
    let name = host.names.session();
    let mut lines = String::new();
    for id in ids.iter().step_by((ids.len() / hot.max(1)).max(1)).take(hot) {
        let value = seal_cookie(sealer.ring(), Purpose::SessionCookie, name, &host.name, id.expose())?;
        lines.extend([name, "=", &value, "\n"]);
    }
    Ok(lines)
}

/// Puts a session for each id; most people have two.
async fn put_all(
    store: &Arc<dyn SessionStore>,
    sealer: &Arc<Sealer>,
    ids: Vec<SessionId>,
    life: Duration,
) -> Outcome<()> {
    let (ids, next, began) = (Arc::new(ids), Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut fillers = JoinSet::new();
    for _ in 0..FILLERS {
        let (store, sealer, ids, next) =
            (Arc::clone(store), Arc::clone(sealer), Arc::clone(&ids), Arc::clone(&next));
        fillers.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let Some(id) = ids.get(n) else { return Outcome::Ok(()) };
                if n % 10_000 == 0 {
                    eprint!("\r  {n} of {} sessions, {} s ", ids.len(), began.elapsed().as_secs());
                }
                store.put(sealer.record_of(id, &format!("person-{}", n / 2))?, life).await?;
            }
        });
    }
    while let Some(filled) = fillers.join_next().await {
        filled??;
    }
    eprintln!("\r  {} sessions, {} s ", ids.len(), began.elapsed().as_secs());
    Ok(())
}
