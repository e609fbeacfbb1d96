//! The host that a request names, in one canonical form (PP-7).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use memchr::memrchr;

/// The longest name, in bytes (RFC 1035 2.3.4).
const MAX_NAME_BYTES: usize = 255;
/// The longest label of a name, in bytes (RFC 1035 2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// A host name with its port, canonical: lower case, without a trailing dot.
///
/// `name` is a DNS name, an IPv4 address, or an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    name: Arc<str>,
    port: Option<u16>,
}

/// A `Host` field that is no `host[:port]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Host field is not a valid host[:port]")]
pub struct HostError;

impl Host {
    /// Reads `host[:port]` (RFC 9110 7.2, PP-7): a name of labels of letters, digits, `-` and `_`, an
    /// IPv4 address, or an IPv6 address in brackets.
    ///
    /// # Errors
    /// [`HostError`] for userinfo, an empty or odd name, a port that is no number in 1..=65535.
    pub fn parse(bytes: &[u8]) -> Result<Self, HostError> {
        let text = std::str::from_utf8(bytes).map_err(|_not_utf8| HostError)?;
        let (name, port) = match split_port(text) {
            Some((name, port)) if !port.ends_with(']') => (name, Some(parse_port(port)?)),
            _ => (text, None),
        };
        let name = match name.strip_prefix('[') {
            Some(rest) => ipv6_name(rest.strip_suffix(']').ok_or(HostError)?)?,
            None => canonical_name(name)?,
        };
        Ok(Self { name: name.into(), port })
    }

    /// The name, without the port.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port, if the request named one.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }
}

/// The host that a connection named last: hardly any names two, and reading one costs more than comparing it.
#[derive(Debug, Default)]
pub struct LastHost(Option<(Box<[u8]>, Host)>);

impl LastHost {
    /// As [`Host::parse`].
    ///
    /// # Errors
    /// [`HostError`].
    pub fn parse(&mut self, bytes: &[u8]) -> Result<Host, HostError> {
        if let Some((_, host)) = self.0.as_ref().filter(|(sent, _)| **sent == *bytes) {
            return Ok(host.clone());
        }
        let host = Host::parse(bytes)?;
        self.0 = Some((bytes.into(), host.clone()));
        Ok(host)
    }
}

/// `name` or `name:port`.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn ipv6_name(text: &str) -> Result<String, HostError> {
    let address: Ipv6Addr = text.parse().map_err(|_not_an_address| HostError)?;
    Ok(format!("[{address}]"))
}

/// What stands in front of the last colon and behind it. Works on bytes, as all that follows: the searchers of
/// `str` cost several times as much, and every request has a host.
fn split_port(text: &str) -> Option<(&str, &str)> {
    let (name, port) = text.split_at_checked(memrchr(b':', text.as_bytes())?)?;
    Some((name, port.strip_prefix(':')?))
}

/// A DNS name or IPv4 address in lower case, without the dot of the root.
fn canonical_name(text: &str) -> Result<String, HostError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let mut labels = name.as_bytes().split(|&byte| byte == b'.');
    let is_valid = name.len() <= MAX_NAME_BYTES && labels.all(is_label);
    if !is_valid || (ends_in_a_number(name.as_bytes()) && name.parse::<Ipv4Addr>().is_err()) {
        return Err(HostError);
    }
    Ok(name.to_ascii_lowercase())
}

fn is_label(label: &[u8]) -> bool {
    let is_ldh = label.iter().all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    is_ldh && !matches!(label, [] | [b'-', ..] | [.., b'-']) && label.len() <= MAX_LABEL_BYTES
}

