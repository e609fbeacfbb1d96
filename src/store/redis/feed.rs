//! What other gateways do to the store, heard on a channel.
//!
//! Each write tells of itself in the script that does it. A connection of its own listens; it is made
//! anew when it is lost, and then something may have been missed. So that a connection which is dead
//! without saying so is noticed, the gateway tells itself something each second: what it does not hear
//! for [`SILENCE`], nobody tells it any more, whatever the reason.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use redis::aio::PubSub;
use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::dial::Dialer;
use super::link::pause;
use super::servers::{SLOTS, Servers};
use super::settings::Address;
use super::trouble::Trouble;
use crate::random::random_bytes;
use crate::store::{Change, StoreKey};

/// How often the gateway tells itself something.
const BEAT: Duration = Duration::from_secs(1);
/// How long it may hear nothing of that.
const SILENCE: Duration = Duration::from_secs(4);
/// How many changes wait for a receiver that is slow.
pub(super) const WAITING_CHANGES: usize = 4096;

const WRITTEN: u8 = b'w';
const REMOVED: u8 = b'r';
const ALIVE: u8 = b'a';

/// Who tells something: this store, since it was opened.
pub(super) type Origin = [u8; 16];

/// The messages of one origin.
pub(super) fn written(origin: Origin, key: StoreKey) -> Vec<u8> {
    message(origin, WRITTEN, key)
}

/// As [`written`].
pub(super) fn removed(origin: Origin, key: StoreKey) -> Vec<u8> {
    message(origin, REMOVED, key)
}

fn message(origin: Origin, what: u8, key: StoreKey) -> Vec<u8> {
    [&origin[..], &[what], &key.0].concat()
}

/// What was heard.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// Of another origin.
    Change(Change),
    /// Of this one: the feed works.
    Own,
    /// Something that this program does not understand.
    Noise,
}

fn understand(bytes: &[u8], own: Origin) -> Heard {
    let Some((origin, rest)) = bytes.split_first_chunk::<16>() else { return Heard::Noise };
    if *origin == own {
        return Heard::Own;
    }
    let Some((what, key)) = rest.split_first() else { return Heard::Noise };
    match (*what, <[u8; 32]>::try_from(key)) {
        (WRITTEN, Ok(key)) => Heard::Change(Change::Written(StoreKey(key))),
        (REMOVED, Ok(key)) => Heard::Change(Change::Removed(StoreKey(key))),
        _ => Heard::Noise,
    }
}

/// The feed of one store.
pub(super) struct Feed {
    pub(super) dialer: Arc<Dialer>,
    pub(super) servers: Arc<Servers>,
    pub(super) channel: String,
    pub(super) origin: Origin,
    pub(super) changes: broadcast::Sender<Change>,
}

impl Feed {
    /// Listens for ever.
    pub(super) async fn run(self) {
        let mut failures = 0;
        loop {
            match self.subscribe(failures).await {
                Ok(subscriber) => {
                    failures = 0;
                    // Nobody listens, perhaps.
                    self.changes.send(Change::Missed).ok();
                    self.listen(subscriber).await;
                    tracing::warn!(event = "redis_feed_lost", "changes of other gateways are not heard now");
                }
                Err(trouble) => tracing::debug!(event = "redis_feed_unreachable", reason = %trouble),
            }
            failures += 1;
            sleep(pause(failures)).await;
        }
    }

    /// Another server of a cluster after each failure: what one is told, all tell.
    async fn subscribe(&self, failures: u32) -> Result<PubSub, Trouble> {
        let masters = self.servers.masters().await?;
        let [random] = random_bytes::<1>().unwrap_or_default();
        let place = (usize::from(random) + failures as usize) % masters.len().max(1);
        let address: &Address =
            masters.get(place).ok_or_else(|| Trouble::new("no server of Redis is known"))?;
        self.dialer.subscriber(address, &self.channel).await
    }

    /// Until the connection ends, or is silent for too long.
    async fn listen(&self, mut subscriber: PubSub) {
        let mut messages = std::pin::pin!(subscriber.on_message());
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard_at = Instant::now();
        loop {
            tokio::select! {
                message = messages.next() => {
                    let Some(message) = message else { return };
                    match understand(message.get_payload_bytes(), self.origin) {
                        Heard::Change(change) => { self.changes.send(change).ok(); }
                        Heard::Own => heard_at = Instant::now(),
                        Heard::Noise => {}
                    }
                }
                _ = beat.tick() => self.tell_itself(),
                () = sleep_until(heard_at + SILENCE) => return,
            }
        }
    }

    /// Without waiting for it: what does not come is noticed.
    #[expect(clippy::disallowed_methods, reason = "runs on the gateway's runtime, as the feed does")]
    fn tell_itself(&self) {
        let mut command = redis::cmd("PUBLISH");
        command.arg(&self.channel).arg([&self.origin[..], &[ALIVE]].concat());
        let servers = Arc::clone(&self.servers);
        // By way of another server each time: one that is down does not silence the feed of the others.
        let slot = u16::from_be_bytes(random_bytes().unwrap_or_default()) % SLOTS;
        tokio::spawn(async move { servers.send(slot, &command).await.ok() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_tell_is_understood_and_nothing_else_is() {
        let (own, other, key) = ([1; 16], [2; 16], StoreKey([3; 32]));
        let cases = [
            ("written", written(other, key), Heard::Change(Change::Written(key))),
            ("removed", removed(other, key), Heard::Change(Change::Removed(key))),
            ("one's own write", written(own, key), Heard::Own),
            ("one's own sign of life", [&own[..], b"a"].concat(), Heard::Own),
            ("another's sign of life", [&other[..], b"a"].concat(), Heard::Noise),
            ("something new", message(other, b'z', key), Heard::Noise),
            ("too short", other[..15].to_vec(), Heard::Noise),
            ("no key", written(other, key)[..20].to_vec(), Heard::Noise),
            ("more than a key", [&written(other, key)[..], b"x"].concat(), Heard::Noise),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(understand(&bytes, own), expected, "{name}");
        }
    }
}
