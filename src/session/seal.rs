//! AES-256-GCM over cookies and records.
//!
//! A sealed cookie is `base64url(version | key id | nonce | ciphertext and tag)`, its associated data
//! the length-prefixed purpose, cookie name, host and key id and the version. A sealed record is
//! `version | key id | salt | nonce | ciphertext and tag` under a key derived from the salt, its
//! associated data the record's store key.

use super::Session;
use super::key_ring::{KeyRing, Purpose};
use crate::random::RandomError;

/// A value that does not open: tampered, of another purpose, name or host, of a key that is gone. One error for all:
/// telling them apart helps nobody but an attacker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed value does not open")]
pub struct OpenError;

/// Why a record could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// No entropy.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The value is too large or can't be written as JSON.
    #[error("the value can't be sealed")]
    Value,
}

/// Seals `plain` for the cookie `name` on `host`.
///
/// # Errors
/// [`SealError`].
pub fn seal_cookie(
    ring: &KeyRing,
    purpose: Purpose,
    name: &str,
    host: &str,
    plain: &[u8],
) -> Result<String, SealError> {
    todo!()
}

/// Opens a cookie value. `resealing` in the result says that the value was sealed by a key that is
/// no longer the first: the caller may seal it anew.
///
/// # Errors
/// [`OpenError`].
pub fn open_cookie(
    ring: &KeyRing,
    purpose: Purpose,
    name: &str,
    host: &str,
    value: &[u8],
) -> Result<Opened, OpenError> {
    todo!()
}

/// An opened cookie.
#[derive(Debug)]
pub struct Opened {
    /// The plain bytes.
    pub plain: zeroize::Zeroizing<Vec<u8>>,
    /// Whether an older key sealed it.
    pub by_old_key: bool,
}

/// Seals a session for the store.
///
/// # Errors
/// [`SealError`].
pub fn seal_record(ring: &KeyRing, store_key: &[u8; 32], session: &Session) -> Result<Vec<u8>, SealError> {
    todo!()
}

/// Opens a session from the store.
///
/// # Errors
/// [`OpenError`].
pub fn open_record(ring: &KeyRing, store_key: &[u8; 32], bytes: &[u8]) -> Result<Session, OpenError> {
    todo!()
}
