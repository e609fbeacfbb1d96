//! What runs beside the requests: upstream names are resolved here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::upstream::{Destination, Upstreams};
use crate::telemetry::Events;

/// How often names are resolved.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);

/// How soon after one another, however many connects fail.
const RESOLVE_AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// How long one look-up may take.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Resolves every upstream's name once.
pub(super) async fn resolve_all(upstreams: &Upstreams, events: &Events) {
    futures::future::join_all(upstreams.named().map(|target| resolve(target, events))).await;
}

/// Resolves names for good: every 30 s, and soon after a failed connect.
pub(super) async fn keep_resolving(upstreams: Arc<Upstreams>, events: Events) {
    loop {
        sleep(RESOLVE_AT_MOST_EVERY).await;
        // Either is a reason to look again.
        let _ = timeout(RESOLVE_EVERY, upstreams.connect_failed()).await;
        resolve_all(&upstreams, &events).await;
    }
}

/// A look-up that fails keeps the addresses that are known: an outage of the resolver is not the
/// upstream's.
async fn resolve(target: &Destination, events: &Events) {
    match look_up(target).await {
        Ok(addresses) => target.set_addresses(&addresses),
        Err(error) => events.upstream_unresolved(target.name(), &error),
    }
}

async fn look_up(target: &Destination) -> io::Result<Vec<SocketAddr>> {
    let name = (&*target.settings().host, target.settings().port);
    let Ok(found) = timeout(LOOK_UP, tokio::net::lookup_host(name)).await else {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "the look-up took too long"));
    };
    let addresses: Vec<_> = found?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}
