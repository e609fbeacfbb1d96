//! The head of a request, by a strict grammar: that of HTTP/1 before Pingora sees a byte of it, that of an
//! HTTP/2 stream as the `h2` crate decoded it.
//!
//! Owns what a request head may look like (RFC 9112 2 to 5, RFC 9113 8, PP-2, PP-6 to PP-9): whatever two
//! implementations could read in two ways is refused here. Does no I/O.
//!
//! A head is read once. Its fields go as they are to the gateway and to the upstream; Pingora gets a head of
//! its own, written anew from what was understood ([`Head::frame`]): where it begins and ends, and nothing to
//! understand otherwise.

use std::borrow::Cow;
use std::fmt;

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HeaderName, HeaderValue};
use memchr::memchr;

use super::body::Framing;
use super::scan::is_field_text;
use crate::web::host::{HostError, LastHost};
use crate::web::target::{TargetError, split_absolute_form};
use crate::web::{Host, Target, trim_white_space};

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
    /// The request target; browsers and servers in use agree on at least 8,000 bytes (RFC 9112 3).
    pub(super) target_bytes: usize,
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
    /// It expects what nobody here can meet.
    #[error("the request expects something else than to be told to continue")]
    Expectation,
    /// Its last byte did not come in time.
    #[error("the request head did not come in time")]
    TooSlow,
}

/// A head that passed.
pub(super) struct Head {
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
    /// The fields; of an HTTP/2 stream none until [`super::http2`] puts them here.
    pub(super) fields: HeaderMap,
    /// The bytes that they were read of; of an HTTP/2 stream there are none.
    pub(super) raw: Bytes,
    /// Those of them that go no further (RFC 9110 7.6.1).
    pub(super) one_hop: Vec<HeaderName>,
    http_1_1: bool,
    has_length: bool,
    closes: bool,
    keeps_alive: bool,
}

impl Head {
    /// The head as Pingora gets it: the request line with the target in origin form (PP-6), the host, and of
    /// the fields what says where the message and the connection end. Everything else it would only carry.
    pub(super) fn frame(&self) -> BytesMut {
        let mut frame = BytesMut::with_capacity(FRAME_BYTES + self.target.as_str().len());
        let version = if self.http_1_1 { " HTTP/1.1\r\nHost: " } else { " HTTP/1.0\r\nHost: " };
        let line = [self.method, " ", self.target.as_str(), version, self.host.name()];
        for part in line {
            frame.extend_from_slice(part.as_bytes());
        }
        if let Some(port) = self.host.port() {
            frame.extend_from_slice(format!(":{port}").as_bytes());
        }
        frame.extend_from_slice(b"\r\n");
        match self.framing {
            Framing::Length(length) if self.has_length => {
                let line = format!("Content-Length: {length}\r\n");
                frame.extend_from_slice(line.as_bytes());
            }
            Framing::Chunked(_) => frame.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Framing::Length(_) | Framing::Tunnel => {}
        }
        frame.extend_from_slice(self.connection());
        if self.expects_continue {
            frame.extend_from_slice(b"Expect: 100-continue\r\n");
        }
        frame.extend_from_slice(b"\r\n");
        frame
    }

    const fn connection(&self) -> &'static [u8] {
        match (self.websocket, self.closes, self.keeps_alive) {
            (true, ..) => b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
            (_, true, _) => b"Connection: close\r\n",
            (_, _, true) => b"Connection: keep-alive\r\n",
            _ => b"",
        }
    }
}

/// No field: they hold cookies and tokens.
impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head").field("method", &self.method).finish_non_exhaustive()
    }
}

/// More than a frame has besides its target.
const FRAME_BYTES: usize = 256;

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
    /// [`HeadError`] as soon as it is certain: a line that does not end in CRLF, too many bytes.
    pub(super) fn find_end(
        &mut self,
        bytes: &mut BytesMut,
        limits: Limits,
    ) -> Result<Option<usize>, HeadError> {
        while bytes.starts_with(b"\r\n") {
            bytes.advance(2);
            self.seen = 0;
        }
        while let Some(line) = memchr(b'\n', bytes.get(self.seen..).unwrap_or_default()) {
            let line_feed = self.seen + line;
            if !ends_with_cr(bytes, line_feed) {
                return Err(HeadError::Malformed("a line ends without CR"));
            }
            if is_blank_line(bytes, line_feed) {
                return bounded(line_feed + 1, limits).map(Some);
            }
            self.seen = line_feed + 1;
        }
        self.seen = bytes.len();
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

/// Reads a whole head: a request line, header fields, a blank line. `last_host` is its connection's.
///
/// # Errors
/// [`HeadError`].
pub(super) fn parse(head: &Bytes, limits: Limits, last_host: &mut LastHost) -> Result<Box<Head>, HeadError> {
    let mut lines = Lines { rest: head };
    let request_line = lines.next().ok_or(HeadError::Malformed("no request line"))?;
    let request = RequestLine::parse(request_line, limits)?;
    let mut fields = Fields { map: HeaderMap::with_capacity(USUAL_FIELDS), ..Fields::default() };
    for line in lines {
        if line.is_empty() {
            break;
        }
        fields.add(head, line, limits)?;
    }
    fields.into_head(&request, head.clone(), last_host)
}

/// The fields of a head that passed, read once more.
pub(super) fn fields(head: &Bytes) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(USUAL_FIELDS);
    for line in (Lines { rest: head }).skip(1).take_while(|line| !line.is_empty()) {
        // What is not read is not told: there is nothing of that kind in a head that passed.
        let Ok((name, _, value)) = split_field(head, line) else { continue };
        let _ = fields.try_append(name, value);
    }
    fields
}