/// Whether a browser would read a name as an IPv4 address (WHATWG URL, "ends in a number"): then
/// only the plain dotted form is one, and `127.1` or `0x7f000001` are refused.
fn ends_in_a_number(name: &[u8]) -> bool {
    let last = name.rsplit(|&byte| byte == b'.').next().unwrap_or_default();
    let hex = last.strip_prefix(b"0x").or_else(|| last.strip_prefix(b"0X"));
    let is_decimal = last.iter().all(u8::is_ascii_digit);
    is_decimal || hex.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// A port in its one spelling: no sign, no leading zero.
fn parse_port(text: &str) -> Result<u16, HostError> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if !is_plain {
        return Err(HostError);
    }
    text.parse().map_err(|_not_a_port| HostError)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_is_read_alike_whatever_was_named_before() {
        let mut last = LastHost::default();
        let named =
            ["App.Test:81", "App.Test:81", "app.test", "app.test:81", "a b", "app.test", "", "[::1]", "a b"];
        for name in named {
            assert_eq!(last.parse(name.as_bytes()), Host::parse(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_host_is_read_into_its_canonical_form() {
        let rows = [
            ("app.test", "app.test", None),
            ("APP.Test", "app.test", None),
            ("app.test.", "app.test", None),
            ("App.Test.:8443", "app.test", Some(8443)),
            ("app.test:443", "app.test", Some(443)),
            ("app.test:1", "app.test", Some(1)),
            ("app.test:65535", "app.test", Some(65535)),
            ("localhost", "localhost", None),
            ("my_app.test", "my_app.test", None),
            ("_dmarc.test", "_dmarc.test", None),
            ("xn--caf-dma.test", "xn--caf-dma.test", None),
            ("1and1.test", "1and1.test", None),
            ("0xx.test", "0xx.test", None),
            ("1.test", "1.test", None),
            ("127.0.0.1", "127.0.0.1", None),
            ("127.0.0.1.", "127.0.0.1", None),
            ("127.0.0.1:4180", "127.0.0.1", Some(4180)),
            ("[::1]", "[::1]", None),
            ("[::1]:4180", "[::1]", Some(4180)),
            ("[2001:DB8:0:0::1]", "[2001:db8::1]", None),
            ("[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]", None),
        ];
        for (raw, name, port) in rows {
            let host = Host::parse(raw.as_bytes()).unwrap_or_else(|_| panic!("{raw} is refused"));
            assert_eq!((host.name(), host.port()), (name, port), "{raw}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let label = "a".repeat(64);
        let long = ["abcdefg."; 32].concat() + "x";
        let rows: &[(&str, &[u8])] = &[
            ("empty", b""),
            ("only a dot", b"."),
            ("only a port", b":80"),
            ("an empty label", b"app..test"),
            ("an empty first label", b".app.test"),
            ("two dots at the end", b"app.test.."),
            ("userinfo", b"u@app.test"),
            ("userinfo with a password", b"u:p@app.test"),
            ("a list", b"app.test, admin.test"),
            ("a path", b"app.test/x"),
            ("a backslash", b"app.test\\x"),
            ("a query", b"app.test?x"),
            ("a fragment", b"app.test#x"),
            ("a space", b"app test"),
            ("a space first", b" app.test"),
            ("a space last", b"app.test "),
            ("a tab", b"app.test\t"),
            ("a NUL", b"app.test\0"),
            ("an escape", b"app%2etest"),
            ("UTF-8", "caf\u{e9}.test".as_bytes()),
            ("Latin-1", b"caf\xe9.test"),
            ("a full-width letter", "\u{ff41}pp.test".as_bytes()),
            ("a hyphen first", b"-app.test"),
            ("a hyphen last", b"app-.test"),
            ("an asterisk", b"*.test"),
            ("no port after the colon", b"app.test:"),
            ("port zero", b"app.test:0"),
            ("a port too large", b"app.test:65536"),
            ("a port far too large", b"app.test:99999999999999999999"),
            ("a port with a sign", b"app.test:+80"),
            ("a negative port", b"app.test:-1"),
            ("a port with a leading zero", b"app.test:0443"),
            ("a port in hex", b"app.test:0x50"),
            ("a port with a space", b"app.test: 80"),
            ("two ports", b"app.test:80:80"),
            ("a label too long", label.as_bytes()),
            ("a name too long", long.as_bytes()),
            ("a short IPv4 address", b"127.1"),
            ("an IPv4 address as a number", b"2130706433"),
            ("an IPv4 address in hex", b"0x7f000001"),
            ("an IPv4 address with hex at its end", b"127.0.0.0X1"),
            ("an IPv4 address in octal", b"0177.0.0.01"),
            ("an IPv4 address out of range", b"256.0.0.1"),
            ("five numbers", b"1.2.3.4.5"),
            ("a name that ends in a number", b"app.1"),
            ("IPv6 without brackets", b"::1"),
            ("IPv6 not closed", b"[::1"),
            ("IPv6 with a rest", b"[::1]x"),
            ("IPv6 with a dot after it", b"[::1]."),
            ("IPv6 with an empty port", b"[::1]:"),
            ("IPv6 with port zero", b"[::1]:0"),
            ("IPv6 with a zone", b"[fe80::1%25eth0]"),
            ("IPv4 in brackets", b"[127.0.0.1]"),
            ("a name in brackets", b"[app.test]"),
            ("empty brackets", b"[]"),
            ("an IP future", b"[v1.x]"),
        ];
        for (name, raw) in rows {
            assert_eq!(Host::parse(raw), Err(HostError), "{name}");
        }
    }

    #[test]
    fn a_name_of_exactly_the_longest_length_is_read() {
        let name = ["abcdefg."; 31].concat() + "abcdefg";
        assert_eq!(name.len(), MAX_NAME_BYTES);
        assert_eq!(Host::parse(name.as_bytes()).map(|host| host.name), Ok(name.into()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(raw in proptest::collection::vec(any::<u8>(), 0..32)) {
            let _ = Host::parse(&raw);
        }

        #[test]
        fn a_canonical_host_is_its_own_canonical_form(raw in "[a-zA-Z0-9.:_\\[\\]-]{1,20}") {
            if let Ok(host) = Host::parse(raw.as_bytes()) {
                prop_assert_eq!(Host::parse(host.to_string().as_bytes()), Ok(host));
            }
        }
    }
}
