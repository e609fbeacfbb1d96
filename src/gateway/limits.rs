//! The limit of logout calls that lead to nothing (BC-10): by the client's address, so that whoever guesses
//! is stopped and nobody else.
//!
//! Only what fails counts, so a provider that signs everybody out is never held up. A client that is over
//! its limit is not read any further.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::UnixTime;
use crate::clock::bucket::Bucket;

/// A hundred failures at once, then five each second: behind a load balancer all clients have one
/// address, and browsers that are signed out here already fail too.
const FAILURES: (u32, Duration) = (100, Duration::from_millis(200));

/// The most addresses that are remembered; the ones that were seen least make room.
const MAX_ADDRESSES: u64 = 10_000;

/// A bucket is full again long before.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(5);

/// How a logout is told. Each way has a limit of its own: any page can have browsers call the front channel,
/// which must cost the back channel nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// A page of the provider's, in a frame.
    Front,
    /// The provider itself.
    Back,
}

/// Who failed how often lately.
#[derive(Debug)]
pub struct Failures {
    by_address: moka::sync::Cache<(Channel, IpAddr), Arc<Mutex<Bucket>>>,
}

impl Failures {
    /// Nobody failed.
    #[must_use]
    pub fn new() -> Self {
        let by_address =
            moka::sync::Cache::builder().max_capacity(MAX_ADDRESSES).time_to_idle(FORGOTTEN_AFTER).build();
        Self { by_address }
    }

    /// Whether this client failed too often lately.
    #[must_use]
    pub fn are_too_many(&self, channel: Channel, client: IpAddr, now: UnixTime) -> bool {
        let bucket = self.by_address.get(&(channel, network(client)));
        bucket.is_some_and(|bucket| bucket.lock().unwrap_or_else(PoisonError::into_inner).is_empty(now))
    }

    /// Counts a failure of this client.
    pub fn count(&self, channel: Channel, client: IpAddr, now: UnixTime) {
        let fresh = || Arc::new(Mutex::new(Bucket::new(FAILURES, now)));
        let bucket = self.by_address.get_with((channel, network(client)), fresh);
        bucket.lock().unwrap_or_else(PoisonError::into_inner).take(now);
    }
}

impl Default for Failures {
    fn default() -> Self {
        Self::new()
    }
}

/// Whom an address stands for: an IPv6 client has a whole /64.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixTime = UnixTime::from_secs(1_000_000);

    fn client(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn bc_10_who_fails_a_hundred_times_waits_and_nobody_else_does() {
        let failures = Failures::new();
        let guesser = client("192.0.2.1");
        for _ in 0..100 {
            assert!(!failures.are_too_many(Channel::Back, guesser, START));
            failures.count(Channel::Back, guesser, START);
        }
        let rows = [
            ("the guesser", "192.0.2.1", 0, true),
            ("the same in an IPv6 socket", "::ffff:192.0.2.1", 0, true),
            ("a neighbour", "192.0.2.2", 0, false),
            ("not yet", "192.0.2.1", 199, true),
            ("one regained", "192.0.2.1", 200, false),
        ];
        for (name, address, millis, wanted) in rows {
            let now = START + Duration::from_millis(millis);
            assert_eq!(failures.are_too_many(Channel::Back, client(address), now), wanted, "{name}");
        }
        assert!(!failures.are_too_many(Channel::Front, guesser, START), "the other channel");
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let failures = Failures::new();
        for number in 0..100 {
            failures.count(Channel::Back, client(&format!("2001:db8:0:1::{number:x}")), START);
        }
        assert!(failures.are_too_many(Channel::Back, client("2001:db8:0:1:ffff::1"), START));
        assert!(!failures.are_too_many(Channel::Back, client("2001:db8:0:2::1"), START));
    }

    #[test]
    fn the_memory_for_addresses_is_bounded() {
        let failures = Failures::new();
        for number in 0..3 * u32::try_from(MAX_ADDRESSES).unwrap() {
            failures.count(Channel::Back, IpAddr::from(number.to_be_bytes()), START);
        }
        failures.by_address.run_pending_tasks();
        assert!(failures.by_address.entry_count() <= MAX_ADDRESSES);
    }
}
