//! Which server is asked: the one there is, or the master of a key's slot in a cluster.
//!
//! The map of slots is learned from the cluster, every half minute and whenever something does not fit
//! it. A command goes elsewhere only where a server says that it did not do it: moved, asked for, in
//! between. Whatever else fails has failed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, FromRedisValue as _, ServerErrorKind, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::dial::Dialer;
use super::link::{Keeper, Link, pause};
use super::settings::{Address, RedisSettings};
use super::trouble::Trouble;

/// Slots of a cluster, as Redis has them.
pub(super) const SLOTS: u16 = 16_384;
/// More redirections than that lead nowhere.
const MAX_REDIRECTIONS: usize = 8;
/// How long to wait where keys are between two servers.
const BETWEEN: Duration = Duration::from_millis(25);
/// How old the map of slots may grow.
const MAP_AGE: Duration = Duration::from_secs(30);
/// How often the map is learned at most.
const MAP_REST: Duration = Duration::from_millis(200);

/// The slot of a key with this hash tag: CRC-16 with the polynomial of XMODEM.
pub(super) fn slot(tag: &[u8]) -> u16 {
    let crc = tag.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % SLOTS
}

/// The servers that the keys are on.
#[derive(Debug)]
pub(super) enum Servers {
    /// One.
    Single(Link),
    /// Those of a cluster.
    Cluster(Cluster),
}

impl Servers {
    /// Begins to connect.
    pub(super) fn new(dialer: &Arc<Dialer>, runtime: &Handle) -> Result<Self, Trouble> {
        let RedisSettings { addresses, cluster, .. } = &dialer.settings;
        if *cluster {
            return Ok(Self::Cluster(Cluster::new(dialer, runtime)));
        }
        let address = addresses.first().ok_or_else(|| Trouble::new("no address of Redis is known"))?;
        Ok(Self::Single(Link::new(address.clone(), dialer, runtime)))
    }

    /// Sends a command to the master of a slot.
    pub(super) async fn send(&self, slot: u16, command: &Cmd) -> Result<Value, Trouble> {
        match self {
            Self::Single(link) => link.send(command).await.inspect_err(|trouble| {
                // The address may lead to another server by now.
                if trouble.kind() == Some(ServerErrorKind::ReadOnly) {
                    link.renew();
                }
            }),
            Self::Cluster(cluster) => cluster.send(slot, command).await,
        }
    }

    /// All masters, in an order of their own, and what changes when keys move between them.
    pub(super) async fn masters(&self) -> Result<Vec<Address>, Trouble> {
        match self {
            Self::Single(link) => Ok(vec![link.address().clone()]),
            Self::Cluster(cluster) => Ok(cluster.map().await?.masters()),
        }
    }

    /// Sends a command to one of the masters.
    pub(super) async fn send_to(&self, master: &Address, command: &Cmd) -> Result<Value, Trouble> {
        match self {
            Self::Single(link) => link.send(command).await,
            Self::Cluster(cluster) => cluster.link(master).send(command).await,
        }
    }

    /// What the slots are spread over: equal only while no key moves.
    pub(super) async fn layout(&self) -> Result<String, Trouble> {
        match self {
            Self::Single(_) => Ok(String::new()),
            Self::Cluster(cluster) => Ok(format!("{:?}", cluster.map().await?.ranges)),
        }
    }
}

/// Which master has which slots.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SlotMap {
    /// First and last slot, and who has them.
    ranges: Vec<(u16, u16, Address)>,
}

impl SlotMap {
    fn master(&self, slot: u16) -> Option<&Address> {
        let has = |range: &&(u16, u16, Address)| range.0 <= slot && slot <= range.1;
        self.ranges.iter().find(has).map(|(_, _, master)| master)
    }

    fn masters(&self) -> Vec<Address> {
        let mut masters: Vec<_> = self.ranges.iter().map(|(_, _, master)| master.clone()).collect();
        masters.sort_unstable();
        masters.dedup();
        masters
    }

    /// The answer to `CLUSTER SLOTS` of the server at `asked`.
    fn parse(answer: &Value, asked: &Address) -> Option<Self> {
        let Value::Array(ranges) = answer else { return None };
        let mut ranges = ranges.iter().map(|range| parse_range(range, asked)).collect::<Option<Vec<_>>>()?;
        ranges.sort_unstable();
        (!ranges.is_empty()).then_some(Self { ranges })
    }
}

fn parse_range(range: &Value, asked: &Address) -> Option<(u16, u16, Address)> {
    let Value::Array(range) = range else { return None };
    let [first, last, Value::Array(master), ..] = range.as_slice() else { return None };
    let [host, port, ..] = master.as_slice() else { return None };
    let host: Option<String> = Option::from_redis_value_ref(host).ok()?;
    // A server that does not know its own address says nothing, or `?`.
    let host = host.filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| asked.host.clone());
    let port = u16::from_redis_value_ref(port).ok()?;
    let number = |value| u16::from_redis_value_ref(value).ok();
    Some((number(first)?, number(last)?, Address { host, port }))
}

