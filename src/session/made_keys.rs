//! Keys that gateways make themselves: when a new one is due, which one seals, when an old one may go.

use std::cmp::Reverse;
use std::time::Duration;

use super::key_ring::{Key, KeyError, check_ring};
use crate::clock::UnixTime;
use crate::secret::Secret;

/// Room for a key, the moment when it was made and what is between them.
const LINE_BYTES: usize = 80;

/// A key, and when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeKey {
    /// The key.
    pub key: Key,
    /// When it was made.
    pub made_at: UnixTime,
}

/// Keys in the order in which they were made, the newest first; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeKeys(Vec<MadeKey>);

/// How keys follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// How old the newest key grows until another one is made; `None`: by hand only.
    pub every: Option<Duration>,
    /// How long what a key sealed can live.
    pub life: Duration,
    /// From when a key is made until it seals: for the others to hear of it.
    pub delay: Duration,
}

impl MadeKeys {
    /// The first key there is.
    #[must_use]
    pub fn first(key: Key, now: UnixTime) -> Self {
        Self(vec![MadeKey { key, made_at: now }])
    }

    /// Keys, the newest first.
    ///
    /// # Errors
    /// Those of a ring of them.
    pub fn new(keys: Vec<MadeKey>) -> Result<Self, KeyError> {
        let ring: Vec<_> = keys.iter().map(|made| made.key.clone()).collect();
        check_ring(&ring)?;
        Ok(Self(keys))
    }

    /// The keys, the newest first.
    #[must_use]
    pub fn as_slice(&self) -> &[MadeKey] {
        &self.0
    }

    /// The same with a new key in front. It never counts as made before the one behind it, whatever the
    /// clock says: that would make the older one look as if it were long out of use.
    ///
    /// # Errors
    /// [`KeyError::TooMany`]: what the oldest ones sealed still lives.
    pub fn rotated(&self, key: Key, now: UnixTime) -> Result<Self, KeyError> {
        let newest = self.0.iter().map(|made| made.made_at).max().unwrap_or(now);
        let new = MadeKey { key, made_at: now.max(newest) };
        Self::new(std::iter::once(new).chain(self.0.iter().cloned()).collect())
    }

    /// Whether the newest key is old enough for another one. A clock that went back makes none old.
    #[must_use]
    pub fn is_due(&self, rotation: &Rotation, now: UnixTime) -> bool {
        let age = self.0.first().map(|newest| now.since(newest.made_at));
        rotation.every.is_some_and(|every| age.is_some_and(|age| age >= every))
    }

    /// The same without the keys whose sealed values are all over.
    #[must_use]
    pub fn living(&self, rotation: &Rotation, now: UnixTime) -> Self {
        let ends = |place: usize| self.ends_at(place, rotation).is_none_or(|end| now < end);
        let living = self.0.iter().enumerate().filter(|(place, _)| ends(*place));
        Self(living.map(|(_, made)| made.clone()).collect())
    }

    /// When the key at a place may go; `None` for the newest one.
    #[must_use]
    pub fn ends_at(&self, place: usize, rotation: &Rotation) -> Option<UnixTime> {
        let successor = self.0.get(place.checked_sub(1)?)?;
        Some(successor.made_at + rotation.delay + rotation.life)
    }

    /// These keys and those, in the order in which they were made.
    ///
    /// # Errors
    /// [`KeyError::TooMany`].
    pub fn merged(&self, other: &Self) -> Result<Self, KeyError> {
        let is_new = |theirs: &&MadeKey| self.0.iter().all(|own| own.key.id != theirs.key.id);
        let mut all: Vec<_> = self.0.iter().chain(other.0.iter().filter(is_new)).cloned().collect();
        all.sort_by_key(|made| (Reverse(made.made_at), made.key.id));
        Self::new(all)
    }

    /// The newest key whose delay is over.
    #[must_use]
    pub fn sealing(&self, delay: Duration, now: UnixTime) -> Option<&Key> {
        self.0.iter().find(|made| made.made_at + delay <= now).map(|made| &made.key)
    }

    /// The keys in the form that [`MadeKeys::parse`] reads.
    #[must_use]
    pub fn to_text(&self) -> Secret<String> {
        // Room for all of it at once: a string that grows leaves copies behind.
        let mut text = String::with_capacity(self.0.len() * LINE_BYTES);
        for made in &self.0 {
            text.push_str(made.key.to_text().expose().trim_ascii());
            text.push(' ');
            text.push_str(&made.made_at.as_millis().to_string());
            text.push('\n');
        }
        Secret::new(text)
    }

