//! E-mail addresses as people type them: the domain says who signs them in.

use std::fmt;

use url::Host;

use crate::secret::Secret;

/// The most bytes of an address (RFC 5321 4.5.3.1.3, without the angle brackets).
pub const MAX_BYTES: usize = 254;

/// An address that was typed; it prints itself nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct EmailAddress {
    text: Secret<String>,
    domain: String,
}

impl EmailAddress {
    /// Reads an address: something, the last `@`, a domain name. Spaces around it are let be, others and
    /// controls are not.
    #[must_use]
    pub fn parse(typed: &str) -> Option<Self> {
        let text = typed.trim();
        if text.len() > MAX_BYTES || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return None;
        }
        let (local, domain) = text.rsplit_once('@')?;
        let domain = parse_domain(domain).filter(|_| !local.is_empty())?;
        Some(Self { text: Secret::new(text.to_owned()), domain })
    }

    /// The address as it was typed.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// Its domain, as [`parse_domain`] has it.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[e-mail address]")
    }
}

/// A domain name in lower case, international ones as A-labels; `None` for addresses of machines and
/// for what is no name.
#[must_use]
pub fn parse_domain(text: &str) -> Option<String> {
    // The parser would decode it.
    if text.contains('%') {
        return None;
    }
    match Host::parse(text) {
        Ok(Host::Domain(name)) => name.split('.').all(is_label).then_some(name),
        Ok(Host::Ipv4(_) | Host::Ipv6(_)) | Err(_) => None,
    }
}

/// RFC 5321 4.1.2.
fn is_label(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_is_what_stands_behind_the_last_at_in_one_spelling() {
        let long = format!("{}@a.test", "x".repeat(247));
        let cases = [
            ("alice@example.com", Some("example.com")),
            ("  alice@example.com\n", Some("example.com")),
            ("Alice@EXAMPLE.Com", Some("example.com")),
            ("a@evil.test@example.com", Some("example.com")),
            ("a@example.com@evil.test", Some("evil.test")),
            ("\"a@b\"@example.com", Some("example.com")),
            ("zoë@bücher.example", Some("xn--bcher-kva.example")),
            ("a@xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            ("a@BÜCHER.example", Some("xn--bcher-kva.example")),
            ("a@sub.example.com", Some("sub.example.com")),
            (&long, Some("a.test")),
            (&format!("x{long}"), None),
            ("", None),
            ("alice", None),
            ("@example.com", None),
            ("alice@", None),
            ("alice@.", None),
            ("alice@example.com.", None),
            ("alice@.example.com", None),
            ("alice@example..com", None),
            ("alice@*.example.com", None),
            ("alice@exam_ple.com", None),
            ("alice@127.0.0.1", None),
            ("alice@0x7f.1", None),
            ("alice@[::1]", None),
            ("alice@ex%61mple.com", None),
            ("alice@example.com/x", None),
            ("alice@example.com:80", None),
            ("al ice@example.com", None),
            ("alice@exam ple.com", None),
            ("alice\u{0}@example.com", None),
            ("alice\r\nBcc: x@example.com", None),
        ];
        for (typed, wanted) in cases {
            let found = EmailAddress::parse(typed);
            assert_eq!(found.as_ref().map(EmailAddress::domain), wanted, "{typed:?}");
        }
    }

    #[test]
    fn an_address_does_not_print_itself() {
        let address = EmailAddress::parse("alice@example.com").unwrap();
        assert_eq!(format!("{address:?}"), "[e-mail address]");
        assert_eq!(address.expose(), "alice@example.com");
    }
}
