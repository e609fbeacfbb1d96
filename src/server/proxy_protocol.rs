//! The PROXY protocol, versions 1 and 2: the first bytes of a connection, in which a proxy that passes TCP on says
//! whose connection it is.
//!
//! Owns its grammar, strictly and with fixed bounds, and the reading of it from a socket, before TLS. On a
//! listener that has it each connection begins with such a header or is closed: were it optional, a client
//! could write one itself. It is read from trusted proxies only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, its end included.
const MAX_LINE: usize = 107;

/// The most bytes of addresses and extensions in version 2: far more than any proxy sends, a client's
/// certificate apart.
const MAX_BLOCK: usize = 4096;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A client's.
    Client(IpAddr),
    /// The proxy's own, for example to see whether this is up; or that of a client that has no address.
    Proxy,
}

/// Why a connection is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    /// It ended before it began: somebody looked whether this is up.
    #[error("the connection ended before the PROXY header")]
    Nothing,
    /// It did not come in time.
    #[error("the PROXY header did not come in time")]
    TooSlow,
    /// It does not begin with a header.
    #[error("the PROXY header is malformed: {0}")]
    Malformed(&'static str),
    /// It ended, or broke.
    #[error("the connection ended within the PROXY header: {0}")]
    Io(#[from] io::Error),
}

/// Reads the header, and not a byte behind it.
///
/// # Errors
/// [`HeaderError`].
pub(super) async fn read(from: &mut TcpStream) -> Result<Source, HeaderError> {
    // The shortest line of version 1 is longer than the signature of version 2.
    let mut start = [0; SIGNATURE.len()];
    if from.peek(&mut start).await? == 0 {
        return Err(HeaderError::Nothing);
    }
    from.read_exact(&mut start).await?;
    if start == *SIGNATURE {
        return read_block(from).await;
    }
    if !start.starts_with(b"PROXY ") {
        return Err(HeaderError::Malformed("it is neither of version 1 nor of version 2"));
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\n") {
        read_up_to_line_feed(from, &mut line).await?;
    }
    parse_line(&line)
}

/// What a whole header says that nothing stands behind; for the fuzzer.
pub(super) fn parse(header: &[u8]) -> Result<Source, HeaderError> {
    let Some(rest) = header.strip_prefix(SIGNATURE) else { return parse_line(header) };
    match rest {
        [version_and_command, family, high, low, block @ ..]
            if usize::from(u16::from_be_bytes([*high, *low])) == block.len() && block.len() <= MAX_BLOCK =>
        {
            parse_block(*version_and_command, *family, block)
        }
        _ => Err(HeaderError::Malformed("the length is another one")),
    }
}

/// Takes what is there of the line. Looks at it first, so that nothing behind the line is taken.
async fn read_up_to_line_feed(from: &mut TcpStream, line: &mut Vec<u8>) -> Result<(), HeaderError> {
    let mut seen = [0; MAX_LINE];
    let left = MAX_LINE.saturating_sub(line.len());
    let Some(space) = seen.get_mut(..left).filter(|space| !space.is_empty()) else {
        return Err(HeaderError::Malformed("the line is too long"));
    };
    let there = from.peek(space).await?;
    let there = space.get(..there).unwrap_or_default();
    let end = memchr::memchr(b'\n', there).map_or(there.len(), |at| at + 1);
    if end == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let begun = line.len();
    line.resize(begun + end, 0);
    from.read_exact(line.get_mut(begun..).unwrap_or_default()).await?;
    Ok(())
}

async fn read_block(from: &mut TcpStream) -> Result<Source, HeaderError> {
    let mut fixed = [0; 4];
    from.read_exact(&mut fixed).await?;
    let [version_and_command, family, length @ ..] = fixed;
    let length = usize::from(u16::from_be_bytes(length));
    if length > MAX_BLOCK {
        return Err(HeaderError::Malformed("the addresses and extensions are too long"));
    }
    let mut block = vec![0; length];
    from.read_exact(&mut block).await?;
    parse_block(version_and_command, family, &block)
}

/// Version 1: `PROXY TCP4 source destination source-port destination-port CRLF`, one space each.
fn parse_line(line: &[u8]) -> Result<Source, HeaderError> {
    let malformed = HeaderError::Malformed("the line is not `PROXY`, a family, two addresses and two ports");
    let text = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
    let mut parts = text.unwrap_or_default().split(' ');
    if parts.next() != Some("PROXY") {
        return Err(malformed);
    }
    let family = parts.next();
    if family == Some("UNKNOWN") {
        // Whatever else stands there is to be ignored.
        return Ok(Source::Proxy);
    }
    let (Some(source), Some(destination), Some(from), Some(to), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed);
    };
    let address = |text: &str| match family {
        Some("TCP4") => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        Some("TCP6") => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => None,
    };
    match (address(source), address(destination)) {
        (Some(source), Some(_)) if is_port(from) && is_port(to) => Ok(Source::Client(source)),
        _ => Err(malformed),
    }
}

