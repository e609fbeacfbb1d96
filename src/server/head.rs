//! The head of an HTTP/1 request, by a strict grammar, before Pingora sees a byte of it.
//!
//! Owns what a request head may look like (RFC 9112 2 to 5, PP-2, PP-6 to PP-9): whatever two
//! implementations could read in two ways is refused here. Does no I/O.

use bytes::{Buf as _, BytesMut};

use super::body::Framing;
use crate::web::host::HostError;
use crate::web::target::TargetError;
use crate::web::{Host, Target};

/// How long a request target may be; above it the answer is 414. Browsers and servers in use agree
/// on at least 8,000 bytes (RFC 9112 3).
pub(super) const MAX_TARGET_BYTES: usize = 8 * 1024;

/// The methods that are let through: those of RFC 9110 and 5789, and those of WebDAV and its
/// extensions (RFC 4918, 3253, 3744, 4791, 5323). TRACE and CONNECT are not among them (PP-8).
pub(super) const METHODS: &[&str] = &[
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "MKCALENDAR",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
    "ACL",
];

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// All of it, the blank line included.
    pub(super) bytes: usize,
    /// Header fields.
    pub(super) fields: usize,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeadError {
    /// It breaks the grammar, or could be read in two ways.
    #[error("{0}")]
    Malformed(&'static str),
    /// The method is not on the list.
    #[error("the method is not allowed")]
    Method,
    /// The target is too long.
    #[error("the request target is too long")]
    TargetTooLong,
    /// Too many bytes or fields.
    #[error("the request head is too large")]
    TooLarge,
    /// Its last byte did not come in time.
    #[error("the request head did not come in time")]
    TooSlow,
}

/// A head that passed.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// Where it ends in the bytes that were looked at.
    pub(super) len: usize,
    /// The method.
    pub(super) method: &'static str,
    /// The canonical target.
    pub(super) target: Target,
    /// The canonical host.
    pub(super) host: Host,
    /// How the body is framed.
    pub(super) framing: Framing,
    /// Whether the request asks for a WebSocket.
    pub(super) websocket: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
    /// `OPTIONS *`, which asks the gateway itself.
    pub(super) asks_server: bool,
    /// The request line with the target in origin form, where the client sent the absolute form (PP-6).
    pub(super) origin_form: Option<OriginForm>,
}

/// What stands in place of a request line in absolute form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OriginForm {
    line: Vec<u8>,
    replaces: usize,
}

impl OriginForm {
    /// The head with the request line replaced.
    pub(super) fn rewrite(&self, head: &[u8]) -> BytesMut {
        let rest = head.get(self.replaces..).unwrap_or_default();
        let mut rewritten = BytesMut::with_capacity(self.line.len() + rest.len());
        rewritten.extend_from_slice(&self.line);
        rewritten.extend_from_slice(rest);
        rewritten
    }
}

/// Finds the end of a head in bytes that come piece by piece.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    seen: usize,
}

impl Scanner {
    /// Where the head ends (behind its blank line), or `None` while more is needed. Empty lines in
    /// front of it are taken away (RFC 9112 2.2). Looks at every byte once, so that a head that comes
    /// byte by byte costs no more than one that comes whole.
    ///
    /// # Errors
    /// [`HeadError`] as soon as it is certain: a line that does not end in CRLF, a NUL, too many bytes.
    pub(super) fn find_end(
        &mut self,
        bytes: &mut BytesMut,
        limits: Limits,
    ) -> Result<Option<usize>, HeadError> {
        while bytes.starts_with(b"\r\n") {
            bytes.advance(2);
            self.seen = 0;
        }
        while let Some(&byte) = bytes.get(self.seen) {
            match byte {
                b'\n' if !ends_with_cr(bytes, self.seen) => {
                    return Err(HeadError::Malformed("a line ends without CR"));
                }
                b'\n' if is_blank_line(bytes, self.seen) => return bounded(self.seen + 1, limits).map(Some),
                0 => return Err(HeadError::Malformed("a NUL byte in the head")),
                _ => self.seen += 1,
            }
        }
        if bytes.len() < limits.bytes {
            return Ok(None);
        }
        let has_request_line = bytes.contains(&b'\n');
        Err(if has_request_line { HeadError::TooLarge } else { HeadError::TargetTooLong })
    }
}

