//! Where a person goes after sign-in: never to another origin (RD-1 to RD-5).

use url::Url;

/// A path (with query) on the gateway's own host, checked and re-serialised. Starts with one `/`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ReturnTo(String);

impl ReturnTo {
    /// The root of the host.
    #[must_use]
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Checks what a request asked for: a path, or an absolute URL of the same origin as `base`
    /// (the host's public URL). Parsed as a browser parses it (WHATWG), compared by origin, then
    /// the parser's own serialisation of path and query is kept (the fragment is dropped). URLs under
    /// `endpoint_prefix` (for example `/oauth2`) are not allowed (RD-3).
    ///
    /// Returns `None` for everything else; the caller uses [`ReturnTo::root`].
    #[must_use]
    pub fn parse(input: &str, base: &Url, endpoint_prefix: &str) -> Option<Self> {
        todo!()
    }

    /// The path and query.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
