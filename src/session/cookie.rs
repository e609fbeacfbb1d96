//! The names of the gateway's cookies, and which of a request's cookies are its own.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

/// The cookie names of one host. Where cookies can be `Secure` the names start with `__Host-`; on a
/// cleartext loopback host they do without both (SC-2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieNames {
    secure: bool,
}

/// At most so many login attempts for each browser (CB-11).
pub const MAX_LOGIN_ATTEMPTS: usize = 5;

impl CookieNames {
    /// Names for a host whose public URL is https (`secure`) or not.
    #[must_use]
    pub const fn new(secure: bool) -> Self {
        Self { secure }
    }

    /// Whether the cookies carry `Secure`.
    #[must_use]
    pub const fn secure(&self) -> bool {
        self.secure
    }

    /// `__Host-portcullis` or `portcullis`.
    #[must_use]
    pub const fn session(&self) -> &'static str {
        if self.secure { "__Host-portcullis" } else { "portcullis" }
    }

    /// `__Host-portcullis-sign-out` or `portcullis-sign-out`.
    #[must_use]
    pub const fn sign_out(&self) -> &'static str {
        if self.secure { "__Host-portcullis-sign-out" } else { "portcullis-sign-out" }
    }

    /// `__Host-portcullis-trips` or `portcullis-trips`.
    #[must_use]
    pub const fn trips(&self) -> &'static str {
        if self.secure { "__Host-portcullis-trips" } else { "portcullis-trips" }
    }

    /// The start of the names of login attempts.
    #[must_use]
    pub const fn login_prefix(&self) -> &'static str {
        if self.secure { "__Host-portcullis-login-" } else { "portcullis-login-" }
    }

    /// The name of the attempt with this `state`: the prefix and 16 hex digits of SHA-256 of the state.
    #[must_use]
    pub fn login(&self, state: &str) -> String {
        let mut name = self.login_prefix().to_owned();
        for byte in Sha256::digest(state).iter().take(8) {
            name.push(hex_digit(byte >> 4));
            name.push(hex_digit(byte & 0xf));
        }
        name
    }
}

/// The cookies of login attempts in a head that is too large to be read: their names, and whether they are
/// `Secure`; at most so many as a browser can hold of both kinds. Nothing else of ours is of any size.
#[must_use]
pub fn attempts_in(head: &[u8]) -> BTreeSet<(&str, bool)> {
    let kinds = [CookieNames::new(true), CookieNames::new(false)];
    let is_in_a_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let words = head.split(|byte| !is_in_a_name(byte)).filter_map(|word| std::str::from_utf8(word).ok());
    let attempts = words.filter_map(|word| {
        let kind = kinds.iter().find(|kind| word.strip_prefix(kind.login_prefix()).is_some_and(is_digest))?;
        Some((word, kind.secure()))
    });
    attempts.take(2 * MAX_LOGIN_ATTEMPTS).collect()
}

fn is_digest(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn hex_digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or_default()
}

/// Whether a cookie name is the gateway's (SC-14): such cookies never reach an upstream and no
/// upstream may set them.
///
/// Ours are, in any case, `portcullis` and whatever starts with `portcullis-`; in front of either
/// may stand one `__Host-` or `__Secure-`. Chunks and names to come go behind the hyphen.
/// `portcullis_theme` and `portcullisx` belong to the application.
#[must_use]
pub fn is_ours(name: &[u8]) -> bool {
    let name = strip_prefix(name, b"__host-").or_else(|| strip_prefix(name, b"__secure-")).unwrap_or(name);
    strip_prefix(name, b"portcullis").is_some_and(|rest| matches!(rest.first(), None | Some(b'-')))
}

/// What stands behind `prefix` (lower case) in `name` (any case).
fn strip_prefix<'a>(name: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = name.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_host_prefix_where_cookies_can_be_secure() {
        let secure = CookieNames::new(true);
        let plain = CookieNames::new(false);
        let cases = [
            ("session", secure.session(), plain.session()),
            ("sign-out", secure.sign_out(), plain.sign_out()),
            ("trips", secure.trips(), plain.trips()),
            ("login", secure.login_prefix(), plain.login_prefix()),
        ];
        for (name, with, without) in cases {
            assert_eq!(with, format!("__Host-{without}"), "{name}");
        }
        assert_eq!((secure.session(), plain.session()), ("__Host-portcullis", "portcullis"));
    }

    #[test]
    fn a_login_attempt_is_named_by_its_state_and_does_not_show_it() {
        let names = CookieNames::new(true);
        // SHA-256("abc") = ba7816bf 8f01cfea ...
        assert_eq!(names.login("abc"), "__Host-portcullis-login-ba7816bf8f01cfea");
        assert_ne!(names.login("abd"), names.login("abc"));
    }

    #[test]
    fn every_name_of_ours_is_ours() {
        for names in [CookieNames::new(true), CookieNames::new(false)] {
            let login = names.login("state");
            for name in [names.session(), names.sign_out(), names.trips(), names.login_prefix(), &login] {
                assert!(is_ours(name.as_bytes()), "{name}");
            }
        }
    }

    #[test]
    fn attempts_are_found_in_whatever_a_client_sends() {
        let names = [CookieNames::new(true).login("a"), CookieNames::new(false).login("b")];
        let [secure, plain] = names.each_ref().map(String::as_str);
        let head = format!(
            "GET / HTTP/1.1\r\nCookie: x=1; {secure}=v; {plain}=w; {secure}=v;portcullis-login-0123=x; \
             x{plain}=1; {plain}x=1; __Host-portcullis=s; portcullis-login-0123456789ABCDEF=x; \u{e9}={secure}\r\n"
        );
        let found: Vec<_> = attempts_in(head.as_bytes()).into_iter().collect();
        assert_eq!(found, [(secure, true), (plain, false)]);
        let many: Vec<String> = (0..1000).map(|n| CookieNames::new(true).login(&n.to_string())).collect();
        assert_eq!(attempts_in(many.join("=v; ").as_bytes()).len(), 2 * MAX_LOGIN_ATTEMPTS);
    }

    #[test]
    fn ours_are_known_in_any_case_and_with_any_prefix_and_others_are_let_be() {
        let cases = [
            ("portcullis", true),
            ("PORTCULLIS", true),
            ("__Host-portcullis", true),
            ("__host-Portcullis", true),
            ("__HOST-PORTCULLIS-SIGN-OUT", true),
            ("__Secure-portcullis", true),
            ("__sEcUrE-portcullis-1", true),
            ("portcullis-", true),
            ("portcullis-login-0123456789abcdef", true),
            ("portcullis-anything else", true),
            ("", false),
            ("__Host-", false),
            ("portculli", false),
            ("portcullisx", false),
            ("portcullis_theme", false),
            ("portcullis.x", false),
            ("xportcullis", false),
            ("my-portcullis", false),
            ("_portcullis", false),
            ("__Host-__Host-portcullis", false),
            (" portcullis", false),
        ];
        for (name, wanted) in cases {
            assert_eq!(is_ours(name.as_bytes()), wanted, "{name:?}");
        }
        assert!(!is_ours(b"portcullis\xff"));
    }
}
