//! What an answer says of caching, made right for an answer to somebody known (SC-15).
//!
//! Only the person's own browser may keep such an answer: whatever a shared cache could read as leave to
//! keep it is taken out, and what is for the browser stays.

use http::HeaderMap;
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue};

const PRIVATE: HeaderValue = HeaderValue::from_static("private");

/// What the caches of content networks and of proxies read instead of `Cache-Control`.
const OF_CACHES: &[&str] = &["edge-control", "surrogate-control", "x-accel-expires"];

/// RFC 9213 2.2: the name of a field for one kind of cache ends like this.
const TARGETED: &str = "-cache-control";

/// A change of an answer's fields.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The new `Cache-Control`; `None`: it is right as it is.
    pub cache_control: Option<HeaderValue>,
    /// Fields that have to go.
    pub removed: Vec<HeaderName>,
}

/// The change that keeps an answer out of every cache but the browser's.
///
/// `Cache-Control` becomes or stays `private` or `no-store`; `public`, `s-maxage`, `private` for some fields
/// only, and what can't be read go; everything else stays, so that `max-age` is the browser's as before.
/// Fields for content networks alone go. Most answers of applications need no allocation but one.
#[must_use]
pub fn keep_from_shared_caches(headers: &HeaderMap) -> Change {
    let removed = headers.keys().filter(|name| is_for_caches(name.as_str())).cloned().collect();
    // What most answers of applications have.
    let cache_control =
        if headers.contains_key(CACHE_CONTROL) { made_private(headers) } else { Some(PRIVATE) };
    Change { cache_control, removed }
}

fn is_for_caches(name: &str) -> bool {
    name.ends_with(TARGETED) || OF_CACHES.contains(&name)
}

fn made_private(headers: &HeaderMap) -> Option<HeaderValue> {
    let (mut is_private, mut is_changed) = (false, false);
    let mut kept: Vec<&[u8]> = Vec::new();
    for field in headers.get_all(CACHE_CONTROL) {
        for directive in directives(field.as_bytes()) {
            let says = Says::of(directive);
            is_private |= says == Says::Private;
            if says == Says::Shared {
                is_changed = true;
            } else {
                kept.push(directive);
            }
        }
    }
    if is_private && !is_changed {
        return None;
    }
    if !is_private {
        kept.insert(0, b"private");
    }
    // Its parts stood in a field before.
    Some(HeaderValue::from_bytes(&kept.join(b", ".as_slice())).unwrap_or(PRIVATE))
}

/// What a directive says of shared caches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    /// They may keep the answer, or parts of it; or nobody knows.
    Shared,
    /// They may not.
    Private,
    /// Nothing.
    Else,
}

impl Says {
    fn of(directive: &[u8]) -> Self {
        let is = |name: &str| directive.eq_ignore_ascii_case(name.as_bytes());
        if is("private") || is("no-store") {
            return Self::Private;
        }
        let name = directive.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii();
        let named = |other: &&str| name.eq_ignore_ascii_case(other.as_bytes());
        let is_cut = directive.iter().fold(false, |is_open, &byte| is_open ^ (byte == b'"'));
        // A `private` or `no-store` with a value covers some fields only, if anything.
        if is_cut || ["public", "s-maxage", "private", "no-store"].iter().any(named) {
            return Self::Shared;
        }
        Self::Else
    }
}

/// The directives of a field (RFC 9111 5.2): between commas, but for those in quotes.
fn directives(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut in_quotes = false;
    let parts = field.split(move |&byte| {
        in_quotes ^= byte == b'"';
        byte == b',' && !in_quotes
    });
    parts.map(<[u8]>::trim_ascii).filter(|directive| !directive.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(fields: &[(&'static str, &'static str)]) -> Change {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        keep_from_shared_caches(&headers)
    }

    #[test]
    fn a_shared_cache_is_never_left_to_keep_an_answer_and_the_browser_is() {
        let rows: &[(&[&str], Option<&str>)] = &[
            (&[], Some("private")),
            (&[""], Some("private")),
            (&["public"], Some("private")),
            (&["public, max-age=600"], Some("private, max-age=600")),
            (&["PUBLIC , Max-Age=31536000, immutable"], Some("private, Max-Age=31536000, immutable")),
            (&["max-age=600"], Some("private, max-age=600")),
            (&["max-age=0, s-maxage=600"], Some("private, max-age=0")),
            (&["S-MaxAge = 600"], Some("private")),
            (&["no-cache"], Some("private, no-cache")),
            (&["must-revalidate", "public"], Some("private, must-revalidate")),
            (&["private"], None),
            (&["Private, max-age=600"], None),
            (&["no-store"], None),
            (&["no-cache, no-store, must-revalidate"], None),
            (&["private, public"], Some("private")),
            (&["no-store", "s-maxage=600"], Some("no-store")),
            (&["private=\"set-cookie\", max-age=600"], Some("private, max-age=600")),
            (&["private=\"a, no-store, b\", max-age=600"], Some("private, max-age=600")),
            (&["x=\"a, private\""], Some("private, x=\"a, private\"")),
            (&["x=\"a, private"], Some("private")),
            (&["no-store=x"], Some("private")),
            (&["publicity, privately"], Some("private, publicity, privately")),
            (
                &["max-age=600,,  ,stale-while-revalidate=60"],
                Some("private, max-age=600, stale-while-revalidate=60"),
            ),
        ];
        for (fields, wanted) in rows {
            let fields: Vec<_> = fields.iter().map(|value| ("cache-control", *value)).collect();
            let made = change(&fields).cache_control;
            assert_eq!(made.as_ref().map(|value| value.to_str().unwrap()), *wanted, "{fields:?}");
        }
    }

    #[test]
    fn what_only_content_networks_read_goes() {
        let fields = [
            ("cdn-cache-control", "max-age=600"),
            ("cloudflare-cdn-cache-control", "max-age=600"),
            ("surrogate-control", "max-age=600"),
            ("x-accel-expires", "600"),
            ("expires", "Thu, 01 Jan 2037 00:00:00 GMT"),
            ("cache-control", "private"),
            ("x-cache-controls", "1"),
        ];
        let Change { cache_control, removed } = change(&fields);
        assert_eq!(cache_control, None);
        let mut removed: Vec<_> = removed.iter().map(HeaderName::as_str).collect();
        removed.sort_unstable();
        let wanted =
            ["cdn-cache-control", "cloudflare-cdn-cache-control", "surrogate-control", "x-accel-expires"];
        assert_eq!(removed, wanted);
    }

    #[test]
    fn bytes_outside_ascii_are_no_leave_to_keep_anything() {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_bytes(b"public\xff, max-age=1").unwrap());
        let made = keep_from_shared_caches(&headers).cache_control.unwrap();
        assert_eq!(made.as_bytes(), b"private, public\xff, max-age=1");
    }
}