fn ends_with_cr(bytes: &[u8], line_feed: usize) -> bool {
    line_feed.checked_sub(1).and_then(|at| bytes.get(at)) == Some(&b'\r')
}

fn is_blank_line(bytes: &[u8], line_feed: usize) -> bool {
    line_feed.checked_sub(3).and_then(|at| bytes.get(at..line_feed)) == Some(b"\r\n\r".as_slice())
}

fn bounded(end: usize, limits: Limits) -> Result<usize, HeadError> {
    if end <= limits.bytes { Ok(end) } else { Err(HeadError::TooLarge) }
}

/// Reads a whole head: a request line, header fields, a blank line.
///
/// # Errors
/// [`HeadError`].
pub(super) fn parse(head: &[u8], limits: Limits) -> Result<Head, HeadError> {
    let mut lines = Lines { rest: head };
    let request_line = lines.next().ok_or(HeadError::Malformed("no request line"))?;
    let request = RequestLine::parse(request_line)?;
    let mut fields = Fields::default();
    for line in lines {
        if line.is_empty() {
            break;
        }
        fields.add(line, limits)?;
    }
    fields.into_head(&request, head.len())
}

/// Lines that end in CRLF.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|&byte| byte == b'\n')?;
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        // A line without its CR keeps its last byte and is refused by the grammar of the line.
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// RFC 9112 3: `method SP request-target SP HTTP-version`, one SP each.
struct RequestLine<'a> {
    method: &'static str,
    target: &'a [u8],
    http_1_1: bool,
    len: usize,
}

impl<'a> RequestLine<'a> {
    fn parse(line: &'a [u8]) -> Result<Self, HeadError> {
        let mut parts = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(HeadError::Malformed("the request line does not have three parts"));
        };
        if !is_token(method) {
            return Err(HeadError::Malformed("the method is not a token"));
        }
        let http_1_1 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            _ => return Err(HeadError::Malformed("the protocol version is not HTTP/1.1 or HTTP/1.0")),
        };
        check_target(target)?;
        let method = METHODS.iter().find(|name| name.as_bytes() == method).ok_or(HeadError::Method)?;
        // The CRLF behind the line belongs to it.
        Ok(Self { method, target, http_1_1, len: line.len() + 2 })
    }

    /// The target in origin form: the path and query of the absolute form (RFC 9112 3.2.2), whose
    /// authority must be the host that the request names (PP-6).
    fn origin_form(&self, host: &Host) -> Result<Option<Vec<u8>>, HeadError> {
        if self.target.starts_with(b"/") {
            return Ok(None);
        }
        let Some(rest) = strip_scheme(self.target) else {
            return Err(HeadError::Malformed("the request target is neither a path nor an http URL"));
        };
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        match Host::parse(authority) {
            Ok(named) if named == *host => {}
            Ok(_) => return Err(HeadError::Malformed("the request target names another host than Host")),
            Err(_) => return Err(HeadError::Malformed("the request target names no valid host")),
        }
        let root: &[u8] = if path.starts_with(b"/") { b"" } else { b"/" };
        Ok(Some([root, path].concat()))
    }

    fn with_target(&self, target: &[u8]) -> OriginForm {
        let version: &[u8] = if self.http_1_1 { b" HTTP/1.1\r\n" } else { b" HTTP/1.0\r\n" };
        let line = [self.method.as_bytes(), b" ", target, version].concat();
        OriginForm { line, replaces: self.len }
    }
}

/// PP-2: no control, space or byte outside ASCII stands in a target. What else is wrong with a path
/// is for [`Target::parse`].
fn check_target(target: &[u8]) -> Result<(), HeadError> {
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(HeadError::Malformed("the request target holds a byte that must be escaped"));
    }
    if target.len() > MAX_TARGET_BYTES { Err(HeadError::TargetTooLong) } else { Ok(()) }
}

fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    let colon = target.iter().position(|&byte| byte == b':')?;
    let (scheme, rest) = target.split_at(colon);
    let is_http = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
    rest.strip_prefix(b"://").filter(|_| is_http)
}

