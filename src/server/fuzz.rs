//! A door for the fuzzer, and for the test that replays its seeds: raw bytes through the readers of this
//! module, which nothing outside it may call. The gateway itself never comes here.

use std::net::IpAddr;

use bytes::BytesMut;
use http::HeaderMap;

use super::body::Framing;
use super::head::{self, Limits, Scanner};
use super::proxy_protocol::{self, Source};
use crate::web::host::LastHost;
use crate::web::{Host, Target};

/// Small ones, so that the fuzzer finds them.
const LIMITS: Limits = Limits { bytes: 16 * 1024, fields: 32, target_bytes: 8 * 1024 };

/// A request head that was let in.
#[derive(Debug)]
pub struct ReadHead {
    /// The method.
    pub method: &'static str,
    /// The canonical target.
    pub target: Target,
    /// The canonical host.
    pub host: Host,
    /// Bytes of the body; `None` where it comes in chunks.
    pub length: Option<u64>,
    /// Whether it asks for a WebSocket.
    pub websocket: bool,
    /// Whether it is `OPTIONS *`.
    pub asks_server: bool,
    /// The head as the proxy engine gets it.
    pub forwarded: Vec<u8>,
    /// The fields.
    pub fields: HeaderMap,
    /// What was sent behind it.
    pub rest: Vec<u8>,
}

/// Reads the first head of what comes in pieces of `piece` bytes. `None`: refused, or not whole.
#[must_use]
pub fn read_head(bytes: &[u8], piece: usize) -> Option<ReadHead> {
    let mut ahead = BytesMut::new();
    let mut scanner = Scanner::default();
    let mut pieces = bytes.chunks(piece.max(1));
    let end = loop {
        ahead.extend_from_slice(pieces.next()?);
        if let Some(end) = scanner.find_end(&mut ahead, LIMITS).ok()? {
            break end;
        }
    };
    let head = head::parse(&ahead.split_to(end).freeze(), LIMITS, &mut LastHost::default()).ok()?;
    pieces.for_each(|piece| ahead.extend_from_slice(piece));
    let length = match head.framing {
        Framing::Length(length) => Some(length),
        Framing::Chunked(_) | Framing::Tunnel => None,
    };
    let forwarded = head.frame().to_vec();
    Some(ReadHead {
        method: head.method,
        target: head.target,
        host: head.host,
        length,
        websocket: head.websocket,
        asks_server: head.asks_server,
        forwarded,
        fields: head.fields,
        rest: ahead.to_vec(),
    })
}

/// How many bytes of what comes in pieces of `piece` bytes are one chunked body. `None`: it is refused, or
/// not whole.
#[must_use]
pub fn chunked_len(bytes: &[u8], piece: usize) -> Option<usize> {
    let mut framing = Framing::chunked();
    let mut len = 0;
    for piece in bytes.chunks(piece.max(1)) {
        len += framing.admit(piece).ok()?;
        if framing.is_done() {
            return Some(len);
        }
    }
    None
}

/// Whose connection a PROXY header says it is, `Some(None)` being the proxy's own. `None`: it is refused.
#[must_use]
pub fn proxy_header(bytes: &[u8]) -> Option<Option<IpAddr>> {
    match proxy_protocol::parse(bytes).ok()? {
        Source::Client(address) => Some(Some(address)),
        Source::Proxy => Some(None),
    }
}