/// RFC 9112 5: `field-name ":" OWS field-value OWS`, no space before the colon, no folding. The value as a part
/// of the line, and as one that shares the bytes of the head.
fn split_field<'a>(head: &Bytes, line: &'a [u8]) -> Result<(HeaderName, &'a [u8], HeaderValue), HeadError> {
    // Folded lines start with white space, which is in no token; nor is a colon.
    let end = line.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let Some(value) = rest.strip_prefix(b":").filter(|_| !name.is_empty()) else {
        return Err(HeadError::Malformed("a header field is not a name, a colon and a value"));
    };
    let Ok(name) = HeaderName::from_bytes(name) else {
        return Err(HeadError::Malformed("the name of a header field is too long"));
    };
    let value = trim_white_space(value);
    // It looks through the value as `is_field_text` does.
    match HeaderValue::from_maybe_shared(head.slice_ref(value)) {
        Ok(shared) => Ok((name, value, shared)),
        Err(_) => Err(HeadError::Malformed("a header field holds a control character")),
    }
}

/// Room for what browsers send and for what the upstream is sent besides: making it later means sorting
/// everything in anew.
const USUAL_FIELDS: usize = 24;

/// The head of an HTTP/2 stream, decoded.
#[derive(Debug)]
pub(super) struct StreamHead<'a> {
    /// `:method`.
    pub(super) method: &'a str,
    /// `:path`.
    pub(super) target: &'a str,
    /// `:scheme`, where it is known.
    pub(super) scheme: Option<&'a str>,
    /// `:authority`.
    pub(super) authority: Option<&'a str>,
    /// The fields.
    pub(super) fields: &'a HeaderMap,
    /// Whether the stream goes on behind its head.
    pub(super) has_body: bool,
}

/// What a field takes in HTTP/1 besides its name and value: the same limits hold for both.
const FIELD_BYTES: usize = ": \r\n".len();

/// The most options that `Connection` may list: more are listed by nobody but who looks for a reader that
/// gives up.
const MAX_CONNECTION_OPTIONS: usize = 10;

/// Fields that say of an HTTP/1 connection what HTTP/2 says in other ways (RFC 9113 8.2.2).
const CONNECTION_FIELDS: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Reads the head of an HTTP/2 stream by the rules of HTTP/1.
///
/// # Errors
/// [`HeadError`].
pub(super) fn parse_stream(head: &StreamHead<'_>, limits: Limits) -> Result<Box<Head>, HeadError> {
    head.check_size(limits)?;
    if head.scheme.is_some_and(|scheme| scheme != "https" && scheme != "http") {
        return Err(HeadError::Malformed("the scheme is neither https nor http"));
    }
    let mut fields = Fields { chunked: head.has_body, ..Fields::default() };
    for (name, value) in head.fields {
        let value = value.as_bytes();
        if CONNECTION_FIELDS.contains(&name.as_str()) || (name == http::header::TE && value != b"trailers") {
            return Err(HeadError::Malformed("a field of HTTP/1 connections"));
        }
        if !is_field_text(value) {
            return Err(HeadError::Malformed("a header field holds a control character"));
        }
        fields.interpret(name, value.trim_ascii())?;
    }
    // The length of a body says where it ends; what comes is held against it by the `h2` crate.
    fields.chunked &= fields.content_length.is_none();
    fields.set_authority(head.authority)?;
    fields.into_head(&head.request_line(limits)?, Bytes::new(), &mut LastHost::default())
}

