//! Path prefixes, matched at segment boundaries.

use std::fmt;
use std::sync::Arc;

use super::PatternError;
use crate::web::Target;

/// A path prefix that matches at segment boundaries: `/admin` and `/admin/` both match `/admin` and
/// everything below `/admin/`, and not `/administrator` (PP-5).
///
/// Case counts, as it does in paths: an application that takes `/ADMIN` for `/admin` needs its rule
/// on a prefix that holds both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPrefix(pub(super) Arc<str>);

impl PathPrefix {
    /// The prefix of every path: what a route without a `path` has.
    #[must_use]
    pub fn root() -> Self {
        Self(Arc::default())
    }

    /// Reads a prefix; it is held to the same canonical form as request targets. `/` is the root.
    ///
    /// # Errors
    /// [`PatternError::Path`]; also for a query, which never takes part in matching, and for a `*`,
    /// which would only ever match itself.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.contains('*') {
            return Err(PatternError::Path("a prefix matches all that is below it, without a `*`"));
        }
        let target = Target::parse(text.as_bytes()).map_err(|error| PatternError::Path(error.0))?;
        if target.query().is_some() {
            return Err(PatternError::Path("a query has no part in it"));
        }
        let path = target.path();
        Ok(Self(path.strip_suffix('/').unwrap_or(path).into()))
    }

    /// The prefix, without a slash at its end (empty for the root).
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PathPrefix {
    /// The prefix; `/` for the root.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

/// Every prefix (without a slash at its end) that matches a canonical path and has at most `longest`
/// bytes, longest first, down to the empty one: `/a/b`, `/a`, `` of `/a/b`.
///
/// The bound keeps a path of thousands of segments from costing thousands of lookups.
pub(super) fn prefixes(path: &str, longest: usize) -> impl Iterator<Item = &str> {
    let slash = || path.bytes().take(longest.saturating_add(1)).rposition(|byte| byte == b'/');
    let first = if path.len() <= longest { Some(path) } else { slash().and_then(|end| path.get(..end)) };
    std::iter::successors(first, |prefix| prefix.rfind('/').and_then(|end| prefix.get(..end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_the_canonical_form_of_a_target_and_no_slash_at_its_end() {
        let cases = [
            ("/", ""),
            ("/admin", "/admin"),
            ("/admin/", "/admin"),
            ("/a/b/", "/a/b"),
            ("/%7Ejoe", "/~joe"),
            ("/caf%c3%a9", "/caf%C3%A9"),
        ];
        for (text, wanted) in cases {
            assert_eq!(PathPrefix::parse(text).as_ref().map(PathPrefix::as_str), Ok(wanted), "{text}");
        }
        assert_eq!(PathPrefix::parse("/"), Ok(PathPrefix::root()));
    }

    #[test]
    fn what_could_never_match_or_match_in_two_ways_is_refused() {
        let texts = [
            "",
            "admin",
            "/a b",
            "/a//b",
            "//",
            "/a/../b",
            "/.",
            "/%2e%2e/",
            "/a%2fb",
            "/a;x",
            "/a#b",
            "/a?b",
            "/a?",
            "/*",
            "/api/*",
            "/a\\b",
            "/é",
            "/%zz",
            "https://x/",
        ];
        for text in texts {
            assert!(matches!(PathPrefix::parse(text), Err(PatternError::Path(_))), "{text:?}");
        }
    }

    #[test]
    fn a_prefix_prints_as_a_path() {
        for (text, wanted) in [("/", "/"), ("/admin/", "/admin")] {
            assert_eq!(PathPrefix::parse(text).unwrap().to_string(), wanted);
        }
    }

    #[test]
    fn prefixes_end_at_segment_boundaries_longest_first() {
        let cases: [(&str, usize, &[&str]); 8] = [
            ("/a/b", 99, &["/a/b", "/a", ""]),
            ("/a/b/", 99, &["/a/b/", "/a/b", "/a", ""]),
            ("/", 99, &["/", ""]),
            ("/a/b", 4, &["/a/b", "/a", ""]),
            ("/a/b", 3, &["/a", ""]),
            ("/a/b", 2, &["/a", ""]),
            ("/a/b", 1, &[""]),
            ("/a/b", 0, &[""]),
        ];
        for (path, longest, wanted) in cases {
            assert_eq!(prefixes(path, longest).collect::<Vec<_>>(), wanted, "{path} up to {longest}");
        }
    }

    #[test]
    fn a_path_of_many_segments_costs_no_more_than_the_longest_prefix() {
        let path = "/a".repeat(16_000);
        assert_eq!(prefixes(&path, 10).count(), 6);
    }
}
