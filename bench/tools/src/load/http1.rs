//! HTTP/1.1, made by hand: a request is bytes that are there already, an answer is compared where it was
//! read. One call to write and one to read for each request, where the body is not large.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::dial::{Dialer, Wire};
use super::{Load, Options, requests};
use crate::{Outcome, head};

/// The most that is read at once of a body.
const BUFFER: usize = 128 * 1024;

/// So much of a wrong answer is told.
const TOLD: usize = 300;

/// Drives HTTP/1.1.
pub async fn drive(options: &Options, dialer: Dialer) -> Outcome<Value> {
    let requests = requests(options, |cookie| Ok(request(options, cookie)))?;
    let buffer = (options.body + head::MAX).min(BUFFER);
    let mut connections = Vec::new();
    for _ in 0..options.connections {
        let wire = if options.close { None } else { Some(dialer.dial().await?) };
        connections.push(Connection { wire, served: false, buffer: vec![0; buffer] });
    }
    let load = Load::begin(options, dialer, requests)?;
    let mut clients = JoinSet::new();
    for connection in connections {
        clients.spawn(client(Arc::clone(&load), connection));
    }
    Ok(load.finish(clients).await)
}

fn request(options: &Options, cookie: Option<&str>) -> Vec<u8> {
    let mut request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", options.path, options.host);
    let fields = options.header.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in fields.chain(cookie.map(|cookie| ("Cookie", cookie))) {
        request.extend([name, ": ", value, "\r\n"]);
    }
    request.push_str("\r\n");
    request.into_bytes()
}

/// One client.
async fn client(load: Arc<Load<Vec<u8>>>, mut connection: Connection) {
    while let Some(request) = load.next() {
        let begun = Instant::now();
        match connection.ask(&load, request).await {
            Ok(None) => load.tally.succeed(begun),
            Ok(Some(wrong)) => load.tally.fail(wrong),
            Err(error) => {
                connection.wire = None;
                load.tally.fail(error.to_string());
            }
        }
        if load.close {
            connection.wire = None;
        }
    }
}

struct Connection {
    wire: Option<Wire>,
    /// Whether it brought an answer already.
    served: bool,
    buffer: Vec<u8>,
}

/// An answer that was read whole.
struct Answer {
    /// What is wrong with it.
    wrong: Option<String>,
    /// Whether the connection ends with it.
    closes: bool,
}

/// No answer.
struct Failure {
    error: io::Error,
    /// Whether not a byte of one came.
    untouched: bool,
}

impl Connection {
    /// Asks, where need be over a new connection; gives what is wrong with the answer.
    async fn ask(&mut self, load: &Load<Vec<u8>>, request: &[u8]) -> Outcome<Option<String>> {
        loop {
            let failure = match self.exchange(load, request).await? {
                Ok(answer) => {
                    self.served = true;
                    if answer.closes {
                        self.wire = None;
                    }
                    return Ok(answer.wrong);
                }
                Err(failure) => failure,
            };
            // A server may close a connection between two requests at any time; the client asks again.
            if !(failure.untouched && self.served) {
                return Err(failure.error.into());
            }
            self.wire = None;
        }
    }

    async fn exchange(&mut self, load: &Load<Vec<u8>>, request: &[u8]) -> Outcome<Result<Answer, Failure>> {
        let Self { wire, served, buffer } = self;
        if wire.is_none() {
            *wire = Some(load.dialer.dial().await?);
            *served = false;
            load.tally.connect();
        }
        Ok(match wire {
            Some(Wire::Plain(stream)) => {
                Exchange { stream, buffer, filled: 0 }.run(request, &load.body).await
            }
            Some(Wire::Tls(stream)) => Exchange { stream, buffer, filled: 0 }.run(request, &load.body).await,
            None => return Err("there is no connection".into()),
        })
    }
}

/// A request and its answer.
struct Exchange<'a, S> {
    stream: S,
    buffer: &'a mut [u8],
    filled: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<'_, S> {
    async fn run(mut self, request: &[u8], body: &[u8]) -> Result<Answer, Failure> {
        match self.send_and_receive(request, body).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(Failure { error, untouched: self.filled == 0 }),
        }
    }

    async fn send_and_receive(&mut self, request: &[u8], expected: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        let end = self.read_head().await?;
        let head = Head::of(&self.buffer[..end]);
        let mut body = Body::new(head.is_right(expected.len()), &self.buffer[..end], expected);
        body.take(&self.buffer[end..self.filled]);
        while body.taken < head.length {
            let most = self.buffer.len().min(head.length - body.taken);
            let read = self.stream.read(&mut self.buffer[..most]).await?;
            if read == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body was cut off"));
            }
            body.take(&self.buffer[..read]);
        }
        let wrong =
            body.wrong.or_else(|| (body.taken > head.length).then(|| "more than the answer".to_owned()));
        Ok(Answer { closes: head.closes || wrong.is_some(), wrong })
    }

    /// Reads until the head is whole, with whatever comes along; says where it ends.
    async fn read_head(&mut self) -> io::Result<usize> {
        loop {
            let read = self.stream.read(&mut self.buffer[self.filled..]).await?;
            if read == 0 {
                let why = "the connection was closed in front of the answer";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            }
            self.filled += read;
            if let Some(end) = head::end(&self.buffer[..self.filled]) {
                return Ok(end);
            }
        }
    }
}

/// What the head of an answer says.
struct Head {
    is_200: bool,
    /// Of the body; 0 where the head does not tell.
    length: usize,
    has_length: bool,
    closes: bool,
}

impl Head {
    fn of(head: &[u8]) -> Self {
        let mut length = None;
        let mut closes = false;
        for (name, value) in head::fields(head) {
            if name.eq_ignore_ascii_case(b"content-length") {
                length = head::number(value);
            } else if name.eq_ignore_ascii_case(b"connection") {
                closes = value.eq_ignore_ascii_case(b"close");
            }
        }
        let is_200 = head::first_line(head).get(8..12) == Some(b" 200");
        Self { is_200, length: length.unwrap_or(0), has_length: length.is_some(), closes }
    }

    fn is_right(&self, length: usize) -> bool {
        self.is_200 && self.has_length && self.length == length
    }
}

/// A body that is compared while it comes.
struct Body<'a> {
    expected: &'a [u8],
    taken: usize,
    wrong: Option<String>,
}

impl<'a> Body<'a> {
    fn new(is_right: bool, head: &[u8], expected: &'a [u8]) -> Self {
        let wrong = (!is_right).then(|| head::text(head::first_line(head)) + ": ");
        Self { expected, taken: 0, wrong }
    }

    fn take(&mut self, piece: &[u8]) {
        let end = self.taken + piece.len();
        match &mut self.wrong {
            Some(told) if told.len() < TOLD => told.push_str(&head::text(&piece[..piece.len().min(TOLD)])),
            Some(_) => {}
            None if self.expected.get(self.taken..end) == Some(piece) => {}
            None => self.wrong = Some(format!("the body differs in bytes {} to {end}", self.taken)),
        }
        self.taken = end;
    }
}