impl<'a> StreamHead<'a> {
    fn check_size(&self, limits: Limits) -> Result<(), HeadError> {
        let of_fields =
            self.fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES);
        let authority = self.authority.map_or(0, str::len);
        let bytes = self.method.len() + self.target.len() + authority + of_fields.sum::<usize>();
        // Clients cut their one Cookie field into crumbs (RFC 9113 8.2.3).
        let crumbs = self.fields.get_all(COOKIE).iter().count();
        let count = self.fields.len() - crumbs.saturating_sub(1);
        if bytes > limits.bytes || count > limits.fields { Err(HeadError::TooLarge) } else { Ok(()) }
    }

    fn request_line(&self, limits: Limits) -> Result<RequestLine<'a>, HeadError> {
        let method = known_method(self.method.as_bytes());
        check_target(self.target.as_bytes(), limits)?;
        if !self.target.starts_with('/') && self.target != "*" {
            return Err(HeadError::Malformed("the path does not start with a slash"));
        }
        Ok(RequestLine { method: method?, target: self.target.as_bytes(), http_1_1: true })
    }
}

/// Lines that end in CRLF.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = memchr(b'\n', self.rest)?;
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
}

impl<'a> RequestLine<'a> {
    fn parse(line: &'a [u8], limits: Limits) -> Result<Self, HeadError> {
        let mut parts = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(HeadError::Malformed("the request line does not have three parts"));
        };
        let method = known_method(method);
        let http_1_1 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            _ => return Err(HeadError::Malformed("the protocol version is not HTTP/1.1 or HTTP/1.0")),
        };
        check_target(target, limits)?;
        Ok(Self { method: method?, target, http_1_1 })
    }

    /// The target in origin form, where it came in the absolute form (RFC 9112 3.2.2): its authority
    /// must be the host that the request names (PP-6).
    fn origin_form(&self, host: &Host) -> Result<Option<Cow<'a, [u8]>>, HeadError> {
        if self.target.starts_with(b"/") {
            return Ok(None);
        }
        let Some((_, authority, origin_form)) = split_absolute_form(self.target) else {
            return Err(HeadError::Malformed("the request target is neither a path nor an http URL"));
        };
        if Host::parse(authority).as_ref() != Ok(host) {
            return Err(HeadError::Malformed("the request target names another host than Host"));
        }
        Ok(Some(origin_form))
    }
}

fn known_method(method: &[u8]) -> Result<&'static str, HeadError> {
    if !is_token(method) {
        return Err(HeadError::Malformed("the method is not a token"));
    }
    METHODS.iter().find(|name| name.as_bytes() == method).copied().ok_or(HeadError::Method)
}

/// PP-2: no control, space or byte outside ASCII stands in a target. What else is wrong with a path
/// is for [`Target::parse_with_slashes`].
fn check_target(target: &[u8], limits: Limits) -> Result<(), HeadError> {
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(HeadError::Malformed("the request target holds a byte that must be escaped"));
    }
    if target.len() > limits.target_bytes { Err(HeadError::TargetTooLong) } else { Ok(()) }
}

/// The header fields, and what they say of framing, host and connection.
#[derive(Default)]
struct Fields<'a> {
    map: HeaderMap,
    one_hop: Vec<HeaderName>,
    count: usize,
    host: Option<&'a [u8]>,
    content_length: Option<u64>,
    chunked: bool,
    upgrade: Option<&'a [u8]>,
    connection_options: usize,
    connection_upgrade: bool,
    closes: bool,
    keeps_alive: bool,
    expects_continue: bool,
}

impl<'a> Fields<'a> {
    fn add(&mut self, head: &Bytes, line: &'a [u8], limits: Limits) -> Result<(), HeadError> {
        self.count += 1;
        if self.count > limits.fields {
            return Err(HeadError::TooLarge);
        }
        let (name, value, shared) = split_field(head, line)?;
        self.interpret(&name, value)?;
        self.map.try_append(name, shared).map(drop).map_err(|_full| HeadError::TooLarge)
    }

    fn interpret(&mut self, field: &HeaderName, value: &'a [u8]) -> Result<(), HeadError> {
        let name = field.as_str();
        // By length first: most fields are none of these.
        match name.len() {
            4 if name == "host" => return self.set_host(value),
            6 if name == "expect" => return self.set_expectation(value),
            7 if name == "upgrade" => {
                // Two of them name no one protocol.
                self.upgrade = Some(if self.upgrade.is_some() { b"" } else { value });
            }
            10 if name == "connection" => self.add_connection_options(value)?,
            14 if name == "content-length" => return self.set_content_length(value),
            17 if name == "transfer-encoding" => self.set_chunked(value)?,
            2 | 7 | 10 | 14 | 16 | 18 | 19 if ONE_HOP.contains(&name) => {}
            _ => return Ok(()),
        }
        self.one_hop.push(field.clone());
        Ok(())
    }

