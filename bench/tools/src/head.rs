//! Heads of HTTP/1.1 messages, read byte by byte and no further than is asked.

use memchr::memchr;
use memchr::memmem;

/// The longest head that is read.
pub const MAX: usize = 64 * 1024;

/// Where a head ends, with the empty line behind it.
pub fn end(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The first line, without its end.
pub fn first_line(head: &[u8]) -> &[u8] {
    let end = memchr(b'\r', head).unwrap_or(head.len());
    &head[..end]
}

/// Names and values of the fields.
pub fn fields(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = memchr(b'\n', head).map_or(&[][..], |end| &head[end + 1..]);
    std::iter::from_fn(move || {
        let end = memchr(b'\n', rest)?;
        let line = rest[..end].trim_ascii_end();
        rest = &rest[end + 1..];
        let colon = memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii_start()))
    })
}

/// Bytes for people.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The number that is written in decimal digits.
pub fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
