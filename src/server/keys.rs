//! The session keys: as configured, or one that the gateway keeps for itself.

use std::path::Path;

use crate::config::{KeyFileError, KeyOrigin, StoreKind, load_or_create_key};
use crate::random::{RandomError, random_bytes};
use crate::session::key_ring::KeyError;
use crate::session::{Key, KeyRing};

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The key in the data directory.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The configured keys don't go together.
    #[error(transparent)]
    Ring(#[from] KeyError),
    /// No entropy.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// The ring of the configured keys. Without any, one that was made before is read from `data_dir`,
/// or made; a store in memory forgets its sessions anyway, so there the key is not kept either.
///
/// # Errors
/// [`KeysError`].
pub(super) fn load(configured: Vec<Key>, store: StoreKind, data_dir: &Path) -> Result<KeyRing, KeysError> {
    let keys = match (configured, store) {
        (keys, _) if !keys.is_empty() => keys,
        (_, StoreKind::Memory) => vec![Key::from_bytes(random_bytes()?)],
        (_, StoreKind::Disk) => vec![own_key(data_dir)?],
    };
    Ok(KeyRing::new(keys)?)
}

/// An operator should know that there is a key, and where.
fn own_key(data_dir: &Path) -> Result<Key, KeyFileError> {
    let (key, origin) = load_or_create_key(data_dir)?;
    if let KeyOrigin::Made(file) = origin {
        let text = "no session key is configured: one was made";
        tracing::info!(event = "session_key_made", file = %file.display(), "{text}");
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::session::Purpose;
    use crate::session::seal::{open_cookie, seal_cookie};

    /// Whether what one ring seals opens with the other.
    fn are_the_same(one: &KeyRing, other: &KeyRing) -> bool {
        let sealed = seal_cookie(one, Purpose::SessionCookie, "c", "h", b"x").unwrap();
        open_cookie(other, Purpose::SessionCookie, "c", "h", sealed.as_bytes()).is_ok()
    }

    #[test]
    fn a_key_that_was_made_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let made = load(Vec::new(), StoreKind::Disk, folder.path()).unwrap();
        let read = load(Vec::new(), StoreKind::Disk, folder.path()).unwrap();
        assert!(are_the_same(&made, &read));
    }

    #[test]
    fn a_store_in_memory_leaves_no_key_behind() {
        let folder = tempfile::tempdir().unwrap();
        let one = load(Vec::new(), StoreKind::Memory, folder.path()).unwrap();
        let other = load(Vec::new(), StoreKind::Memory, folder.path()).unwrap();
        assert!(!are_the_same(&one, &other));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn configured_keys_are_taken_and_none_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let key = Key::from_bytes(random_bytes().unwrap());
        let one = load(vec![key.clone()], StoreKind::Disk, folder.path()).unwrap();
        let other = load(vec![key], StoreKind::Memory, folder.path()).unwrap();
        assert!(are_the_same(&one, &other));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