    /// RFC 9110 7.6.1: what is listed here ends here. A list that names what the gateway answers for, or that
    /// is none, is a try to have it taken away (IH-4).
    fn add_connection_options(&mut self, value: &[u8]) -> Result<(), HeadError> {
        let options = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        for option in options.filter(|option| !option.is_empty()) {
            self.connection_options += 1;
            if self.connection_options >= MAX_CONNECTION_OPTIONS {
                return Err(HeadError::Malformed("Connection lists too many options"));
            }
            match option.len() {
                5 if option.eq_ignore_ascii_case(b"close") => self.closes = true,
                7 if option.eq_ignore_ascii_case(b"upgrade") => self.connection_upgrade = true,
                10 if option.eq_ignore_ascii_case(b"keep-alive") => self.keeps_alive = true,
                _ => self.end_here(option)?,
            }
        }
        Ok(())
    }

    fn end_here(&mut self, option: &[u8]) -> Result<(), HeadError> {
        let Some(name) = HeaderName::from_bytes(option).ok().filter(|_| is_token(option)) else {
            return Err(HeadError::Malformed("Connection lists what is no option"));
        };
        if PROTECTED.contains(&name.as_str()) {
            return Err(HeadError::Malformed("Connection lists a field that must not be taken away"));
        }
        // Whoever takes the length of a body away changes where it ends.
        if name != CONTENT_LENGTH {
            self.one_hop.push(name);
        }
        Ok(())
    }

    /// PP-7: exactly one.
    fn set_host(&mut self, value: &'a [u8]) -> Result<(), HeadError> {
        if self.host.replace(value).is_some() {
            return Err(HeadError::Malformed("more than one Host"));
        }
        Ok(())
    }

    /// RFC 9110 10.1.1: there is one expectation, and whoever knows no other may say so.
    fn set_expectation(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if self.expects_continue || !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(HeadError::Expectation);
        }
        self.expects_continue = true;
        Ok(())
    }

    /// PP-7: `:authority` is the host; a `Host` field beside it has to name the same one.
    fn set_authority(&mut self, authority: Option<&'a str>) -> Result<(), HeadError> {
        let Some(authority) = authority.map(str::as_bytes) else { return Ok(()) };
        match self.host.replace(authority) {
            Some(host) if Host::parse(host) != Host::parse(authority) => {
                Err(HeadError::Malformed("Host is another one than :authority"))
            }
            _ => Ok(()),
        }
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

    fn into_head(
        mut self,
        request: &RequestLine<'_>,
        raw: Bytes,
        last_host: &mut LastHost,
    ) -> Result<Box<Head>, HeadError> {
        if self.expects_continue && !request.http_1_1 {
            // RFC 9110 10.1.1: HTTP/1.0 knows no interim answers.
            self.one_hop.push(EXPECT);
        }
        let websocket = self.is_websocket(request);
        let framing = self.framing(request.http_1_1)?;
        if websocket && !framing.is_done() {
            return Err(HeadError::Malformed("a WebSocket handshake with a body"));
        }
        let host = self.host.ok_or(HeadError::Malformed("no Host"))?;
        let host = last_host.parse(host);
        let host = host.map_err(|HostError| HeadError::Malformed("Host is not host[:port]"))?;
        let asks_server = request.target == b"*" && request.method == "OPTIONS";
        let origin =
            if asks_server { Some(Cow::Borrowed(b"/".as_slice())) } else { request.origin_form(&host)? };
        let target = Target::parse_with_slashes(origin.as_deref().unwrap_or(request.target));
        Ok(Box::new(Head {
            method: request.method,
            target: target.map_err(|TargetError(reason)| HeadError::Malformed(reason))?,
            host,
            framing,
            websocket,
            expects_continue: self.expects_continue && request.http_1_1,
            asks_server,
            fields: self.map,
            raw,
            one_hop: self.one_hop,
            http_1_1: request.http_1_1,
            has_length: self.content_length.is_some(),
            closes: self.closes,
            keeps_alive: self.keeps_alive,
        }))
    }

    /// RFC 6455 4.1: GET of HTTP/1.1, `Upgrade: websocket`, `Connection: upgrade`.
    fn is_websocket(&self, request: &RequestLine<'_>) -> bool {
        let named = self.upgrade.is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
        named && self.connection_upgrade && request.http_1_1 && request.method == "GET"
    }

    /// RFC 9112 6.3. A length and a coding together, and a coding in HTTP/1.0, are how requests are
    /// smuggled (6.1): both are refused.
    fn framing(&self, http_1_1: bool) -> Result<Framing, HeadError> {
        match (self.content_length, self.chunked) {
            (Some(_), true) => Err(HeadError::Malformed("Content-Length and Transfer-Encoding together")),
            (None, true) if !http_1_1 => Err(HeadError::Malformed("Transfer-Encoding in HTTP/1.0")),
            (None, true) => Ok(Framing::chunked()),
            (length, false) => Ok(Framing::length(length.unwrap_or(0))),
        }
    }
}

/// Fields for one connection besides those that are read above (RFC 9110 7.6.1, 11.7, RFC 7540 3.2.1).
const ONE_HOP: [&str; 7] = [
    "te",
    "trailer",
    "keep-alive",
    "http2-settings",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
];

