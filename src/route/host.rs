//! Host patterns: `wiki.example.com`, `*.example.com`, `*`.

use std::fmt;
use std::sync::Arc;

use super::PatternError;
use crate::web::Host;

/// A host pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `wiki.example.com`.
    Exact(Arc<str>),
    /// `*.example.com`: any name below, not `example.com` itself. Holds `.example.com`.
    Wildcard(Arc<str>),
    /// Any host.
    Any,
}

impl HostPattern {
    /// Reads a pattern as it stands in the configuration: a name, `*.name`, or `*`. Names get the
    /// canonical form that a request's host has; a port is no part of a pattern.
    ///
    /// # Errors
    /// [`PatternError::Host`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let Some(parent) = text.strip_prefix("*.") else {
            return Ok(Self::Exact(canonical(text)?.name().into()));
        };
        let parent = canonical(parent)?;
        if is_address(parent.name()) {
            return Err(PatternError::Host);
        }
        Ok(Self::Wildcard(format!(".{}", parent.name()).into()))
    }
}

impl fmt::Display for HostPattern {
    /// As it stands in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// The name in the form that requests have, without a port.
fn canonical(name: &str) -> Result<Host, PatternError> {
    let host = Host::parse(name.as_bytes()).ok().ok_or(PatternError::Host)?;
    if host.port().is_some() { Err(PatternError::Host) } else { Ok(host) }
}

/// Whether a name is an address or the end of one: nothing is "below" those.
fn is_address(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    name.starts_with('[') || last.bytes().all(|byte| byte.is_ascii_digit())
}

/// The suffixes of a name that a wildcard can have, longest first: `.b.c`, `.c` of `a.b.c`.
pub(super) fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').filter_map(|(place, _)| name.get(place..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_a_wildcard_or_any() {
        let exact = |name: &str| Ok(HostPattern::Exact(name.into()));
        let wildcard = |suffix: &str| Ok(HostPattern::Wildcard(suffix.into()));
        let cases = [
            ("wiki.example.com", exact("wiki.example.com")),
            ("localhost", exact("localhost")),
            ("WIKI.Example.COM.", exact("wiki.example.com")),
            ("127.0.0.1", exact("127.0.0.1")),
            ("[::1]", exact("[::1]")),
            ("xn--bcher-kva.example", exact("xn--bcher-kva.example")),
            ("*.example.com", wildcard(".example.com")),
            ("*.Example.Com", wildcard(".example.com")),
            ("*.localhost", wildcard(".localhost")),
            ("*", Ok(HostPattern::Any)),
        ];
        for (text, wanted) in cases {
            assert_eq!(HostPattern::parse(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let texts = [
            "",
            " ",
            "*.",
            "*.*",
            "**",
            "*.*.example.com",
            "w*.example.com",
            "wiki.*.com",
            "*example.com",
            ".example.com",
            "*..example.com",
            "wiki..example.com",
            "wiki.example.com:443",
            "*.example.com:443",
            "https://wiki.example.com",
            "wiki.example.com/",
            "user@wiki.example.com",
            "bücher.example",
            "*.0.0.1",
            "*.127.0.0.1",
            "*.[::1]",
        ];
        for text in texts {
            assert_eq!(HostPattern::parse(text), Err(PatternError::Host), "{text:?}");
        }
    }

    #[test]
    fn a_pattern_prints_as_it_is_written() {
        for text in ["wiki.example.com", "*.example.com", "*"] {
            assert_eq!(HostPattern::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn suffixes_are_cut_at_labels_longest_first() {
        let cases: [(&str, &[&str]); 3] = [("a.b.c", &[".b.c", ".c"]), ("localhost", &[]), ("xa.b", &[".b"])];
        for (name, wanted) in cases {
            assert_eq!(suffixes(name).collect::<Vec<_>>(), wanted, "{name}");
        }
    }
}
