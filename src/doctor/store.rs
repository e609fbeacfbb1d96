//! The session store: is there one, does it answer, does it keep what it is given.

use std::time::Duration;

use tokio::runtime::Handle;

use super::Report;
use crate::clock::Clock;
use crate::config::{Settings, StoreKind};
use crate::random::random_bytes;
use crate::store::disk::{DiskStore, OpenError};
use crate::store::redis::RedisStore;
use crate::store::{SessionStore, StoreKey};

/// How long the mark lives that the round trip leaves behind.
const MARK: Duration = Duration::from_secs(5);

/// What to look at where the round trip fails.
struct Advice {
    lost: &'static str,
    failed: &'static str,
}

const ABOUT_DISK: Advice = Advice { lost: "is its disk failing?", failed: "is the disk full, or read-only?" };
const ABOUT_REDIS: Advice = Advice {
    lost: "does it give memory back by forgetting?",
    failed: "the gateway starts, and answers 503 for as long as this is so",
};

pub(super) async fn examine(settings: &Settings, clock: &Clock, report: &mut Report<'_>) {
    report.about("sessions");
    match settings.store {
        StoreKind::Memory => report.warn(
            "are kept in memory: a restart signs everybody out",
            "leave `session.store` out, or set it to \"disk\"",
        ),
        StoreKind::Disk => disk(settings, clock, report).await,
        StoreKind::Redis => redis(settings, clock, report).await,
    }
}

async fn disk(settings: &Settings, clock: &Clock, report: &mut Report<'_>) {
    let folder = settings.data_dir.display();
    // A store that is made here would belong to whoever examines it, and not to the gateway's user.
    match DiskStore::exists(&settings.data_dir) {
        Ok(true) => {}
        Ok(false) => return report.note(format!("are going to be in {folder}, made at the first start")),
        Err(error) => {
            return report.fail(format!("{folder}: {error}"), "may this user read the directory?");
        }
    }
    match DiskStore::open(&settings.data_dir, clock.clone(), Handle::current()) {
        Ok(store) => round_trip(&store, &ABOUT_DISK, report).await,
        Err(OpenError::InUse { path }) => {
            report.ok(format!("are in {}, which a running gateway holds open", path.display()));
        }
        Err(error) => report.fail(error.to_string(), "the gateway would not start like this"),
    }
}

async fn redis(settings: &Settings, clock: &Clock, report: &mut Report<'_>) {
    let Some(redis) = &settings.redis else { return };
    let addresses: Vec<_> = redis.addresses.iter().map(ToString::to_string).collect();
    report.note(format!("are in Redis at {}", addresses.join(", ")));
    let store = match RedisStore::open(redis.clone(), clock.clone(), &Handle::current()) {
        Ok(store) => store,
        Err(error) => return report.fail(error.to_string(), "the gateway would not start like this"),
    };
    round_trip(&store, &ABOUT_REDIS, report).await;
    match store.eviction().await {
        Ok(None) => report.ok("Redis forgets nothing when its memory is full"),
        Ok(Some(problem)) => report.warn(problem, "set maxmemory-policy to noeviction"),
        // The round trip has told of an outage; the user may be forbidden to ask.
        Err(_) => report.note("whether Redis forgets sessions when its memory is full is not known"),
    }
}

/// A mark is written and read again.
async fn round_trip(store: &dyn SessionStore, advice: &Advice, report: &mut Report<'_>) {
    let Ok(random) = random_bytes::<32>() else {
        return report.fail("the system gives no random bytes", "without them nobody can sign in");
    };
    let key = StoreKey::derive("doctor", &[&random]);
    let written = store.mark(key, MARK).await;
    let read = match written {
        Ok(()) => store.is_marked(key).await,
        Err(error) => Err(error),
    };
    match read {
        Ok(true) => report.ok("what is written to the store can be read again"),
        Ok(false) => report.fail("the store has lost what was just written", advice.lost),
        Err(error) => report.fail(error.to_string(), advice.failed),
    }
}
