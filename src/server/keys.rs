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