/// What is known of the slots.
#[derive(Clone, Debug)]
enum Known {
    NotYet,
    Nothing(Trouble),
    Map(Arc<SlotMap>),
}

/// The servers of a cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    dialer: Arc<Dialer>,
    runtime: Handle,
    links: Arc<Links>,
    known: watch::Receiver<Known>,
    learn: Arc<Notify>,
    _keeper: Keeper,
}

type Links = Mutex<HashMap<Address, Arc<Link>>>;

impl Cluster {
    fn new(dialer: &Arc<Dialer>, runtime: &Handle) -> Self {
        let (sender, known) = watch::channel(Known::NotYet);
        let (links, learn) = (Arc::new(Links::default()), Arc::new(Notify::new()));
        let keeping = keep_map(Arc::clone(dialer), sender, Arc::clone(&links), Arc::clone(&learn));
        let keeper = Keeper(runtime.spawn(keeping));
        Self { dialer: Arc::clone(dialer), runtime: runtime.clone(), links, known, learn, _keeper: keeper }
    }

    /// The map; waits for the first one.
    async fn map(&self) -> Result<Arc<SlotMap>, Trouble> {
        let mut known = self.known.clone();
        let limit = self.dialer.settings.timeout;
        let first = known.wait_for(|known| !matches!(known, Known::NotYet));
        match timeout(limit, first).await {
            Ok(Ok(known)) => match &*known {
                Known::Map(map) => Ok(Arc::clone(map)),
                Known::Nothing(trouble) => Err(trouble.clone()),
                Known::NotYet => Err(Trouble::new("the cluster is not known yet")),
            },
            Ok(Err(_closed)) => Err(Trouble::new("the store is closed")),
            Err(_late) => Err(Trouble::new("the cluster is not known yet")),
        }
    }

    fn link(&self, master: &Address) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = || Arc::new(Link::new(master.clone(), &self.dialer, &self.runtime));
        Arc::clone(links.entry(master.clone()).or_insert_with(begin))
    }

    async fn send(&self, slot: u16, command: &Cmd) -> Result<Value, Trouble> {
        let limit = self.dialer.settings.timeout;
        timeout(limit, self.send_along(slot, command)).await.unwrap_or_else(|_late| {
            self.learn.notify_one();
            Err(Trouble::new(format!(
                "the Redis cluster does not answer within {}",
                humantime::format_duration(limit)
            )))
        })
    }

    /// Follows where the servers lead.
    async fn send_along(&self, slot: u16, command: &Cmd) -> Result<Value, Trouble> {
        let mut master = self.master(slot).await?;
        let mut is_asking = false;
        for _ in 0..MAX_REDIRECTIONS {
            let link = self.link(&master);
            let answer = if is_asking { link.send_asking(command).await } else { link.send(command).await };
            let Err(trouble) = answer else { return answer };
            is_asking = false;
            match trouble.kind() {
                Some(ServerErrorKind::Moved) => {
                    self.learn.notify_one();
                    master = leads_to(&trouble, &master)?;
                }
                Some(ServerErrorKind::Ask) => {
                    is_asking = true;
                    master = leads_to(&trouble, &master)?;
                }
                Some(ServerErrorKind::TryAgain) => {
                    sleep(BETWEEN).await;
                    master = self.master(slot).await?;
                }
                Some(ServerErrorKind::NoScript | ServerErrorKind::NoPerm) => return Err(trouble),
                _ => {
                    self.learn.notify_one();
                    return Err(trouble);
                }
            }
        }
        Err(Trouble::new("the servers of the Redis cluster send the gateway in circles"))
    }

    async fn master(&self, slot: u16) -> Result<Address, Trouble> {
        let map = self.map().await?;
        map.master(slot).cloned().ok_or_else(|| {
            self.learn.notify_one();
            Trouble::new("a part of the Redis cluster's slots has no server")
        })
    }
}

/// Where a redirection leads; a host that is left out is the one that said it.
fn leads_to(trouble: &Trouble, from: &Address) -> Result<Address, Trouble> {
    let target = trouble.said.as_ref().and_then(|error| error.redirect_node()).map(|(target, _)| target);
    let parsed = target.and_then(|target| match target.strip_prefix(':') {
        Some(port) => Some(Address { host: from.host.clone(), port: port.parse().ok()? }),
        None => parse_target(target),
    });
    parsed.ok_or_else(|| Trouble::new("the Redis cluster sends the gateway nowhere"))
}

/// `host:port`; an IPv6 address has no brackets here.
fn parse_target(target: &str) -> Option<Address> {
    let (host, port) = target.rsplit_once(':')?;
    Some(Address { host: host.to_owned(), port: port.parse().ok()? })
}

