//! Where the gateway's own endpoints are.

use std::sync::Arc;

/// The endpoint prefix, `/oauth2` by default: canonical, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    prefix: Arc<str>,
}

impl Paths {
    /// Paths below `prefix`, which `config` has checked.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.trim_end_matches('/').into() }
    }

    /// The prefix.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The path of an endpoint, for example `sign_out`.
    #[must_use]
    pub fn of(&self, endpoint: &str) -> String {
        format!("{}/{endpoint}", self.prefix)
    }

    /// Whether a path is the prefix or below it.
    #[must_use]
    pub fn hold(&self, path: &str) -> bool {
        path == self.prefix() || self.below(path).is_some()
    }

    /// What stands behind the prefix, for a path below it: `callback/main` of `/oauth2/callback/main`.
    #[must_use]
    pub fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix(&*self.prefix)?.strip_prefix('/')
    }
}
