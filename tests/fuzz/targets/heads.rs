//! Request heads, chunked bodies, and what only a proxy may say in a header.

use std::net::IpAddr;

use portcullis::server::fuzz::{ReadHead, chunked_len, read_head};
use portcullis::web::Target;
use portcullis::web::client_addr::{forwarded_for, is_proxy_header};

/// What is let in reads alike to a second parser, and however it was cut into packets.
pub fn head(input: &[u8]) {
    let head = read_head(input, usize::MAX);
    for piece in [1, 7] {
        let in_pieces = read_head(input, piece);
        assert_eq!(in_pieces.as_ref().map(summary), head.as_ref().map(summary), "pieces of {piece} bytes");
    }
    if let Some(head) = head {
        check_head(input, &head);
    }
}

fn summary(head: &ReadHead) -> (&[u8], &[u8], Option<u64>, &Target) {
    (&head.forwarded, &head.rest, head.length, &head.target)
}

fn check_head(input: &[u8], head: &ReadHead) {
    assert!(input.ends_with(&head.rest), "bytes behind the head are lost");
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut other = httparse::Request::new(&mut fields);
    let status = other.parse(&head.forwarded).expect("a second parser reads the head");
    assert_eq!(status, httparse::Status::Complete(head.forwarded.len()), "a second parser sees another end");
    assert_eq!(other.method, Some(head.method));
    if !head.asks_server {
        let target = Target::parse_with_slashes(other.path.unwrap_or_default().as_bytes());
        assert_eq!(target.as_ref(), Ok(&head.target), "another target is forwarded");
    }
    check_framing(head, other.headers, other.version);
    check_fields(input, head);
    let again = read_head(&head.forwarded, usize::MAX).expect("what is forwarded would be let in");
    assert_eq!((again.length, &again.target, &again.host), (head.length, &head.target, &head.host));
}

/// What the gateway and the upstream are told is what was sent.
fn check_fields(input: &[u8], head: &ReadHead) {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut sent = httparse::Request::new(&mut fields);
    sent.parse(&input[..input.len() - head.rest.len()]).expect("a second parser reads what was sent");
    assert_eq!(sent.headers.len(), head.fields.len(), "a field is lost");
    for name in head.fields.keys() {
        let of_name = sent.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name.as_str()));
        let values = head.fields.get_all(name).iter().map(http::HeaderValue::as_bytes);
        assert!(of_name.map(|field| field.value).eq(values), "{name} has other values");
    }
}

/// PP-9: one reading of where the body ends, whoever reads.
fn check_framing(head: &ReadHead, fields: &[httparse::Header<'_>], version: Option<u8>) {
    let all = |name: &str| -> Vec<&[u8]> {
        // A reader that takes `_` for `-`, or trims names, finds no more of them.
        let same =
            |field: &&httparse::Header<'_>| field.name.trim().replace('_', "-").eq_ignore_ascii_case(name);
        fields
            .iter()
            .filter(same)
            .filter(|field| !field.name.contains('_'))
            .map(|field| field.value)
            .collect()
    };
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    match head.length {
        None => assert!(
            lengths.is_empty()
                && codings.len() == 1
                && codings[0].eq_ignore_ascii_case(b"chunked")
                && version == Some(1)
        ),
        Some(0) if lengths.is_empty() => assert!(codings.is_empty()),
        Some(length) => {
            assert!(codings.is_empty() && lengths.len() == 1);
            let text = std::str::from_utf8(lengths[0]).expect("digits");
            assert!(text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse() == Ok(length), "{text:?}");
        }
    }
    assert_eq!(all("host").len(), 1);
    assert!(!head.websocket || head.length == Some(0), "a tunnel with a body");
}

/// A chunked body ends in one place, however it was cut into packets.
pub fn chunked(input: &[u8]) {
    let len = chunked_len(input, usize::MAX);
    for piece in [1, 3] {
        assert_eq!(chunked_len(input, piece), len, "pieces of {piece} bytes");
    }
    let Some(len) = len else { return };
    assert_eq!(simple_chunked_len(input), Some(len), "a second reader sees another end");
    assert_eq!(chunked_len(&input[..len], usize::MAX), Some(len), "it needs bytes behind its end");
    assert_eq!(chunked_len(&input[..len - 1], usize::MAX), None, "it ends before its end");
}

/// RFC 9112 7.1 as simply as can be, whatever sizes are allowed.
fn simple_chunked_len(input: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = line(input, &mut at)?;
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        at = at.checked_add(size)?;
        if input.get(at..at.checked_add(2)?)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
    while !line(input, &mut at)?.is_empty() {}
    Some(at)
}

/// The line at `at`, without its CRLF; `at` goes behind it.
fn line<'a>(input: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = input.get(*at..)?;
    let len = rest.windows(2).position(|two| two == b"\r\n")?;
    *at += len + 2;
    rest.get(..len)
}

/// Whoever spells it, a header of a proxy is known; an address has one spelling.
pub fn forwarded(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let respelled = [
        text.to_ascii_uppercase(),
        text.to_ascii_lowercase(),
        text.replace('-', "_"),
        text.replace('_', "-"),
    ];
    for spelling in respelled {
        assert_eq!(is_proxy_header(&spelling), is_proxy_header(&text), "{spelling:?}");
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let field = forwarded_for(address);
        let said: IpAddr = field.to_str().expect("ASCII").parse().expect("an address");
        assert_eq!(said, address.to_canonical());
    }
}