/// What the header fields say of framing, host and connection.
#[derive(Default)]
struct Fields<'a> {
    count: usize,
    host: Option<&'a [u8]>,
    content_length: Option<u64>,
    chunked: bool,
    websocket: bool,
    expects_continue: bool,
}

impl<'a> Fields<'a> {
    /// RFC 9112 5: `field-name ":" OWS field-value OWS`, no space before the colon, no folding.
    fn add(&mut self, line: &'a [u8], limits: Limits) -> Result<(), HeadError> {
        self.count += 1;
        if self.count > limits.fields {
            return Err(HeadError::TooLarge);
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            return Err(HeadError::Malformed("a header field without a colon"));
        };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default();
        // Folded lines start with white space, which is in no token.
        if !is_token(name) {
            return Err(HeadError::Malformed("a header field's name is not a token"));
        }
        if !value.iter().all(|&byte| is_field_byte(byte)) {
            return Err(HeadError::Malformed("a header field holds a control character"));
        }
        self.interpret(name, value.trim_ascii())
    }

    fn interpret(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), HeadError> {
        // By length first: most fields are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.set_host(value),
            6 if name.eq_ignore_ascii_case(b"expect") => {
                self.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
                Ok(())
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.websocket = value.eq_ignore_ascii_case(b"websocket");
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.set_content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.set_chunked(value),
            _ => Ok(()),
        }
    }

    /// PP-7: exactly one.
    fn set_host(&mut self, value: &'a [u8]) -> Result<(), HeadError> {
        if self.host.replace(value).is_some() {
            return Err(HeadError::Malformed("more than one Host"));
        }
        Ok(())
    }

    /// PP-9: at most one, digits only, within what a signed 64-bit number holds.
    fn set_content_length(&mut self, value: &[u8]) -> Result<(), HeadError> {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        let Some(length) = length.filter(|&length| i64::try_from(length).is_ok()) else {
            return Err(HeadError::Malformed("Content-Length is not a number of bytes"));
        };
        if self.content_length.replace(length).is_some() {
            return Err(HeadError::Malformed("more than one Content-Length"));
        }
        Ok(())
    }

    /// PP-9: exactly one `chunked` and no other coding.
    fn set_chunked(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(HeadError::Malformed("Transfer-Encoding is not exactly one `chunked`"));
        }
        self.chunked = true;
        Ok(())
    }

    fn into_head(self, request: &RequestLine<'_>, len: usize) -> Result<Head, HeadError> {
        let framing = self.framing(request.http_1_1)?;
        let host = self.host.ok_or(HeadError::Malformed("no Host"))?;
        let host = Host::parse(host).map_err(|HostError| HeadError::Malformed("Host is not host[:port]"))?;
        let asks_server = request.target == b"*" && request.method == "OPTIONS";
        let origin = if asks_server { Some(b"/".to_vec()) } else { request.origin_form(&host)? };
        let target = Target::parse(origin.as_deref().unwrap_or(request.target));
        Ok(Head {
            len,
            method: request.method,
            target: target.map_err(|TargetError(reason)| HeadError::Malformed(reason))?,
            host,
            framing,
            websocket: self.websocket && request.http_1_1,
            expects_continue: self.expects_continue && request.http_1_1,
            asks_server,
            origin_form: origin.map(|target| request.with_target(&target)),
        })
    }

    /// RFC 9112 6.3. A length and a coding together, and a coding in HTTP/1.0, are how requests are
    /// smuggled (6.1): both are refused. A WebSocket's handshake has no body (RFC 6455 4.1).
    fn framing(&self, http_1_1: bool) -> Result<Framing, HeadError> {
        let framing = match (self.content_length, self.chunked) {
            (Some(_), true) => {
                return Err(HeadError::Malformed("Content-Length and Transfer-Encoding together"));
            }
            (None, true) if !http_1_1 => {
                return Err(HeadError::Malformed("Transfer-Encoding in HTTP/1.0"));
            }
            (None, true) => Framing::chunked(),
            (length, false) => Framing::length(length.unwrap_or(0)),
        };
        if self.websocket && !framing.is_done() {
            return Err(HeadError::Malformed("a WebSocket handshake with a body"));
        }
        Ok(framing)
    }
}

/// RFC 9110 5.6.2.
fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 5.5: HTAB, SP, visible characters and bytes above ASCII.
const fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