async fn keep_map(dialer: Arc<Dialer>, known: watch::Sender<Known>, links: Arc<Links>, learn: Arc<Notify>) {
    let mut failures = 0;
    loop {
        let masters = match &*known.borrow() {
            Known::Map(map) => map.masters(),
            Known::NotYet | Known::Nothing(_) => Vec::new(),
        };
        match learn_map(&dialer, &masters).await {
            Ok(map) => {
                failures = 0;
                let masters = map.masters();
                known.send_replace(Known::Map(Arc::new(map)));
                let mut links = links.lock().unwrap_or_else(PoisonError::into_inner);
                links.retain(|address, _| masters.contains(address));
            }
            Err(trouble) => {
                failures += 1;
                // An old map is better than none: its masters may come back.
                if !matches!(*known.borrow(), Known::Map(_)) {
                    known.send_replace(Known::Nothing(trouble));
                }
            }
        }
        if failures > 0 {
            sleep(pause(failures)).await;
        } else {
            sleep(MAP_REST).await;
            // Ends early where somebody asks for it.
            timeout(MAP_AGE, learn.notified()).await.ok();
        }
    }
}

/// Asks one server after the other, those of the last map first.
async fn learn_map(dialer: &Dialer, masters: &[Address]) -> Result<SlotMap, Trouble> {
    let mut trouble = Trouble::new("no address of the Redis cluster is known");
    for address in masters.iter().chain(&dialer.settings.addresses) {
        match ask_for_map(dialer, address).await {
            Ok(map) => return Ok(map),
            Err(reason) => trouble = reason,
        }
    }
    Err(trouble)
}

async fn ask_for_map(dialer: &Dialer, address: &Address) -> Result<SlotMap, Trouble> {
    let (mut connection, driver) = dialer.commands(address).await?;
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let answer = async {
        tokio::select! {
            biased;
            answer = command.query_async::<Value>(&mut connection) => {
                answer.map_err(|error| Trouble::of(address, error))
            }
            () = driver => Err(Trouble::new(format!("Redis at {address} has lost the connection"))),
        }
    };
    let limit = dialer.settings.timeout;
    let answer = timeout(limit, answer).await.unwrap_or_else(|_late| Err(Trouble::late(address, limit)))?;
    SlotMap::parse(&answer, address)
        .ok_or_else(|| Trouble::new(format!("Redis at {address} knows of no cluster")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // The first two from the specification of Redis Cluster and `CLUSTER KEYSLOT`.
        for (tag, expected) in [("123456789", 0x31c3), ("foo", 12_182), ("", 0), ("user1000", 3443)] {
            assert_eq!(slot(tag.as_bytes()), expected, "{tag}");
        }
    }

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    #[test]
    fn a_map_is_read_from_what_a_server_says() {
        let text = "*2\r\n*4\r\n:8192\r\n:16383\r\n*3\r\n$8\r\n10.0.0.2\r\n:6380\r\n$2\r\nid\r\n\
            *3\r\n$8\r\n10.0.0.9\r\n:6380\r\n$2\r\nid\r\n*3\r\n:0\r\n:8191\r\n*2\r\n$0\r\n\r\n:6379\r\n";
        let answer = redis::parse_redis_value(text.as_bytes()).unwrap();
        let map = SlotMap::parse(&answer, &at("asked.test", 1)).unwrap();
        let cases = [
            (0, at("asked.test", 6379)),
            (8191, at("asked.test", 6379)),
            (8192, at("10.0.0.2", 6380)),
            (16_383, at("10.0.0.2", 6380)),
        ];
        for (slot, master) in cases {
            assert_eq!(map.master(slot), Some(&master), "{slot}");
        }
        assert_eq!(map.masters(), [at("10.0.0.2", 6380), at("asked.test", 6379)]);
    }

    #[test]
    fn what_is_no_map_is_none() {
        for text in
            ["*0\r\n", "$-1\r\n", "*1\r\n*1\r\n:0\r\n", "*1\r\n*3\r\n:0\r\n:70000\r\n*0\r\n", "+OK\r\n"]
        {
            let answer = redis::parse_redis_value(text.as_bytes()).unwrap();
            assert_eq!(SlotMap::parse(&answer, &at("a", 1)), None, "{text:?}");
        }
    }

    #[test]
    fn redirections_lead_to_a_server_or_nowhere() {
        let cases = [
            ("MOVED 1 10.0.0.2:6380", Some(at("10.0.0.2", 6380))),
            ("ASK 1 :6381", Some(at("from.test", 6381))),
            ("MOVED 1 fd00::1:6380", Some(at("fd00::1", 6380))),
            ("MOVED 1", None),
            ("MOVED 1 nowhere", None),
            ("CLUSTERDOWN 1 10.0.0.2:6380", None),
        ];
        for (said, expected) in cases {
            let value = redis::parse_redis_value(format!("-{said}\r\n").as_bytes()).unwrap();
            let from = at("from.test", 1);
            let trouble = Trouble::of(&from, value.extract_error().unwrap_err());
            assert_eq!(leads_to(&trouble, &from).ok(), expected, "{said}");
        }
    }
}
