//! The session cookie that a connection brought last, opened.
//!
//! A browser sends the same cookie with every request of a connection. Opening one costs more than the rest of
//! finding a session, so that its outcome is kept as long as the connection, for the very same bytes, host and
//! keys. Whether the session lives is not kept: that is asked for each request.

use std::sync::{Arc, Mutex, PoisonError};

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::route::Site;
use crate::store::StoreKey;

/// What is kept for a connection; nothing at first.
#[derive(Default)]
pub struct LastCookie(Mutex<Option<Opened>>);

struct Opened {
    /// The state of the key ring that it was opened with.
    keys: u64,
    site: Arc<str>,
    value: Zeroizing<Vec<u8>>,
    session: StoreKey,
}

impl LastCookie {
    /// The session of a cookie on a site, if it is the last one and the keys are still the same.
    #[must_use]
    pub(super) fn recall(&self, keys: u64, site: &Site, value: &[u8]) -> Option<StoreKey> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.as_ref().filter(|last| last.keys == keys && last.site == site.name)?;
        is_same(&last.value, value).then_some(last.session)
    }

    /// Keeps what a cookie opened to, in the place of the one before.
    pub(super) fn keep(&self, keys: u64, site: &Site, value: &[u8], session: StoreKey) {
        let value = Zeroizing::new(value.to_vec());
        let opened = Opened { keys, site: Arc::clone(&site.name), value, session };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
    }
}

/// Compares in a time that tells only the lengths: a connection of a proxy carries the cookies of many people.
/// Eight bytes at a time, for it is done for each request.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let ((words, rest), (other_words, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    let differences = words.iter().zip(other_words).fold(0, |differences, (word, other)| {
        differences | (u64::from_le_bytes(*word) ^ u64::from_le_bytes(*other))
    });
    one.len() == other.len() && bool::from(differences.ct_eq(&0) & rest.ct_eq(other_rest))
}

impl std::fmt::Debug for LastCookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[last cookie]")
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::route::{HostPattern, HostSettings, HostTable};
    use crate::web::Host;

    fn site(name: &str) -> Arc<Site> {
        let settings = HostSettings {
            pattern: HostPattern::parse(name).unwrap(),
            public_url: Url::parse(&format!("https://{name}")).unwrap(),
            provider: None,
        };
        HostTable::new(&[settings]).find(&Host::parse(name.as_bytes()).unwrap(), 443).unwrap()
    }

    #[test]
    fn only_the_same_bytes_on_the_same_host_under_the_same_keys_are_recalled() {
        let (here, there) = (site("a.test"), site("b.test"));
        let (one, two) = (StoreKey([1; 32]), StoreKey([2; 32]));
        let last = LastCookie::default();
        assert_eq!(last.recall(0, &here, b""), None);
        last.keep(0, &here, b"one", one);
        let cases: &[(&str, u64, &Site, &[u8], bool)] = &[
            ("the same", 0, &here, b"one", true),
            ("other keys", 1, &here, b"one", false),
            ("another host", 0, &there, b"one", false),
            ("another cookie", 0, &here, b"two", false),
            ("its beginning", 0, &here, b"on", false),
            ("more", 0, &here, b"one ", false),
            ("nothing", 0, &here, b"", false),
        ];
        for (name, keys, site, value, expected) in cases {
            assert_eq!(last.recall(*keys, site, value), expected.then_some(one), "{name}");
        }
        last.keep(0, &here, b"two", two);
        assert_eq!(last.recall(0, &here, b"one"), None, "there is one last cookie");
        let long = b"0123456789abcdefghij";
        last.keep(0, &here, long, one);
        for at in 0..long.len() {
            let mut other = *long;
            other[at] ^= 1;
            assert_eq!(last.recall(0, &here, &other), None, "another byte at {at}");
        }
        assert_eq!(last.recall(0, &here, long), Some(one));
        last.keep(0, &here, b"two", two);
        assert_eq!(last.recall(0, &here, b"two"), Some(two));
    }
}
