//! HTTP/2 as raw frames over TLS: what was sent is what the other side gets.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::DEADLINE;
use super::client::{Place, Response};
use super::hpack::{Decoder, literals};
use super::wire::Head;

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The errors that are told by number (RFC 9113 7).
pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// How a stream ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// With an answer.
    Answer(Response),
    /// It was reset without one, or within it.
    Reset(u32),
    /// The whole connection was ended with this error.
    GoAway(u32),
    /// The connection was closed without a word.
    Closed,
}

impl Outcome {
    /// The answer.
    ///
    /// # Panics
    /// When there is none.
    pub fn response(self) -> Response {
        let Self::Answer(response) = self else { panic!("no answer: {self:?}") };
        response
    }

    /// The status; 0 for none.
    pub fn status(&self) -> u16 {
        if let Self::Answer(response) = self { response.status } else { 0 }
    }

    /// Whether the request was refused: by its status or by an error, and not by silence.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Answer(response) => response.status == 400,
            Self::Reset(_) => true,
            Self::GoAway(error) => *error != NO_ERROR,
            Self::Closed => false,
        }
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A whole head as one frame.
pub fn headers(flags: u8, stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &literals(fields))
}

/// A SETTINGS frame with one setting.
pub fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[id.to_be_bytes().as_slice(), &value.to_be_bytes()].concat())
}

/// The four fields in front of every request.
pub fn request<'a>(method: &'a str, host: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "https"), (":authority", host), (":path", path)]
}

/// A connection.
pub struct Http2 {
    stream: rustls::StreamOwned<rustls::ClientConnection, TcpStream>,
    read: Vec<u8>,
    decoder: Decoder,
    next_stream: u32,
    /// Whether DATA is acknowledged as it comes, so that more may follow.
    pub takes_data: bool,
    goaway: Option<u32>,
    windows: Windows,
}

/// What may be sent: on the whole connection, and of the one body that is sent.
struct Windows {
    connection: u32,
    stream: u32,
}

impl Http2 {
    /// Connects and exchanges SETTINGS.
    ///
    /// # Panics
    /// When the server does not speak HTTP/2.
    pub fn connect(place: &Place) -> Self {
        let mut client = Self::connect_silently(place);
        client.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        client
    }

    /// Connects, chooses HTTP/2 in the TLS handshake and says no more.
    pub fn connect_silently(place: &Place) -> Self {
        let (config, name) = place.tls.as_ref().expect("HTTP/2 is spoken over TLS");
        let mut config = rustls::ClientConfig::clone(config);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = name.clone().try_into().unwrap();
        let mut session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut tcp = TcpStream::connect_timeout(&place.address, DEADLINE).unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(DEADLINE)).unwrap();
        tcp.set_write_timeout(Some(DEADLINE)).unwrap();
        session.complete_io(&mut tcp).unwrap();
        assert_eq!(session.alpn_protocol(), Some(b"h2".as_slice()));
        Self {
            stream: rustls::StreamOwned::new(session, tcp),
            read: Vec::new(),
            decoder: Decoder::default(),
            next_stream: 1,
            takes_data: true,
            goaway: None,
            windows: Windows { connection: 65_535, stream: 65_535 },
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the server takes it");
    }

    /// Sends bytes to a server that may be gone.
    ///
    /// # Errors
    /// When it is.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Waits longer for a frame than tests usually do.
    pub fn wait_up_to(&mut self, time: Duration) {
        self.stream.sock.set_read_timeout(Some(time)).unwrap();
    }