/// Fields that no `Connection` may name: the host, and what the gateway sets whoever is asking.
const PROTECTED: [&str; 4] = ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];

/// RFC 9110 5.6.2.
fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

fn is_token_byte(byte: u8) -> bool {
    TOKEN_BYTES.get(usize::from(byte)).is_some_and(|is_token| *is_token)
}

const TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte.is_ascii() {
        table[byte as usize] = matches!(
            byte,
            b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'^'..=b'z' | b'|' | b'~'
        );
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 16 * 1024, target_bytes: 8 * 1024, fields: 20 };

    fn read(head: &[u8]) -> Result<Box<Head>, HeadError> {
        let mut bytes = BytesMut::from(head);
        let end = Scanner::default().find_end(&mut bytes, LIMITS)?.expect("the head is whole");
        parse(&bytes.split_to(end).freeze(), LIMITS, &mut LastHost::default())
    }

    fn get(fields: &str) -> Result<Box<Head>, HeadError> {
        read(format!("GET /a HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n").as_bytes())
    }

    fn line(line: &str) -> Result<Box<Head>, HeadError> {
        read(format!("{line}\r\nHost: app.test\r\n\r\n").as_bytes())
    }

    fn is_malformed(result: &Result<Box<Head>, HeadError>) -> bool {
        matches!(result, Err(HeadError::Malformed(_)))
    }

    #[test]
    fn a_plain_head_is_understood() {
        let head = read(
            b"POST /a/b?c=d HTTP/1.1\r\nhost: APP.test.:8443\r\nContent-Length: 12\r\nExpect: 100-Continue\r\nX-Empty:\r\nX-Latin: caf\xe9\r\n\r\nabc",
        )
        .unwrap();
        assert_eq!((head.method, head.target.as_str()), ("POST", "/a/b?c=d"));
        assert_eq!((head.host.name(), head.host.port()), ("app.test", Some(8443)));
        assert_eq!(head.framing, Framing::length(12));
        assert!(head.expects_continue && !head.websocket && !head.asks_server);
        assert_eq!(head.fields["x-latin"].as_bytes(), b"caf\xe9");
        assert_eq!((head.fields.len(), head.fields["x-empty"].len()), (5, 0));
    }

    #[test]
    fn a_head_ends_with_its_blank_line_however_it_comes() {
        let whole = b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next";
        for piece in [1, 2, 3, whole.len()] {
            let (mut scanner, mut bytes, mut end) = (Scanner::default(), BytesMut::new(), None);
            for part in whole.chunks(piece) {
                bytes.extend_from_slice(part);
                end = scanner.find_end(&mut bytes, LIMITS).unwrap();
                if end.is_some() {
                    break;
                }
            }
            assert_eq!(&bytes[..end.unwrap()], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "by {piece}");
        }
    }

    #[test]
    fn a_line_that_ends_without_cr_is_refused_before_the_head_is_whole() {
        let cases: &[(&str, &[u8])] = &[
            ("bare line feeds throughout", b"GET / HTTP/1.1\nHost: a\n\n"),
            ("one bare line feed", b"GET / HTTP/1.1\r\nHost: a\n"),
            ("an empty line of a bare line feed", b"\nGET / HTTP/1.1\r\n"),
        ];
        for (name, bytes) in cases {
            let found = Scanner::default().find_end(&mut BytesMut::from(*bytes), LIMITS);
            assert!(matches!(found, Err(HeadError::Malformed(_))), "{name}");
        }
    }

    #[test]
    fn a_request_line_has_exactly_three_parts() {
        let cases = [
            ("HTTP/0.9", "GET /"),
            ("two spaces", "GET  / HTTP/1.1"),
            ("space in the target", "GET /a b HTTP/1.1"),
            ("tab in the target", "GET /a\tb HTTP/1.1"),
            ("DEL in the target", "GET /a\u{7f} HTTP/1.1"),
            ("UTF-8 in the target", "GET /\u{e4} HTTP/1.1"),
            ("space at the end", "GET / HTTP/1.1 "),
            ("space in front", " GET / HTTP/1.1"),
            ("lower-case version", "GET / http/1.1"),
            ("HTTP/2 preface", "PRI * HTTP/2.0"),
            ("HTTP/1.2", "GET / HTTP/1.2"),
            ("fragment", "GET /a#b HTTP/1.1"),
            ("no slash", "GET a HTTP/1.1"),
            ("asterisk for another method", "GET * HTTP/1.1"),
            ("dot segments", "GET /public/../admin HTTP/1.1"),
            ("method is no token", "GE(T / HTTP/1.1"),
            ("bare CR", "GET /\ra HTTP/1.1"),
        ];
        for (name, text) in cases {
            assert!(is_malformed(&line(text)), "{name}");
        }
        assert!(line("GET / HTTP/1.0").is_ok());
    }

    #[test]
    fn only_the_listed_methods_are_let_through() {
        for method in ["TRACE", "CONNECT", "DEBUG", "get", "Get", "GETz", "M-SEARCH"] {
            assert_eq!(line(&format!("{method} / HTTP/1.1")).unwrap_err(), HeadError::Method, "{method}");
        }
        assert_eq!(line("CONNECT app.test:443 HTTP/1.1").unwrap_err(), HeadError::Method);
        for method in METHODS {
            assert_eq!(line(&format!("{method} / HTTP/1.1")).unwrap().method, *method);
        }
    }

    #[test]
    fn options_of_the_server_is_told_apart() {
        assert!(line("OPTIONS * HTTP/1.1").unwrap().asks_server);
        assert!(!line("OPTIONS / HTTP/1.1").unwrap().asks_server);
    }

    #[test]
    fn the_absolute_form_must_name_the_host_and_becomes_the_origin_form() {
        let cases = [
            ("path", "http://app.test/a?b", Some("/a?b")),
            ("other scheme and case", "HTTPS://APP.TEST/a", Some("/a")),
            ("no path", "http://app.test", Some("/")),
            ("only a query", "http://app.test?x", Some("/?x")),
            ("another host", "http://admin.test/secret", None),
            ("another port", "http://app.test:81/", None),
            ("userinfo", "http://app.test@evil.test/", None),
            ("unknown scheme", "foo://app.test/", None),
            ("no authority", "http:/a", None),
            ("double slash behind it", "https://app.test//admin", None),
        ];
        for (name, target, expected) in cases {
            let head = format!("GET {target} HTTP/1.1\r\nHost: app.test\r\nX: y\r\n\r\n");
            let read = read(head.as_bytes());
            assert_eq!(read.as_ref().ok().map(|head| head.target.as_str()), expected, "{name}");
            if let (Ok(read), Some(expected)) = (read, expected) {
                let wanted = format!("GET {expected} HTTP/1.1\r\nHost: app.test\r\n\r\n");
                assert_eq!(read.frame(), wanted.as_bytes(), "{name}");
            }
        }
    }

    #[test]
    fn the_bytes_of_a_token_are_those_of_the_specification() {
        let expected = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        for byte in 0..=u8::MAX {
            assert_eq!(is_token_byte(byte), expected(byte), "{byte}");
        }
    }

    #[test]
    fn a_field_is_a_token_a_colon_and_text() {
        let cases = [
            ("folded", "X-A: 1\r\n X-Auth-User: root\r\n"),
            ("folded with a tab", "X-A: 1\r\n\tb\r\n"),
            ("space before the colon", "X-A : 1\r\n"),
            ("space in the name", "X A: 1\r\n"),
            ("parenthesis in the name", "X(A: 1\r\n"),
            ("no name", ": 1\r\n"),
            ("no colon", "X-A\r\n"),
            ("bare CR in a value", "X-A: 1\rX-B: 2\r\n"),
            ("control character in a value", "X-A: \u{1}\r\n"),
            ("NUL in a value", "X-A: a\0b\r\n"),
            ("form feed in front of a value", "X-A: \u{c}1\r\n"),
            ("form feed behind a value", "X-A: 1\u{c}\r\n"),
            ("bare CR behind a value", "X-A: 1\r\r\n"),
            ("DEL in a value", "X-A: \u{7f}\r\n"),
            ("UTF-8 in a name", "X-\u{e4}: 1\r\n"),
        ];
        for (name, fields) in cases {
            assert!(is_malformed(&get(fields)), "{name}");
        }
    }

    #[test]
    fn there_is_exactly_one_host() {
        let cases: &[(&str, &[u8])] = &[
            ("none", b"GET / HTTP/1.1\r\n\r\n"),
            ("none in HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n"),
            ("two", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            ("the same twice", b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"),
            ("empty", b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
            ("userinfo", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
            ("two in one", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
        ];
        for (name, head) in cases {
            assert!(is_malformed(&read(head)), "{name}");
        }
    }

    #[test]
    fn framing_that_could_be_read_in_two_ways_is_refused() {
        let cases = [
            ("length and coding", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n"),
            ("coding and length", "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n"),
            ("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            ("xchunked", "Transfer-Encoding: xchunked\r\n"),
            ("identity", "Transfer-Encoding: identity\r\n"),
            ("chunked, identity", "Transfer-Encoding: chunked, identity\r\n"),
            ("gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n"),
            ("vertical tab", "Transfer-Encoding: \u{b}chunked\r\n"),
            ("empty coding", "Transfer-Encoding:\r\n"),
            ("space before the colon", "Transfer-Encoding : chunked\r\n"),
            ("two lengths", "Content-Length: 3\r\nContent-Length: 4\r\n"),
            ("the same length twice", "Content-Length: 3\r\nContent-Length: 3\r\n"),
            ("a list of lengths", "Content-Length: 3, 3\r\n"),
            ("plus", "Content-Length: +3\r\n"),
            ("minus", "Content-Length: -1\r\n"),
            ("hexadecimal", "Content-Length: 0x3\r\n"),
            ("two numbers", "Content-Length: 3 3\r\n"),
            ("beyond 64 bits", "Content-Length: 99999999999999999999\r\n"),
            ("beyond 63 bits", "Content-Length: 9223372036854775808\r\n"),
            ("empty length", "Content-Length:\r\n"),
        ];
        for (name, fields) in cases {
            assert!(is_malformed(&get(fields)), "{name}");
        }
        let http_1_0 = b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(is_malformed(&read(http_1_0)));
        assert_eq!(get("Transfer-Encoding: Chunked\r\n").unwrap().framing, Framing::chunked());
        assert_eq!(get("").unwrap().framing, Framing::length(0));
    }

    #[test]
    fn only_a_websocket_counts_as_an_upgrade() {
        let cases = [
            ("as browsers say it", "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n", true),
            ("another protocol", "Connection: Upgrade\r\nUpgrade: h2c\r\n", false),
            ("two protocols", "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n", false),
            ("two fields", "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n", false),
            ("no Connection", "Upgrade: websocket\r\n", false),
            ("no Upgrade", "Connection: Upgrade\r\n", false),
        ];
        for (name, fields, expected) in cases {
            assert_eq!(get(fields).unwrap().websocket, expected, "{name}");
        }
        let fields = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        for line in ["GET / HTTP/1.0", "POST / HTTP/1.1"] {
            assert!(!read(format!("{line}\r\n{fields}").as_bytes()).unwrap().websocket, "{line}");
        }
    }

    #[test]
    fn a_websocket_handshake_has_no_body() {
        let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
        for framing in ["Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n"] {
            assert!(is_malformed(&get(&format!("{handshake}{framing}"))), "{framing}");
        }
        assert!(get(&format!("{handshake}Content-Length: 0\r\n")).unwrap().websocket);
    }

    fn stream<'a>(method: &'a str, target: &'a str, fields: &'a HeaderMap) -> StreamHead<'a> {
        StreamHead {
            method,
            target,
            scheme: Some("https"),
            authority: Some("app.test"),
            fields,
            has_body: false,
        }
    }

    type Field = (&'static str, &'static str);

    fn fields(list: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = list.iter().map(|&(name, value)| (name.parse::<http::HeaderName>().unwrap(), value));
        pairs.fold(HeaderMap::new(), |mut fields, (name, value)| {
            fields.append(name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
            fields
        })
    }

    #[test]
    fn a_stream_is_read_by_the_rules_of_http_1() {
        let cases: &[(&str, &str, &str, Result<(), HeadError>)] = &[
            ("plain", "GET", "/a?b", Ok(())),
            ("OPTIONS of the server", "OPTIONS", "*", Ok(())),
            ("asterisk for another method", "GET", "*", Err(HeadError::Malformed(""))),
            ("no slash", "GET", "admin/x", Err(HeadError::Malformed(""))),
            ("absolute form", "GET", "https://app.test/", Err(HeadError::Malformed(""))),
            ("dot segments", "GET", "/public/../admin", Err(HeadError::Malformed(""))),
            ("not ASCII", "GET", "/\u{e4}", Err(HeadError::Malformed(""))),
            ("fragment", "GET", "/a#b", Err(HeadError::Malformed(""))),
            ("TRACE", "TRACE", "/", Err(HeadError::Method)),
            ("CONNECT", "CONNECT", "/", Err(HeadError::Method)),
            ("lower case", "get", "/", Err(HeadError::Method)),
            ("no token", "GE(T", "/", Err(HeadError::Malformed(""))),
        ];
        let none = HeaderMap::new();
        for (name, method, target, expected) in cases {
            let read = parse_stream(&stream(method, target, &none), LIMITS).map(drop);
            let same = read == *expected
                || (matches!(expected, Err(HeadError::Malformed(_)))
                    && matches!(read, Err(HeadError::Malformed(_))));
            assert!(same, "{name}: {read:?}");
        }
        let long = format!("/{}", "a".repeat(LIMITS.target_bytes));
        let read = parse_stream(&stream("GET", &long, &none), LIMITS);
        assert_eq!(read.unwrap_err(), HeadError::TargetTooLong);
    }

    #[test]
    fn a_stream_names_one_host_and_one_scheme() {
        let cases = [
            ("authority", Some("APP.test."), "", true),
            ("Host alone", None, "app.test", true),
            ("both", Some("app.test"), "App.Test", true),
            ("neither", None, "", false),
            ("two hosts", Some("app.test"), "admin.test", false),
            ("two ports", Some("app.test"), "app.test:444", false),
            ("userinfo", Some("u@app.test"), "", false),
            ("userinfo in both", Some("u@app.test"), "u@app.test", false),
            ("empty", Some(""), "", false),
        ];
        for (name, authority, host, expected) in cases {
            let fields = if host.is_empty() { HeaderMap::new() } else { fields(&[("host", host)]) };
            let read = parse_stream(&StreamHead { authority, ..stream("GET", "/", &fields) }, LIMITS);
            assert_eq!(read.is_ok(), expected, "{name}");
            assert!(read.is_err() || read.unwrap().host.name() == "app.test", "{name}");
        }
        for (scheme, expected) in [("https", true), ("http", true), ("javascript", false), ("HTTPS", false)] {
            let fields = HeaderMap::new();
            let read =
                parse_stream(&StreamHead { scheme: Some(scheme), ..stream("GET", "/", &fields) }, LIMITS);
            assert_eq!(read.is_ok(), expected, "{scheme}");
        }
    }

    #[test]
    fn a_stream_has_no_fields_of_connections_and_one_length() {
        let cases: &[(&str, &[Field], bool)] = &[
            ("none", &[], true),
            ("te for trailers", &[("te", "trailers")], true),
            ("te", &[("te", "gzip")], false),
            ("te for more", &[("te", "trailers, gzip")], false),
            ("connection", &[("connection", "close")], false),
            ("keep-alive", &[("keep-alive", "1")], false),
            ("proxy-connection", &[("proxy-connection", "x")], false),
            ("transfer-encoding", &[("transfer-encoding", "chunked")], false),
            ("upgrade", &[("upgrade", "websocket")], false),
            ("a length", &[("content-length", "3")], true),
            ("two lengths", &[("content-length", "3"), ("content-length", "3")], false),
            ("no number", &[("content-length", "+3")], false),
        ];
        for (name, list, expected) in cases {
            let fields = fields(list);
            let head = StreamHead { has_body: true, ..stream("POST", "/", &fields) };
            assert_eq!(parse_stream(&head, LIMITS).is_ok(), *expected, "{name}");
        }
        let framing = |list: &[Field], has_body| {
            let fields = fields(list);
            parse_stream(&StreamHead { has_body, ..stream("POST", "/", &fields) }, LIMITS).unwrap().framing
        };
        assert_eq!(framing(&[], false), Framing::length(0));
        assert_eq!(framing(&[], true), Framing::chunked());
        assert_eq!(framing(&[("content-length", "3")], true), Framing::length(3));
    }

    #[test]
    fn a_stream_has_the_size_of_a_head_and_crumbs_are_one_field() {
        let many = vec![("x", "y"); 20];
        assert!(parse_stream(&stream("GET", "/", &fields(&many)), LIMITS).is_ok());
        let more = vec![("x", "y"); 21];
        let refused = parse_stream(&stream("GET", "/", &fields(&more)), LIMITS);
        assert_eq!(refused.unwrap_err(), HeadError::TooLarge);
        let crumbs = vec![("cookie", "a=b"); 100];
        assert!(parse_stream(&stream("GET", "/", &fields(&crumbs)), LIMITS).is_ok());
        let long = "a".repeat(LIMITS.bytes);
        let refused = parse_stream(&stream("GET", "/", &fields(&[("x", &long)])), LIMITS);
        assert_eq!(refused.unwrap_err(), HeadError::TooLarge);
    }

    #[test]
    fn a_head_has_a_size() {
        let long = "a".repeat(LIMITS.target_bytes);
        assert_eq!(line(&format!("GET /{long} HTTP/1.1")).unwrap_err(), HeadError::TargetTooLong);
        assert!(get(&"X: y\r\n".repeat(19)).is_ok());
        assert_eq!(get(&"X: y\r\n".repeat(20)).unwrap_err(), HeadError::TooLarge);

        let filler = format!("X: {}\r\n", "a".repeat(LIMITS.bytes));
        assert_eq!(get(&filler).unwrap_err(), HeadError::TooLarge);
        let mut endless_line =
            BytesMut::from([b"GET /".as_slice(), &vec![b'a'; LIMITS.bytes]].concat().as_slice());
        let found = Scanner::default().find_end(&mut endless_line, LIMITS);
        assert_eq!(found, Err(HeadError::TargetTooLong));
        let mut endless_head = BytesMut::from(
            [b"GET / HTTP/1.1\r\nX:".as_slice(), &vec![b'a'; LIMITS.bytes]].concat().as_slice(),
        );
        assert_eq!(Scanner::default().find_end(&mut endless_head, LIMITS), Err(HeadError::TooLarge));
    }
}
