//! The request target in one canonical form (PP-1 to PP-4).

/// A path and query that every step uses and that the upstream gets, byte for byte.
///
/// The path starts with `/`, has no dot segments, no empty segments but a last one, no `;`
/// parameters, no encoded separators; escapes of unreserved characters are decoded, all others have
/// upper-case hex digits. The query is kept as sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    text: String,
    path_len: usize,
}

/// Why a target was refused; the text names the rule and never holds the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TargetError(pub &'static str);

impl Target {
    /// Normalises a raw origin-form target.
    ///
    /// # Errors
    /// [`TargetError`] for whatever could be read in two ways: not starting with `/`, fragment, raw
    /// control, space or non-ASCII byte, `"<>\^`{|}` in the path, bad escape, `%00`, overlong UTF-8,
    /// `%2f`, `%5c`, backslash, dot segments in any spelling, `//`, `;`.
    pub fn parse(raw: &[u8]) -> Result<Self, TargetError> {
        todo!()
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &str {
        todo!()
    }

    /// The query, without its `?`; `None` where there is none.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        todo!()
    }

    /// Path and query, as sent upstream.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}
