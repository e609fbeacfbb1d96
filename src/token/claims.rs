//! Claims as a JSON object with typed getters: a wrong type is an error, never "absent" (ID-15).

use serde_json::{Map, Value};

/// A JSON object of claims.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Claims(Map<String, Value>);

/// A claim that is not of the type that its specification gives it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("claim `{name}` is not {wanted}")]
pub struct ClaimError {
    /// The claim's name.
    pub name: String,
    /// What it should be, with its article: "a string".
    pub wanted: &'static str,
}

impl Claims {
    /// Wraps a JSON object.
    #[must_use]
    pub const fn new(object: Map<String, Value>) -> Self {
        Self(object)
    }

    /// Reads a JSON object from bytes.
    ///
    /// # Errors
    /// When the bytes are no JSON or no object (TE-4); the text never holds the bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAnObject> {
        todo!()
    }

    /// Whether there is such a claim, of whatever type, null included.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The raw value.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A string claim; `None` where it is absent.
    ///
    /// # Errors
    /// [`ClaimError`] for any other JSON type, null included.
    pub fn string(&self, name: &str) -> Result<Option<&str>, ClaimError> {
        todo!()
    }

    /// A boolean claim.
    ///
    /// # Errors
    /// [`ClaimError`] for any other JSON type.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, ClaimError> {
        todo!()
    }

    /// A `NumericDate` (RFC 7519 2) in whole seconds; fractions are cut, too large numbers saturate.
    ///
    /// # Errors
    /// [`ClaimError`] for any other JSON type and for negative numbers.
    pub fn seconds(&self, name: &str) -> Result<Option<u64>, ClaimError> {
        todo!()
    }

    /// A string, or an array of strings, as a list (`aud`).
    ///
    /// # Errors
    /// [`ClaimError`] for any other JSON type.
    pub fn strings(&self, name: &str) -> Result<Option<Vec<&str>>, ClaimError> {
        todo!()
    }

    /// The value at a dotted path, for example `realm_access.roles`. A claim whose whole name is the
    /// path wins (names like `https://example.com/groups` have dots).
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&Value> {
        todo!()
    }

    /// Adds the members of `other` that this has not, except the names in `protected` (UI-3).
    pub fn absorb(&mut self, other: Self, protected: &[&str]) {
        todo!()
    }
}

/// Bytes that should be a JSON object and are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object")]
pub struct NotAnObject;
