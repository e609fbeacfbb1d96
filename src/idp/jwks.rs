//! The key set cache of one provider: single flight, bounded refetches (ID-4).
//!
//! A token whose key is unknown may cause a fetch: at once, so that a rotation of keys is never tripped
//! over, and bounded, so that a flood of made-up key ids never becomes a storm. A [`Gate`] is what bounds
//! it. Each origin of tokens has a gate of its own, so that one origin can't spend what another needs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::UnixTime;
use crate::clock::bucket::Bucket;
use crate::token::KeySet;

/// How long a key id that a fetch did not bring causes no other fetch.
const REFUSED_FOR: Duration = Duration::from_mins(1);

/// How many such key ids are remembered; more than a gate lets through in that time.
const MAX_REFUSED: usize = 64;

/// Tokens of the token endpoint: three fetches, one regained each 20 s. They come from the provider
/// itself, so this only bounds a provider that is wrong about its own keys.
const TOKEN_ENDPOINT: (u32, Duration) = (3, Duration::from_secs(20));

/// Tokens from outside: one fetch each minute. Anybody can send them, with any key id.
const OUTSIDE: (u32, Duration) = (1, Duration::from_mins(1));

/// Where a token came from: each origin has a gate of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The provider's token endpoint.
    TokenEndpoint,
    /// Whoever can reach the gateway: logout tokens.
    Outside,
}

/// The keys of one provider, and who may ask for newer ones.
#[derive(Debug)]
pub struct KeyCache {
    keys: ArcSwap<KeySet>,
    token_endpoint: Mutex<Gate>,
    outside: Mutex<Gate>,
}

/// Bounds the fetches that one origin of tokens can cause.
#[derive(Debug)]
struct Gate {
    bucket: Bucket,
    refused: HashMap<String, UnixTime>,
}

impl KeyCache {
    /// A cache without keys.
    #[must_use]
    pub fn new(now: UnixTime) -> Self {
        Self {
            keys: ArcSwap::from_pointee(KeySet::default()),
            token_endpoint: Mutex::new(Gate::new(TOKEN_ENDPOINT, now)),
            outside: Mutex::new(Gate::new(OUTSIDE, now)),
        }
    }

    /// The last good key set.
    #[must_use]
    pub fn current(&self) -> Arc<KeySet> {
        self.keys.load_full()
    }

    /// Replaces the key set by one that was just fetched.
    pub fn replace(&self, keys: KeySet) {
        self.keys.store(Arc::new(keys));
    }

    /// Whether a token of this origin with this unknown key may cause a fetch now; takes one from the
    /// origin's bucket if so.
    pub fn may_fetch(&self, origin: Origin, kid: Option<&str>, now: UnixTime) -> bool {
        self.gate(origin, |gate| !gate.is_refused(kid, now) && gate.bucket.take(now))
    }

    /// Remembers that a fetch did not bring this key. Each origin remembers for itself: what comes from
    /// outside must not name the key of a sign-in before the provider publishes it.
    pub fn refuse(&self, origin: Origin, kid: Option<&str>, now: UnixTime) {
        if let Some(kid) = kid {
            self.gate(origin, |gate| gate.refuse(kid, now));
        }
    }

