//! The session store: is there one, does it answer, does it keep what it is given.

use std::time::Duration;

use tokio::runtime::Handle;

use super::Report;
use crate::clock::Clock;
use crate::config::{Settings, StoreKind};
use crate::random::random_bytes;
use crate::store::disk::{DiskStore, OpenError};
use crate::store::{SessionStore, StoreKey};

/// How long the mark lives that the round trip leaves behind.
const MARK: Duration = Duration::from_secs(5);

pub(super) async fn examine(settings: &Settings, clock: &Clock, report: &mut Report<'_>) {
    report.about("sessions");
    match settings.store {
        StoreKind::Memory => report.warn(
            "are kept in memory: a restart signs everybody out",
            "leave `session.store` out, or set it to \"disk\"",
        ),
        StoreKind::Disk => disk(settings, clock, report).await,
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
        Ok(store) => round_trip(&store, report).await,
        Err(OpenError::InUse { path }) => {
            report.ok(format!("are in {}, which a running gateway holds open", path.display()));
        }
        Err(error) => report.fail(error.to_string(), "the gateway would not start like this"),
    }
}

/// A mark is written and read again.
async fn round_trip(store: &dyn SessionStore, report: &mut Report<'_>) {
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
        Ok(false) => report.fail("the store has lost what was just written", "is its disk failing?"),
        Err(error) => report.fail(error.to_string(), "is the disk full, or read-only?"),
    }
}