    /// The number of a new stream.
    pub fn new_stream(&mut self) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        stream
    }

    /// Sends a request without a body.
    pub fn ask(&mut self, fields: &[(&str, &str)]) -> u32 {
        let stream = self.new_stream();
        self.send(&headers(END_STREAM, stream, fields));
        stream
    }

    /// Sends a GET and waits for what comes of it.
    pub fn get(&mut self, host: &str, path: &str) -> Outcome {
        let stream = self.ask(&request("GET", host, path));
        self.outcome(stream)
    }

    /// Sends a request without a body and waits for what comes of it.
    pub fn outcome_of(&mut self, fields: &[(&str, &str)]) -> Outcome {
        let stream = self.ask(fields);
        self.outcome(stream)
    }

    /// Sends a request with so many bytes of body, as the server's windows let it.
    ///
    /// # Panics
    /// When they don't.
    pub fn upload(&mut self, fields: &[(&str, &str)], mut bytes: usize) -> u32 {
        let stream = self.new_stream();
        self.send(&headers(0, stream, fields));
        while bytes > 0 {
            let window = self.windows.connection.min(self.windows.stream);
            let piece = bytes.min(16_384).min(usize::try_from(window).unwrap());
            if piece == 0 {
                self.next().expect("the windows open");
                continue;
            }
            bytes -= piece;
            self.windows.connection -= u32::try_from(piece).unwrap();
            self.windows.stream -= u32::try_from(piece).unwrap();
            let flags = if bytes == 0 { END_STREAM } else { 0 };
            self.send(&frame(DATA, flags, stream, &vec![b'x'; piece]));
        }
        stream
    }

    /// Sends a request with a body that fits the first windows, and waits for what comes of it.
    pub fn post(&mut self, fields: &[(&str, &str)], body: &[u8]) -> Outcome {
        let stream = self.new_stream();
        self.send(&headers(0, stream, fields));
        // A server that has refused it by now shows that by its frames.
        let _ = self.try_send(&[frame(DATA, 0, stream, body), frame(DATA, END_STREAM, stream, b"")].concat());
        self.outcome(stream)
    }

    /// The next frame; `None` where the server has closed. SETTINGS and PING are acknowledged on the way.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.buffered() {
                self.acknowledge(&frame);
                return Some(frame);
            }
            let mut piece = [0; 16_384];
            match self.stream.read(&mut piece) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.read.extend_from_slice(&piece[..count]),
            }
        }
    }

    fn buffered(&mut self) -> Option<Frame> {
        let head = self.read.get(..9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        let payload = self.read.get(9..9 + length)?.to_vec();
        self.read.drain(..9 + length);
        Some(Frame { kind, flags, stream, payload })
    }

    fn acknowledge(&mut self, got: &Frame) {
        if got.kind == WINDOW_UPDATE {
            let window =
                if got.stream == 0 { &mut self.windows.connection } else { &mut self.windows.stream };
            *window += number(&got.payload);
        }
        if got.kind == SETTINGS {
            for setting in got.payload.chunks(6).filter(|setting| setting[..2] == [0, 4]) {
                self.windows.stream += number(&setting[2..]) - 65_535;
            }
        }
        let answer = match got.kind {
            SETTINGS if got.flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[]),
            PING if got.flags & ACK == 0 => frame(PING, ACK, 0, &got.payload),
            DATA if self.takes_data && !got.payload.is_empty() => {
                let more = u32::try_from(got.payload.len()).unwrap().to_be_bytes();
                [frame(WINDOW_UPDATE, 0, 0, &more), frame(WINDOW_UPDATE, 0, got.stream, &more)].concat()
            }
            _ => return,
        };
        // A server that is gone shows itself at the next read.
        let _ = self.try_send(&answer);
    }

    /// The next head of a stream, and whether it ended the stream; others' frames are passed over.
    ///
    /// # Panics
    /// When none comes.
    pub fn head(&mut self, stream: u32) -> (Head, bool) {
        loop {
            let frame = self.next().expect("a head comes");
            if let Some(fields) = self.fields(&frame).filter(|_| frame.stream == stream) {
                return (head_of(fields), frame.flags & END_STREAM != 0);
            }
        }
    }

    /// The next data of a stream; `None` where it is reset or ended.
    pub fn data(&mut self, stream: u32) -> Option<Vec<u8>> {
        loop {
            let frame = self.next()?;
            match frame.kind {
                DATA if frame.stream == stream && !frame.payload.is_empty() => return Some(frame.payload),
                DATA if frame.stream == stream && frame.flags & END_STREAM != 0 => return None,
                RST_STREAM if frame.stream == stream => return None,
                _ => drop(self.fields(&frame)),
            }
        }
    }

    /// Every block has to be decoded, whosever it is: the table is one for all.
    fn fields(&mut self, frame: &Frame) -> Option<Vec<(String, String)>> {
        assert!(frame.kind != HEADERS || frame.flags & END_HEADERS != 0, "heads of the tests are small");
        (frame.kind == HEADERS).then(|| self.decoder.decode(&frame.payload))
    }

    /// Waits for what comes of a stream.
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        self.outcomes(&[stream]).remove(0)
    }

    /// Waits for what comes of several streams.
    pub fn outcomes(&mut self, streams: &[u32]) -> Vec<Outcome> {
        let mut states: Vec<State> = streams.iter().map(|_| State::default()).collect();
        while states.iter().any(|state| state.outcome.is_none()) {
            let Some(frame) = self.next() else {
                let end = self.goaway.map_or(Outcome::Closed, Outcome::GoAway);
                return states
                    .into_iter()
                    .map(|state| state.outcome.unwrap_or_else(|| end.clone()))
                    .collect();
            };
            if frame.kind == GOAWAY {
                self.goaway = Some(number(&frame.payload[4..8]));
            }
            let fields = self.fields(&frame);
            if let Some(place) = streams.iter().position(|&stream| stream == frame.stream) {
                states[place].take(&frame, fields);
            }
        }
        states.into_iter().filter_map(|state| state.outcome).collect()
    }

    /// Reads until a GOAWAY or the end; gives the error that it told.
    pub fn goaway(&mut self) -> Option<u32> {
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                self.goaway = Some(number(&frame.payload[4..8]));
            }
        }
        self.goaway
    }

    /// Whether the server closes within this time; what it still says is passed over.
    pub fn is_closed_within(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.stream.sock.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut [0; 4096]) {
                Ok(1..) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return false;
                }
                Ok(_) | Err(_) => return true,
            }
        }
    }
}

#[derive(Default)]
struct State {
    head: Option<Head>,
    body: Vec<u8>,
    outcome: Option<Outcome>,
}

impl State {
    fn take(&mut self, frame: &Frame, fields: Option<Vec<(String, String)>>) {
        if let (Some(fields), None) = (fields, &self.head) {
            self.head = Some(head_of(fields));
        }
        match frame.kind {
            DATA => self.body.extend_from_slice(&frame.payload),
            RST_STREAM => return self.end_with(number(&frame.payload)),
            _ => {}
        }
        if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
            let response = self.response();
            self.outcome = Some(Outcome::Answer(response));
        }
    }

    fn end_with(&mut self, error: u32) {
        if self.outcome.is_none() {
            self.outcome = Some(Outcome::Reset(error));
        }
    }

    fn response(&mut self) -> Response {
        let head = self.head.take().expect("a body has a head");
        let status = head.line.parse().expect("a status is a number");
        Response { status, head, body: std::mem::take(&mut self.body) }
    }
}

fn head_of(fields: Vec<(String, String)>) -> Head {
    let (pseudo, fields): (Vec<_>, Vec<_>) = fields.into_iter().partition(|(name, _)| name.starts_with(':'));
    Head { line: pseudo.into_iter().map(|(_, value)| value).collect(), fields }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}
