//! What only a proxy may say about a request, and the gateway's own word for the client's address.
//!
//! Nothing of it is believed when a client says it: it is removed from every request on every route
//! (IH-9), and `X-Forwarded-For` is set anew: by the address of the client, which a trusted proxy in front
//! may name ([`super::proxies`]).

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use http::header::HeaderValue;

/// Names that only a proxy may set, lower case and sorted for the binary search. No claim may be
/// mapped to one of them.
pub const FORWARDED_HEADERS: &[&str] = &[
    // The client's address, as content networks and load balancers tell it.
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "client-cert",       // RFC 9440: a certificate that a proxy saw
    "client-cert-chain", // RFC 9440
    "client-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "forwarded",       // RFC 7239
    "front-end-https", // the scheme, for old Microsoft applications
    "proxy",           // becomes the variable HTTP_PROXY of a CGI program (CVE-2016-5385)
    "proxy-client-ip",
    "true-client-ip",
    "wl-proxy-client-ip",
    "x-arr-clientcert",
    "x-arr-ssl",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-client-cert",
    "x-client-dn",
    "x-client-ip",
    "x-client-verify",
    "x-cluster-client-ip",
    "x-forwarded",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-uri",
    "x-host",
    "x-http-method", // the three overrides of the method: policy saw another one (PP-8)
    "x-http-method-override",
    "x-method-override",
    "x-original-uri",
    "x-original-url",
    "x-originating-ip",
    "x-proxyuser-ip",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-rewrite-url", // replaces the target in IIS and in some frameworks (CVE-2018-14773)
    "x-scheme",
    "x-url-scheme",
];

/// Beginnings of names that are removed too: whatever else a proxy may say in `X-Forwarded-*` or
/// `X-Original-*`, `X-Envoy-Original-Path` (CVE-2023-27487), `X-SSL-Client-Verify`, `X-Remote-User`.
const FAMILIES: &[&str] = &[
    "ssl-client-",
    "x-amzn-mtls-",
    "x-envoy-",
    "x-forwarded-",
    "x-original-",
    "x-remote-user",
    "x-ssl-",
    "x-tls-",
];

/// Whether only a proxy may send a header of this name, in any case and with `_`, `.` or any other
/// sign for `-`, which CGI-like applications don't tell apart (IH-2).
#[must_use]
pub fn is_proxy_header(name: &str) -> bool {
    // This runs for every header of every request, and most of them are ruled out by their first two bytes.
    let may_be_listed = match *name.as_bytes() {
        [first, second, ..] => SECOND_BYTES[usize::from(first)] & class(second) != 0,
        _ => false,
    };
    may_be_listed && is_listed(&plain(name))
}

fn is_listed(name: &str) -> bool {
    FORWARDED_HEADERS.binary_search(&name).is_ok() || FAMILIES.iter().any(|family| name.starts_with(family))
}

/// The `X-Forwarded-For` that the upstream gets: the client's address and nothing else; an IPv4
/// client of an IPv6 socket by its IPv4 address.
#[must_use]
pub fn forwarded_for(client: IpAddr) -> HeaderValue {
    // An address is always a valid value; "unknown" is what RFC 7239 6.2 has for there being none.
    HeaderValue::try_from(client.to_canonical().to_string()).unwrap_or(HeaderValue::from_static("unknown"))
}

/// Whom an address stands for where clients are counted: an IPv6 client has a whole /64 (DO-6).
#[must_use]
pub fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// For the first byte of a listed name, in either case, the classes of the second ones.
const SECOND_BYTES: [u32; 256] = note_second_bytes(FAMILIES, note_second_bytes(FORWARDED_HEADERS, [0; 256]));

const fn note_second_bytes(names: &[&str], mut noted: [u32; 256]) -> [u32; 256] {
    let mut at = 0;
    while at < names.len() {
        let name = names[at].as_bytes();
        let (first, second) = (name[0], class(name[1]));
        noted[first as usize] |= second;
        noted[first.to_ascii_uppercase() as usize] |= second;
        at += 1;
    }
    noted
}

/// A bit for a letter in either case, one for all digits, one for all signs.
const fn class(byte: u8) -> u32 {
    match byte {
        b'a'..=b'z' => 1 << (byte - b'a'),
        b'A'..=b'Z' => 1 << (byte - b'A'),
        b'0'..=b'9' => 1 << 26,
        _ => 1 << 27,
    }
}

/// A name in lower case with `-` for everything but letters and digits.
fn plain(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        return Cow::Borrowed(name);
    }
    let plain = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    Cow::Owned(name.bytes().map(plain).map(char::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_sorted_and_in_the_form_that_is_compared() {
        assert!(FORWARDED_HEADERS.is_sorted_by(|a, b| a < b));
        for name in FORWARDED_HEADERS.iter().chain(FAMILIES) {
            assert_eq!(plain(name), *name);
        }
    }

    #[test]
    fn what_only_a_proxy_may_say_is_known_in_every_spelling() {
        let rows = [
            "forwarded",
            "X-Forwarded",
            "x-forwarded-for",
            "X-Forwarded-Host",
            "X-FORWARDED-PROTO",
            "x-forwarded-port",
            "x-forwarded-prefix",
            "x-forwarded-uri",
            "x-forwarded-method",
            "x-forwarded-server",
            "x-forwarded-client-cert",
            "x_forwarded_host",
            "X.Forwarded.For",
            "x-forwarded_for",
            "x-real-ip",
            "x_real_ip",
            "x-original-url",
            "x-original-uri",
            "x-original-forwarded-for",
            "x-rewrite-url",
            "X_Rewrite.URL",
            "x-envoy-original-path",
            "x-envoy-external-address",
            "x-ssl-client-verify",
            "X_SSL_Client_S_DN",
            "ssl-client-cert",
            "client-cert",
            "x-remote-user",
            "x-remote-user-email",
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
            "true-client-ip",
            "cf-connecting-ip",
            "proxy",
        ];
        for name in rows {
            assert!(is_proxy_header(name), "{name}");
        }
        for name in FORWARDED_HEADERS {
            assert!(is_proxy_header(&name.to_uppercase().replace('-', "_")), "{name}");
        }
    }

    #[test]
    fn what_clients_say_of_themselves_stays() {
        let rows = [
            "",
            "accept",
            "authorization",
            "cookie",
            "host",
            "origin",
            "user-agent",
            "via",
            "x",
            "x-",
            "x-csrf-token",
            "x-forward",
            "x-forwardedx",
            "x-originals",
            "x-request-id",
            "x-requested-with",
            "proxy-x",
        ];
        for name in rows {
            assert!(!is_proxy_header(name), "{name}");
        }
    }

    #[test]
    fn the_upstream_hears_the_clients_address_in_its_plain_form() {
        let rows = [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:DB8::0:1", "2001:db8::1"),
            ("::1", "::1"),
        ];
        for (client, expected) in rows {
            assert_eq!(forwarded_for(client.parse().unwrap()), expected, "{client}");
        }
    }
}