    /// Reads keys, one a line, each with the milliseconds of when it was made.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let line = |line: &str| {
            let (key, millis) = line.split_once(' ').ok_or(KeyError::Malformed)?;
            let millis = millis.parse().map_err(|_no_number| KeyError::Malformed)?;
            let key = Key::parse(&Secret::new(key.to_owned()))?;
            Ok(MadeKey { key, made_at: UnixTime::from_millis(millis) })
        };
        Self::new(text.lines().map(line).collect::<Result<_, _>>()?)
    }

    /// The keys as a ring: in front the newest one whose delay is over, or the oldest.
    #[must_use]
    pub fn ring(&self, delay: Duration, now: UnixTime) -> Vec<Key> {
        let mut keys: Vec<_> = self.0.iter().map(|made| made.key.clone()).collect();
        let sealing =
            self.sealing(delay, now).and_then(|key| keys.iter().position(|other| other.id == key.id));
        let sealing = sealing.unwrap_or(keys.len().saturating_sub(1));
        // The others keep their order.
        if let Some(first) = keys.get_mut(..=sealing) {
            first.rotate_right(1);
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const BY_HAND: Rotation = Rotation { every: None, life: DAY, delay: Duration::ZERO };
    const BY_AGE: Rotation = Rotation { every: Some(Duration::from_hours(90 * 24)), ..BY_HAND };

    fn key(byte: u8) -> Key {
        Key::from_bytes([byte; 32])
    }

    fn day(days: u64) -> UnixTime {
        UnixTime::from_secs(1_700_000_000 + days * 86_400)
    }

    /// Keys made on these days, the newest first; the numbers of the keys are their days.
    fn made(days: &[u8]) -> MadeKeys {
        let made = |&on: &u8| MadeKey { key: key(on), made_at: day(on.into()) };
        MadeKeys::new(days.iter().map(made).collect()).unwrap()
    }

    fn ids(keys: &[Key]) -> Vec<super::super::KeyId> {
        keys.iter().map(|key| key.id).collect()
    }

    #[test]
    fn a_new_key_is_due_by_the_age_of_the_newest_and_only_where_that_is_wanted() {
        let keys = made(&[100, 10]);
        assert!(!keys.is_due(&BY_AGE, day(189)));
        assert!(keys.is_due(&BY_AGE, day(190)));
        assert!(!keys.is_due(&BY_HAND, day(10_000)));
        assert!(!keys.is_due(&BY_AGE, day(0)), "a clock that went back makes none old");
    }

    #[test]
    fn an_old_key_goes_when_nothing_that_it_sealed_can_live() {
        let keys = made(&[100, 50, 10]);
        let delayed = Rotation { delay: DAY, ..BY_HAND };
        let cases = [
            ("before", BY_HAND, 50, vec![100, 50, 10]),
            ("a life after its successor", BY_HAND, 51, vec![100, 50]),
            ("before the next", BY_HAND, 100, vec![100, 50]),
            ("the newest stays", BY_HAND, 101, vec![100]),
            ("for ever", BY_HAND, 10_000, vec![100]),
            ("the successor sealed later", delayed, 51, vec![100, 50, 10]),
            ("and then", delayed, 52, vec![100, 50]),
        ];
        for (name, rotation, now, wanted) in cases {
            assert_eq!(keys.living(&rotation, day(now)), made(&wanted), "{name}");
        }
    }

    #[test]
    fn a_key_that_is_made_while_the_clock_is_behind_kills_no_older_one() {
        let keys = made(&[100]).rotated(key(200), day(3)).unwrap();
        assert_eq!(keys.as_slice()[0].made_at, day(100));
        assert_eq!(keys.living(&BY_HAND, day(100)).as_slice().len(), 2);
        assert_eq!(keys.living(&BY_HAND, day(101)).as_slice().len(), 1);
    }

    #[test]
    fn a_new_key_seals_after_its_delay_and_opens_before() {
        let keys = made(&[100, 50, 10]);
        let cases = [
            ("no delay", Duration::ZERO, 100, [100, 50, 10]),
            ("within it", DAY, 100, [50, 100, 10]),
            ("after it", DAY, 101, [100, 50, 10]),
            ("a clock that went back", DAY, 20, [10, 100, 50]),
            ("further than all", DAY, 0, [10, 100, 50]),
        ];
        for (name, delay, now, wanted) in cases {
            assert_eq!(ids(&keys.ring(delay, day(now))), ids(&wanted.map(key)), "{name}");
        }
    }

    #[test]
    fn keys_of_two_sources_are_one_row_however_they_are_put_together() {
        let (one, other) = (made(&[100, 10]), made(&[100, 50]));
        let all = one.merged(&other).unwrap();
        assert_eq!(all, made(&[100, 50, 10]));
        assert_eq!(other.merged(&one).unwrap(), all);
        assert_eq!(all.merged(&all).unwrap(), all);
        let twin = MadeKeys::first(key(7), day(100));
        assert_eq!(one.merged(&twin).unwrap(), twin.merged(&one).unwrap(), "made at the same moment");
    }

    #[test]
    fn keys_that_were_written_read_back_and_nothing_else_does() {
        let random =
            |_| MadeKey { key: Key::from_bytes(crate::random::random_bytes().unwrap()), made_at: day(3) };
        let keys = MadeKeys::new((0..3).map(random).collect()).unwrap();
        let text = keys.to_text();
        assert_eq!(MadeKeys::parse(text.expose()), Ok(keys));
        for (name, text) in [
            ("empty", String::new()),
            ("no moment", text.expose().replace(' ', "")),
            ("a moment before all", text.expose().replace(' ', " -")),
            ("twice", text.expose().repeat(2)),
        ] {
            assert!(MadeKeys::parse(&text).is_err(), "{name}");
        }
    }

    #[test]
    fn a_ring_that_is_full_takes_no_more() {
        let full = MadeKeys::new(
            (0..64).rev().map(|byte| MadeKey { key: key(byte), made_at: day(byte.into()) }).collect(),
        );
        let full = full.unwrap();
        assert_eq!(full.rotated(key(200), day(70)).err(), Some(KeyError::TooMany));
        assert_eq!(MadeKeys::new(Vec::new()).err(), Some(KeyError::Empty));
    }
}