    fn gate<T>(&self, origin: Origin, then: impl FnOnce(&mut Gate) -> T) -> T {
        let gate = match origin {
            Origin::TokenEndpoint => &self.token_endpoint,
            Origin::Outside => &self.outside,
        };
        then(&mut gate.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Gate {
    fn new(limit: (u32, Duration), now: UnixTime) -> Self {
        Self { bucket: Bucket::new(limit, now), refused: HashMap::new() }
    }

    fn is_refused(&self, kid: Option<&str>, now: UnixTime) -> bool {
        kid.and_then(|kid| self.refused.get(kid)).is_some_and(|until| now < *until)
    }

    fn refuse(&mut self, kid: &str, now: UnixTime) {
        self.refused.retain(|_, until| now < *until);
        if self.refused.len() < MAX_REFUSED {
            self.refused.insert(kid.to_owned(), now + REFUSED_FOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixTime = UnixTime::from_secs(1_000_000);

    fn seconds(secs: u64) -> UnixTime {
        START + Duration::from_secs(secs)
    }

    #[test]
    fn three_fetches_at_once_then_one_each_twenty_seconds() {
        let cache = KeyCache::new(START);
        let rows = [
            ("first", 0, true),
            ("second", 0, true),
            ("third", 0, true),
            ("fourth", 0, false),
            ("not yet regained", 19, false),
            ("one regained", 20, true),
            ("and no more", 20, false),
            ("partial periods count", 45, true),
            ("at the next whole one", 59, false),
            ("three periods", 60, true),
        ];
        for (name, at, granted) in rows {
            assert_eq!(cache.may_fetch(Origin::TokenEndpoint, None, seconds(at)), granted, "{name}");
        }
    }

    #[test]
    fn a_bucket_never_holds_more_than_three() {
        let cache = KeyCache::new(START);
        let later = seconds(86_400);
        let granted = (0..10).filter(|_| cache.may_fetch(Origin::TokenEndpoint, None, later)).count();
        assert_eq!(granted, 3);
    }

    #[test]
    fn a_key_that_a_fetch_did_not_bring_is_refused_for_a_minute() {
        let cache = KeyCache::new(START);
        assert!(cache.may_fetch(Origin::TokenEndpoint, Some("new"), START));
        cache.refuse(Origin::TokenEndpoint, Some("new"), START);
        assert!(!cache.may_fetch(Origin::TokenEndpoint, Some("new"), seconds(59)));
        assert!(
            cache.may_fetch(Origin::TokenEndpoint, Some("other"), seconds(59)),
            "other keys are not refused"
        );
        assert!(cache.may_fetch(Origin::TokenEndpoint, Some("new"), seconds(60)));
    }

    #[test]
    fn a_refused_key_spends_nothing() {
        let cache = KeyCache::new(START);
        cache.refuse(Origin::TokenEndpoint, Some("bad"), START);
        for _ in 0..100 {
            assert!(!cache.may_fetch(Origin::TokenEndpoint, Some("bad"), START));
        }
        assert!(cache.may_fetch(Origin::TokenEndpoint, Some("good"), START));
    }

    #[test]
    fn the_memory_for_refused_keys_is_bounded() {
        let cache = KeyCache::new(START);
        for number in 0..1000 {
            cache.refuse(Origin::TokenEndpoint, Some(&number.to_string()), START);
        }
        assert_eq!(cache.gate(Origin::TokenEndpoint, |gate| gate.refused.len()), MAX_REFUSED);
        cache.refuse(Origin::TokenEndpoint, Some("later"), seconds(60));
        assert_eq!(cache.gate(Origin::TokenEndpoint, |gate| gate.refused.len()), 1, "expired ones make room");
    }

    #[test]
    fn a_flood_from_outside_causes_one_fetch_a_minute_and_costs_a_sign_in_nothing() {
        let cache = KeyCache::new(START);
        let flood =
            |at| (0..1000).filter(|n| cache.may_fetch(Origin::Outside, Some(&n.to_string()), at)).count();
        assert_eq!(flood(START), 1);
        cache.refuse(Origin::Outside, Some("new"), START);
        assert_eq!(flood(seconds(59)), 0);
        assert_eq!(flood(seconds(60)), 1);
        assert!(cache.may_fetch(Origin::TokenEndpoint, Some("new"), START), "DO-2");
    }

    #[test]
    fn a_clock_that_is_set_back_stops_nothing_for_longer_than_a_period() {
        let cache = KeyCache::new(START);
        while cache.may_fetch(Origin::TokenEndpoint, None, START) {}
        let back = START - Duration::from_hours(1);
        assert!(!cache.may_fetch(Origin::TokenEndpoint, None, back));
        assert!(cache.may_fetch(Origin::TokenEndpoint, None, back + Duration::from_secs(20)));
    }
}