/// A decimal number without leading zeros.
fn is_port(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain && text.parse::<u16>().is_ok()
}

/// Version 2: the bytes behind the signature; extensions behind the addresses say nothing here.
fn parse_block(version_and_command: u8, family: u8, block: &[u8]) -> Result<Source, HeaderError> {
    match version_and_command {
        // LOCAL: whatever the addresses say.
        0x20 => return Ok(Source::Proxy),
        0x21 => {}
        _ => return Err(HeaderError::Malformed("the version is not 2, or the command is unknown")),
    }
    let short = HeaderError::Malformed("the addresses are too short");
    match family {
        // Addresses of 4 bytes and ports of 2, of both sides; the client's first.
        0x11 => block
            .first_chunk::<12>()
            .and_then(|block| block.first_chunk::<4>())
            .map_or(Err(short), |address| Ok(Source::Client(IpAddr::from(*address)))),
        0x21 => block
            .first_chunk::<36>()
            .and_then(|block| block.first_chunk::<16>())
            .map_or(Err(short), |address| Ok(Source::Client(IpAddr::from(*address)))),
        // Unspecified, or a Unix socket of two times 108 bytes.
        0x00 => Ok(Source::Proxy),
        0x31 if block.len() >= 216 => Ok(Source::Proxy),
        0x31 => Err(short),
        _ => Err(HeaderError::Malformed("the family or transport is not that of a TCP connection")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(text: &str) -> Option<Source> {
        parse_line(text.as_bytes()).ok()
    }

    fn client(address: &str) -> Source {
        Source::Client(address.parse().unwrap())
    }

    #[test]
    fn a_line_of_version_1_names_the_client() {
        let longest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe 65535 65535\r\n";
        let rows = [
            ("PROXY TCP4 203.0.113.9 10.0.0.1 56324 443\r\n", Some(client("203.0.113.9"))),
            ("PROXY TCP6 2001:db8::9 2001:db8::1 0 443\r\n", Some(client("2001:db8::9"))),
            (longest, Some(client("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))),
            ("PROXY UNKNOWN\r\n", Some(Source::Proxy)),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Some(Source::Proxy)),
        ];
        for (text, wanted) in rows {
            assert_eq!(line(text), wanted, "{text}");
            assert!(text.len() <= MAX_LINE, "{text}");
        }
    }

    #[test]
    fn a_line_that_is_anything_else_is_refused() {
        let rows = [
            "",
            "\r\n",
            "PROXY\r\n",
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 56324\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 56324 443",
            "PROXY TCP4 203.0.113.9 10.0.0.1 56324 443\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 56324 443 \r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 56324 443 1\r\n",
            "PROXY TCP4  203.0.113.9 10.0.0.1 56324 443\r\n",
            "PROXY\tTCP4 203.0.113.9 10.0.0.1 56324 443\r\n",
            "PROXY tcp4 203.0.113.9 10.0.0.1 56324 443\r\n",
            "proxy TCP4 203.0.113.9 10.0.0.1 56324 443\r\n",
            "PROXY UDP4 203.0.113.9 10.0.0.1 56324 443\r\n",
            "PROXY TCP4 2001:db8::9 2001:db8::1 56324 443\r\n",
            "PROXY TCP6 203.0.113.9 10.0.0.1 56324 443\r\n",
            "PROXY TCP6 fe80::1%eth0 2001:db8::1 56324 443\r\n",
            "PROXY TCP4 203.0.113.9 evil.test 56324 443\r\n",
            "PROXY TCP4 203.0.113.256 10.0.0.1 56324 443\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 65536 443\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 -1 443\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 +1 443\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 01 443\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1  443\r\n",
            "PROXY UNKNOWNX\r\n",
            "GET / HTTP/1.1\r\n",
        ];
        for text in rows {
            assert_eq!(line(text), None, "{text:?}");
        }
    }

    /// Name, version and command, family, what stands behind them, what it tells.
    type Row<'a> = (&'a str, u8, u8, &'a [u8], Option<Source>);

    /// Addresses and ports of both sides.
    fn addresses(source: &[u8]) -> Vec<u8> {
        [source, &vec![9; source.len()], &[0xdc, 4, 1, 0xbb]].concat()
    }

    #[test]
    fn a_block_of_version_2_names_the_client() {
        let (v4, v6) =
            (addresses(&[203, 0, 113, 9]), addresses(&"2001:db8::9".parse::<Ipv6Addr>().unwrap().octets()));
        let with_extensions = [v4.as_slice(), &[0x04, 0, 3, 1, 2, 3]].concat();
        let rows: &[Row<'_>] = &[
            ("IPv4", 0x21, 0x11, &v4, Some(client("203.0.113.9"))),
            ("IPv6", 0x21, 0x21, &v6, Some(client("2001:db8::9"))),
            ("extensions", 0x21, 0x11, &with_extensions, Some(client("203.0.113.9"))),
            ("LOCAL", 0x20, 0x00, &[], Some(Source::Proxy)),
            ("LOCAL, whatever it says", 0x20, 0x11, &v4, Some(Source::Proxy)),
            ("unspecified", 0x21, 0x00, &[], Some(Source::Proxy)),
            ("Unix", 0x21, 0x31, &[0; 216], Some(Source::Proxy)),
            ("Unix, short", 0x21, 0x31, &[0; 215], None),
            ("IPv4, short", 0x21, 0x11, &v4[..11], None),
            ("IPv6, short", 0x21, 0x21, &v6[..35], None),
            ("nothing", 0x21, 0x11, &[], None),
            ("version 1", 0x11, 0x11, &v4, None),
            ("version 3", 0x31, 0x11, &v4, None),
            ("a command that nobody knows", 0x22, 0x11, &v4, None),
            ("UDP", 0x21, 0x12, &v4, None),
            ("a family that nobody knows", 0x21, 0x41, &v4, None),
            ("no transport", 0x21, 0x10, &v4, None),
        ];
        for (name, version_and_command, family, block, wanted) in rows {
            assert_eq!(parse_block(*version_and_command, *family, block).ok(), *wanted, "{name}");
        }
    }

    proptest! {
        #[test]
        fn an_address_is_told_as_it_was_written(address: std::net::IpAddr, port: u16) {
            let family = if address.is_ipv4() { "TCP4" } else { "TCP6" };
            let text = format!("PROXY {family} {address} {address} {port} 443\r\n");
            prop_assert_eq!(line(&text), Some(Source::Client(address)));
            let (family, octets) = match address {
                IpAddr::V4(address) => (0x11, address.octets().to_vec()),
                IpAddr::V6(address) => (0x21, address.octets().to_vec()),
            };
            prop_assert_eq!(parse_block(0x21, family, &addresses(&octets)).ok(), Some(Source::Client(address)));
        }

        #[test]
        fn no_bytes_are_more_than_refused(bytes: Vec<u8>, command: u8, family: u8) {
            // A source is told of a whole header only.
            if parse_line(&bytes).is_ok() {
                prop_assert!(bytes.starts_with(b"PROXY ") && bytes.ends_with(b"\r\n"));
            }
            if let Ok(Source::Client(_)) = parse_block(command, family, &bytes) {
                prop_assert!(command == 0x21 && bytes.len() >= 12);
            }
        }
    }
}
