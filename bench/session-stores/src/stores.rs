//! The stores, opened as the gateway opens them.

use std::env;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis::clock::Clock;
use portcullis::store::SessionStore;
use portcullis::store::disk::DiskStore;
use portcullis::store::memory::MemoryStore;
use portcullis::store::redis::{Address, RedisSettings, RedisStore};
use tokio::runtime::Handle;

use crate::Outcome;

/// Where the script says that its Redis is.
const ADDRESS: &str = "SESSION_STORES_REDIS";

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Memory,
    Disk,
    Redis,
}

impl Kind {
    pub fn parse(name: &str) -> Outcome<Self> {
        match name {
            "memory" => Ok(Self::Memory),
            "disk" => Ok(Self::Disk),
            "redis" => Ok(Self::Redis),
            other => Err(format!("there is no store {other}").into()),
        }
    }

    /// Opens it; what it keeps on disk is in `folder`.
    pub async fn open(self, folder: &Path, clock: Clock) -> Outcome<Arc<dyn SessionStore>> {
        Ok(match self {
            Self::Memory => Arc::new(MemoryStore::new(clock)),
            Self::Disk => Arc::new(DiskStore::open(folder, clock, Handle::current())?),
            Self::Redis => {
                let store = RedisStore::open(redis()?, Clock::system(), &Handle::current())?;
                // It connects behind the call.
                while store.ping().await.is_err() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Arc::new(store)
            }
        })
    }

    /// How long records live that are to end while they are watched; Redis has a clock of its own, which
    /// can only be waited for.
    pub const fn short_life(self) -> Duration {
        match self {
            Self::Memory | Self::Disk => Duration::from_hours(1),
            Self::Redis => Duration::from_secs(90),
        }
    }

    /// What the server uses of memory, where there is one.
    pub fn server_bytes(self) -> Outcome<Option<u64>> {
        match self {
            Self::Memory | Self::Disk => Ok(None),
            Self::Redis => used_memory().map(Some),
        }
    }

    /// Between two sign-ins while records are swept: the disk store sweeps in the gaps, the one in memory
    /// along with writes.
    pub const fn pause_between_sign_ins(self) -> Duration {
        match self {
            Self::Memory => Duration::ZERO,
            Self::Disk | Self::Redis => Duration::from_millis(25),
        }
    }
}

/// As the configuration has it where only the address is written.
fn redis() -> Outcome<RedisSettings> {
    Ok(RedisSettings {
        addresses: vec![Address::parse(&env::var(ADDRESS)?)?],
        cluster: false,
        tls: None,
        username: None,
        password: None,
        database: 0,
        key_prefix: "portcullis:".to_owned(),
        connections: 4,
        connect_timeout: Duration::from_secs(2),
        timeout: Duration::from_secs(10),
    })
}

fn used_memory() -> Outcome<u64> {
    let mut server = TcpStream::connect(env::var(ADDRESS)?)?;
    server.write_all(b"INFO memory\r\nQUIT\r\n")?;
    let mut answer = String::new();
    server.read_to_string(&mut answer)?;
    let used = answer.lines().find_map(|line| line.strip_prefix("used_memory:"));
    Ok(used.ok_or("Redis does not tell its memory")?.trim().parse()?)
}
