//! Who the client is, where a connection comes from a proxy that is trusted to say so.
//!
//! Owns the list of trusted proxies and the reading of `X-Forwarded-For` and `Forwarded`. What they say is
//! read from the right, where the nearest proxy wrote: each trusted proxy vouches for the one address that
//! it saw, and the first address that is no trusted proxy's is the client (FA-8, DO-6). Whatever stands
//! further left a client may have written, and it is not looked at. Does no I/O; asked for each request of
//! a trusted proxy, and for no other (IH-9).

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The most addresses that are looked at: a longer chain of trusted proxies is nobody's, and a header
/// may hold thousands of entries.
const MAX_HOPS: usize = 32;

/// The shortest prefixes that are trusted: 10.0.0.0/8 and fc00::/7 are the largest private networks.
const SHORTEST_V4: u8 = 8;
const SHORTEST_V6: u8 = 7;

/// The header in which trusted proxies name the client. Never both: a proxy that writes the one passes
/// the client's own words in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ToldIn {
    /// `X-Forwarded-For`, which nearly every proxy writes.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// An address or a network of trusted proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// Text that is no [`Network`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Neither an address nor a network.
    #[error("is not an IP address, or a network such as \"10.0.0.0/24\"")]
    Malformed,
    /// Bits behind the prefix are set: one of the two is not what was meant.
    #[error("is an address within a network; write {0} for the network, or the address alone")]
    HostBits(IpNet),
    /// Clients, and everybody else, would be in it (CVE-2026-76835).
    #[error("would trust {0}: whoever connects could say who they are; list the proxies alone")]
    TooWide(&'static str),
    /// IPv4 in IPv6: the addresses that connections come from are told as IPv4.
    #[error("is IPv4 written as IPv6; write the IPv4 address or network")]
    Mapped,
}

impl Network {
    /// Reads an address or a network in CIDR notation.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().map_err(|_error| NetworkError::Malformed)?,
        };
        if matches!(network.addr(), IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
            return Err(NetworkError::Mapped);
        }
        let shortest = if network.addr().is_ipv4() { SHORTEST_V4 } else { SHORTEST_V6 };
        match network.prefix_len() {
            0 => Err(NetworkError::TooWide("everybody")),
            bits if bits < shortest => Err(NetworkError::TooWide("more than any private network holds")),
            _ if network.trunc() != network => Err(NetworkError::HostBits(network.trunc())),
            _ => Ok(Self(network)),
        }
    }
}

/// The proxies that are trusted to name the client. None is, unless it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TrustedProxies {
    networks: Vec<Network>,
    told_in: ToldIn,
}

impl TrustedProxies {
    /// Those in these networks.
    #[must_use]
    pub const fn new(networks: Vec<Network>, told_in: ToldIn) -> Self {
        Self { networks, told_in }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// Whether this is the address of one.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.0.contains(&address))
    }

    /// The client of a request with these headers that came from `peer`: `peer` itself, unless it is one of
    /// the proxies. What is not an address ends the reading: then it is the last one that was understood.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.contain(peer) {
            return peer;
        }
        match self.told_in {
            ToldIn::XForwardedFor => self.first_stranger(peer, x_forwarded_for(headers)),
            ToldIn::Forwarded => self.first_stranger(peer, forwarded(headers)),
        }
    }

    /// The first address that is no trusted proxy's, of those that were told, the nearest first.
    fn first_stranger(&self, peer: IpAddr, told: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut client = peer;
        for address in told.take(MAX_HOPS) {
            let Some(address) = address else { break };
            client = address;
            if !self.contain(client) {
                break;
            }
        }
        client
    }
}

/// The entries of `X-Forwarded-For`, the last one first.
fn x_forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let entries = lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','));
    entries.map(|entry| {
        let entry = std::str::from_utf8(entry.trim_ascii()).ok()?;
        // Without brackets too: nobody writes them in this header.
        let bare = entry.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
        bare.or_else(|| node(entry)).map(|address| address.to_canonical())
    })
}

/// What the elements of `Forwarded` say in `for`, the last one first.
fn forwarded(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let lines = headers.get_all(FORWARDED).iter().rev();
    lines.flat_map(|line| FromTheRight(Some(line.as_bytes()))).map(|element| {
        let found = for_of(element.trim_ascii())?;
        node(std::str::from_utf8(&found).ok()?).map(|address| address.to_canonical())
    })
}

/// The elements of one line of `Forwarded`, the last one first. From the right, so that a quote that a
/// client left open takes nothing of what a proxy wrote behind it.
struct FromTheRight<'a>(Option<&'a [u8]>);

