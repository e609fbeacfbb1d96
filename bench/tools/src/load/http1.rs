//! HTTP/1.1, made by hand: a request is bytes that are there already, an answer is compared where it was
//! read. One call to write and one to read for each request, where the body is not large; what does not fit into
//! the connection's own buffer is read into one that all share, which stays in the processor's cache.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::task::JoinSet;

use super::dial::{Dialer, Wire};
use super::{Load, Options, requests};
use crate::pattern::Body;
use crate::{Outcome, head};

/// A connection's own buffer: for a head, and a small body with it.
const BUFFER: usize = 16 * 1024;

/// The most that is read at once of a larger body.
const SCRATCH: usize = 256 * 1024;

/// So much of a wrong answer is told.
const TOLD: usize = 300;

/// Drives HTTP/1.1.
pub async fn drive(options: &Options, dialer: Dialer) -> Outcome<Value> {
    let requests = requests(options, |cookie| Ok(request(options, cookie)))?;
    let scratch = Arc::new(Mutex::new(vec![0; SCRATCH]));
    let mut connections = Vec::new();
    for _ in 0..options.connections {
        let wire = if options.close { None } else { Some(dialer.dial().await?) };
        let (buffer, scratch) = (vec![0; BUFFER], Arc::clone(&scratch));
        connections.push(Connection { wire, served: false, buffer, scratch });
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
    /// There is one thread: the lock is never waited for.
    scratch: Arc<Mutex<Vec<u8>>>,
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
        let Self { wire, served, buffer, scratch } = self;
        if wire.is_none() {
            *wire = Some(load.dialer.dial().await?);
            *served = false;
            load.tally.connect();
        }
        Ok(match wire {
            Some(Wire::Plain(stream)) => {
                Exchange { stream, buffer, scratch, filled: 0 }.run(request, &load.body).await
            }
            Some(Wire::Tls(stream)) => {
                Exchange { stream, buffer, scratch, filled: 0 }.run(request, &load.body).await
            }
            None => return Err("there is no connection".into()),
        })
    }
}

/// A request and its answer.
struct Exchange<'a, S> {
    stream: S,
    buffer: &'a mut [u8],
    scratch: &'a Mutex<Vec<u8>>,
    filled: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<'_, S> {
    async fn run(mut self, request: &[u8], body: &Body) -> Result<Answer, Failure> {
        match self.send_and_receive(request, body).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(Failure { error, untouched: self.filled == 0 }),
        }
    }

    async fn send_and_receive(&mut self, request: &[u8], expected: &Body) -> io::Result<Answer> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        let end = self.read_head().await?;
        let head = Head::of(&self.buffer[..end]);
        let mut body = Comparison::new(head.is_right(expected.length()), &self.buffer[..end], expected);
        body.take(&self.buffer[end..self.filled]);
        while body.taken < head.length {
            if poll_fn(|context| self.poll_body(context, &mut body, head.length)).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body was cut off"));
            }
        }
        let wrong =
            body.wrong.or_else(|| (body.taken > head.length).then(|| "more than the answer".to_owned()));
        Ok(Answer { closes: head.closes || wrong.is_some(), wrong })
    }

    /// Reads some of a body and compares it; the buffer belongs to everybody again afterwards.
    fn poll_body(
        &mut self,
        context: &mut Context<'_>,
        body: &mut Comparison<'_>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let most = scratch.len().min(length - body.taken);
        let mut buffer = ReadBuf::new(&mut scratch[..most]);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        body.take(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
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
struct Comparison<'a> {
    expected: &'a Body,
    taken: usize,
    wrong: Option<String>,
}

impl<'a> Comparison<'a> {
    fn new(is_right: bool, head: &[u8], expected: &'a Body) -> Self {
        let wrong = (!is_right).then(|| head::text(head::first_line(head)) + ": ");
        Self { expected, taken: 0, wrong }
    }

    fn take(&mut self, piece: &[u8]) {
        let end = self.taken + piece.len();
        match &mut self.wrong {
            Some(told) if told.len() < TOLD => told.push_str(&head::text(&piece[..piece.len().min(TOLD)])),
            Some(_) => {}
            None if self.expected.has(self.taken, piece) => {}
            None => self.wrong = Some(format!("the body differs in bytes {} to {end}", self.taken)),
        }
        self.taken = end;
    }
}
