//! The key ring: the first key seals, all of them open; the key id stands inside (SC-5).

use crate::secret::Secret;

/// What a value is sealed for. Each purpose has a key of its own (HKDF-SHA-256), and the purpose is
/// in the associated data too (SC-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The reference in the session cookie.
    SessionCookie,
    /// A login attempt in its cookie.
    LoginCookie,
    /// The state of a sign-out on its way through the provider.
    SignOutCookie,
    /// A record in a store; its key is derived for each record from a salt.
    Record,
}

/// One secret of the ring: 32 bytes.
#[derive(Clone, Debug)]
pub struct Key {
    /// Derived from the secret; tells which key sealed a value.
    pub id: [u8; 4],
    secret: Secret<Vec<u8>>,
}

/// The ring.
#[derive(Debug)]
pub struct KeyRing {}

/// A key that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Wrong length or alphabet.
    #[error("a session key is 32 random bytes in base64 (run `portcullis keygen`)")]
    Malformed,
    /// All bytes alike, or too few different ones (SC-5).
    #[error("the session key is too weak: its bytes hardly differ (run `portcullis keygen`)")]
    Weak,
    /// Two keys of the ring are the same.
    #[error("the same session key is listed twice")]
    Duplicate,
    /// No key at all.
    #[error("no session key")]
    Empty,
}

impl Key {
    /// Reads a key as `portcullis keygen` writes it: 32 bytes in base64 or base64url, padded or not,
    /// white space around it trimmed.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(text: &Secret<String>) -> Result<Self, KeyError> {
        todo!()
    }

    /// A key of fresh random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        todo!()
    }

    /// The key in the form that [`Key::parse`] reads, with a final newline.
    #[must_use]
    pub fn to_text(&self) -> Secret<String> {
        todo!()
    }
}

impl KeyRing {
    /// The first key seals, all open.
    ///
    /// # Errors
    /// [`KeyError::Empty`], [`KeyError::Duplicate`].
    pub fn new(keys: Vec<Key>) -> Result<Self, KeyError> {
        todo!()
    }
}