impl<'a> Iterator for FromTheRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        let Some(comma) = last_comma(rest) else { return self.0.take() };
        let (before, element) = rest.split_at(comma);
        self.0 = Some(before);
        element.get(1..)
    }
}

/// The last comma that stands in no quotes.
fn last_comma(bytes: &[u8]) -> Option<usize> {
    let mut quoted = false;
    for (at, byte) in bytes.iter().enumerate().rev() {
        match byte {
            b'"' if !is_escaped(bytes.get(..at).unwrap_or_default()) => quoted = !quoted,
            b',' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// Whether what comes behind these bytes is escaped by the last of them.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

/// RFC 7239 4: `[ pair ] *( ";" [ pair ] )`, the value of the one `for`.
fn for_of(element: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (mut rest, mut found) = (element, None);
    while !rest.is_empty() {
        if let Some(next) = rest.strip_prefix(b";") {
            rest = next;
            continue;
        }
        let (name, after) = token(rest)?;
        let (value, after) = value(after.strip_prefix(b"=")?)?;
        if name.eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
            return None;
        }
        if !after.is_empty() && !after.starts_with(b";") {
            return None;
        }
        rest = after;
    }
    found
}

/// RFC 9110 5.6.2.
fn token(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let end = bytes.iter().position(|byte| !is_token(byte)).unwrap_or(bytes.len());
    bytes.split_at_checked(end).filter(|(token, _)| !token.is_empty())
}

/// A token, or a quoted string (RFC 9110 5.6.4) without its quotes and escapes.
fn value(bytes: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let Some(inside) = bytes.strip_prefix(b"\"") else {
        return token(bytes).map(|(token, rest)| (Cow::Borrowed(token), rest));
    };
    let mut text = Vec::new();
    let mut rest = inside;
    loop {
        match rest {
            [b'"', after @ ..] => return Some((Cow::Owned(text), after)),
            [b'\\', escaped, after @ ..] => {
                text.push(*escaped);
                rest = after;
            }
            [byte, after @ ..] => {
                text.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

/// RFC 7239 6: the address of a node. `unknown` and obfuscated names tell none.
fn node(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let address = address.parse::<Ipv6Addr>().ok()?;
        return (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(address.into());
    }
    let (address, port) = text.split_once(':').map_or((text, None), |(address, port)| (address, Some(port)));
    let address = address.parse::<Ipv4Addr>().ok()?;
    port.is_none_or(is_port).then_some(address.into())
}

/// A port of one to five digits, or an obfuscated one.
fn is_port(text: &str) -> bool {
    let is_number = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    is_number || text.strip_prefix('_').is_some_and(|name| !name.is_empty() && name.bytes().all(is_name))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "10.0.0.1";

    fn proxies(told_in: ToldIn) -> TrustedProxies {
        let networks = ["10.0.0.0/24", "192.0.2.7", "2001:db8:1::/48"];
        let networks = networks.iter().map(|text| Network::parse(text).unwrap());
        TrustedProxies::new(networks.collect(), told_in)
    }

    fn headers(name: &HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers
    }

    fn by_x_forwarded_for(lines: &[&str]) -> String {
        let headers = headers(&X_FORWARDED_FOR, lines);
        proxies(ToldIn::XForwardedFor).client(PEER.parse().unwrap(), &headers).to_string()
    }

    fn by_forwarded(lines: &[&str]) -> String {
        let headers = headers(&FORWARDED, lines);
        proxies(ToldIn::Forwarded).client(PEER.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn fa_209_the_client_is_the_rightmost_address_that_is_no_trusted_proxys() {
        let rows: &[(&str, &[&str], &str)] = &[
            ("one", &["203.0.113.9"], "203.0.113.9"),
            ("what the client says of itself stands on the left", &["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
            ("a private address that the client says", &["10.0.0.9, 203.0.113.9"], "203.0.113.9"),
            ("a chain of trusted ones", &["1.1.1.1, 203.0.113.9, 10.0.0.3, 192.0.2.7"], "203.0.113.9"),
            ("several lines in their order", &["1.1.1.1", "203.0.113.9", "10.0.0.3"], "203.0.113.9"),
            ("all are trusted: the farthest", &["10.0.0.9, 10.0.0.8"], "10.0.0.9"),
            ("IPv6", &["2001:db8:2::1"], "2001:db8:2::1"),
            ("IPv6 behind IPv6", &["2001:DB8:2:0::1, 2001:db8:1:5::1"], "2001:db8:2::1"),
            ("IPv4 as IPv6", &["::ffff:203.0.113.9"], "203.0.113.9"),
            ("a trusted one as IPv6", &["203.0.113.9, ::ffff:10.0.0.3"], "203.0.113.9"),
            ("with a port", &["203.0.113.9:4711"], "203.0.113.9"),
            ("IPv6 with a port", &["[2001:db8:2::1]:4711"], "2001:db8:2::1"),
            ("tabs and no spaces", &["1.1.1.1,\t203.0.113.9,10.0.0.3"], "203.0.113.9"),
        ];
        for (name, lines, wanted) in rows {
            assert_eq!(by_x_forwarded_for(lines), *wanted, "{name}");
        }
    }

    #[test]
    fn fa_209_what_is_no_address_is_not_trusted() {
        let rows: &[(&str, &[&str], &str)] = &[
            ("none", &[], PEER),
            ("empty", &[""], PEER),
            ("a word", &["a"], PEER),
            ("an empty entry on the right", &["203.0.113.9,"], PEER),
            ("a word left of a trusted one", &["203.0.113.9, a, 10.0.0.3"], "10.0.0.3"),
            ("too many digits", &["203.0.113.999"], PEER),
            ("octal", &["0313.0.113.9"], PEER),
            ("a number", &["3405803785"], PEER),
            ("a zone", &["fe80::1%eth0"], PEER),
            ("an empty port", &["203.0.113.9:"], PEER),
            ("a port of six digits", &["203.0.113.9:123456"], PEER),
            ("a word behind brackets", &["[2001:db8:2::1]x"], PEER),
            ("a bracket that is not closed", &["[2001:db8:2::1"], PEER),
            ("IPv4 in brackets", &["[203.0.113.9]"], PEER),
            ("quotes", &["\"203.0.113.9\""], PEER),
            ("two in one", &["203.0.113.9 203.0.113.10"], PEER),
            ("bytes that are no UTF-8", &["\u{e9}"], PEER),
        ];
        for (name, lines, wanted) in rows {
            assert_eq!(by_x_forwarded_for(lines), *wanted, "{name}");
        }
    }

    #[test]
    fn fa_209_of_a_thousand_entries_only_the_last_ones_are_looked_at() {
        let thousand = "10.0.0.9,".repeat(1000);
        assert_eq!(by_x_forwarded_for(&[&format!("203.0.113.9,{thousand}10.0.0.2")]), "10.0.0.9");
        assert_eq!(by_x_forwarded_for(&[&format!("{thousand}203.0.113.9")]), "203.0.113.9");
        let hops = |count: usize| format!("203.0.113.9{}", ",10.0.0.9".repeat(count));
        assert_eq!(by_x_forwarded_for(&[&hops(MAX_HOPS - 1)]), "203.0.113.9");
        assert_eq!(by_x_forwarded_for(&[&hops(MAX_HOPS)]), "10.0.0.9");
    }

    #[test]
    fn forwarded_is_read_by_its_grammar() {
        let rows: &[(&str, &[&str], &str)] = &[
            ("IPv4", &["for=203.0.113.9"], "203.0.113.9"),
            ("any case and other pairs", &["By=x;proto=https;FOR=203.0.113.9;host=a"], "203.0.113.9"),
            ("quoted", &["for=\"203.0.113.9\""], "203.0.113.9"),
            ("quoted with a port", &["for=\"203.0.113.9:4711\""], "203.0.113.9"),
            ("an obfuscated port", &["for=\"203.0.113.9:_p-1\""], "203.0.113.9"),
            ("IPv6", &["for=\"[2001:db8:2::1]\""], "2001:db8:2::1"),
            ("IPv6 with a port", &["for=\"[2001:db8:2::1]:4711\""], "2001:db8:2::1"),
            ("escapes", &["for=\"203\\.0.113.9\""], "203.0.113.9"),
            ("empty pairs", &[";for=203.0.113.9;;"], "203.0.113.9"),
            ("a comma in quotes", &["for=203.0.113.9;x=\"a,for=1.1.1.1\""], "203.0.113.9"),
            ("an escaped quote in quotes", &["for=203.0.113.9;x=\"\\\",for=1.1.1.1;y=\\\"\""], "203.0.113.9"),
            ("rightmost", &["for=1.1.1.1, for=203.0.113.9"], "203.0.113.9"),
            ("a chain", &["for=1.1.1.1,for=203.0.113.9", "for=10.0.0.3, for=192.0.2.7"], "203.0.113.9"),
            ("an open quote of the client's", &["for=\"1.1.1.1, for=203.0.113.9"], "203.0.113.9"),
            ("an open quote against a quoted one", &["for=1.1.1.1;x=\", for=\"203.0.113.9\""], "203.0.113.9"),
        ];
        for (name, lines, wanted) in rows {
            assert_eq!(by_forwarded(lines), *wanted, "{name}");
        }
    }

    #[test]
    fn what_is_no_address_in_forwarded_is_not_trusted() {
        let rows: &[(&str, &[&str], &str)] = &[
            ("none", &[], PEER),
            ("empty", &[""], PEER),
            ("unknown", &["for=1.1.1.1, for=unknown"], PEER),
            ("obfuscated", &["for=1.1.1.1, for=_gazonk"], PEER),
            ("unknown behind a trusted one", &["for=unknown, for=10.0.0.3"], "10.0.0.3"),
            ("no for", &["for=1.1.1.1, proto=https"], PEER),
            ("for twice", &["for=1.1.1.1;for=203.0.113.9"], PEER),
            ("IPv6 without quotes", &["for=[2001:db8:2::1]"], PEER),
            ("IPv6 without brackets", &["for=\"2001:db8:2::1\""], PEER),
            ("a port without quotes", &["for=203.0.113.9:80"], PEER),
            ("spaces around the equals sign", &["for = 203.0.113.9"], PEER),
            ("an open quote on the right", &["for=203.0.113.9;x=\"a"], PEER),
            ("text behind a quote", &["for=\"203.0.113.9\"x"], PEER),
            ("no value", &["for="], PEER),
            ("a name alone", &["for"], PEER),
            ("an escape at the end", &["for=\"203.0.113.9\\"], PEER),
        ];
        for (name, lines, wanted) in rows {
            assert_eq!(by_forwarded(lines), *wanted, "{name}");
        }
    }

    #[test]
    fn only_the_one_header_is_read() {
        let mut both = headers(&X_FORWARDED_FOR, &["203.0.113.1"]);
        both.append(FORWARDED, HeaderValue::from_static("for=203.0.113.2"));
        let client = |told_in| proxies(told_in).client(PEER.parse().unwrap(), &both).to_string();
        assert_eq!(client(ToldIn::XForwardedFor), "203.0.113.1");
        assert_eq!(client(ToldIn::Forwarded), "203.0.113.2");
    }

    #[test]
    fn who_is_no_trusted_proxy_says_nothing() {
        let told = headers(&X_FORWARDED_FOR, &["203.0.113.9"]);
        let rows = [
            ("10.0.1.1", "10.0.1.1"),
            ("::ffff:10.0.1.1", "10.0.1.1"),
            ("2001:db8:2::1", "2001:db8:2::1"),
            ("10.0.0.255", "203.0.113.9"),
            ("::ffff:10.0.0.2", "203.0.113.9"),
            ("2001:db8:1:ffff::1", "203.0.113.9"),
        ];
        for (peer, wanted) in rows {
            let client = proxies(ToldIn::XForwardedFor).client(peer.parse().unwrap(), &told);
            assert_eq!(client.to_string(), wanted, "{peer}");
        }
        let nobody = TrustedProxies::default();
        assert!(nobody.is_empty());
        assert_eq!(nobody.client(PEER.parse().unwrap(), &told).to_string(), PEER);
    }

    #[test]
    fn a_network_is_an_address_or_a_prefix_that_is_not_everybody() {
        for text in ["10.0.0.1", "10.0.0.0/8", "192.0.2.128/25", "::1", "fc00::/7", "2001:db8::/32"] {
            assert!(Network::parse(text).is_ok(), "{text}");
        }
        let rows = [
            ("0.0.0.0/0", NetworkError::TooWide("everybody")),
            ("::/0", NetworkError::TooWide("everybody")),
            ("0.0.0.0/1", NetworkError::TooWide("more than any private network holds")),
            ("2000::/3", NetworkError::TooWide("more than any private network holds")),
            ("10.0.0.1/8", NetworkError::HostBits("10.0.0.0/8".parse().unwrap())),
            ("::ffff:10.0.0.1", NetworkError::Mapped),
            ("::ffff:0:0/96", NetworkError::Mapped),
            ("10.0.0.0/33", NetworkError::Malformed),
            ("proxy.example.com", NetworkError::Malformed),
            ("*", NetworkError::Malformed),
            ("", NetworkError::Malformed),
        ];
        for (text, wanted) in rows {
            assert_eq!(Network::parse(text), Err(wanted), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_the_nearest_proxy_wrote_is_the_client_whatever_stands_before_it(before in "[ -~\t]{0,80}") {
            let line = format!("{before}, 203.0.113.9");
            prop_assert_eq!(by_x_forwarded_for(&[&line]), "203.0.113.9");
            let line = format!("{before}, for=203.0.113.9");
            prop_assert_eq!(by_forwarded(&[&line]), "203.0.113.9");
            let line = format!("{before},for=\"203.0.113.9:1\";by=\"x,y\"");
            prop_assert_eq!(by_forwarded(&[&line]), "203.0.113.9");
        }
    }
}
