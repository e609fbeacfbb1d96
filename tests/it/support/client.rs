//! A client that sends what it is told and shows what came back.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::DEADLINE;
use super::wire::{Duplex, Framing, Head};

/// A request, written as it stands.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// A request without a body.
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.into(), target: target.into(), fields: Vec::new(), body: Vec::new() }
    }

    /// A GET.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// The same with one more field.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// The same with a body and its length.
    #[must_use]
    pub fn with_body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        let length = body.len().to_string();
        self.with("Content-Length", &length)
    }

    /// The same as a form.
    #[must_use]
    pub fn with_form(self, fields: &[(String, String)]) -> Self {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.with("Content-Type", "application/x-www-form-urlencoded").with_body(form.as_bytes())
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.fields {
            write!(head, "{name}: {value}\r\n").expect("a String takes everything");
        }
        head.push_str("\r\n");
        // Characters up to 255 go out as the byte of that number, as `Head` reads them.
        let mut bytes: Vec<u8> = head.chars().map(|char| u8::try_from(char).expect("latin-1")).collect();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Status line and fields.
    pub head: Head,
    /// The body, without its transfer coding.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of the only field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.one(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }
}

/// How to reach a server.
#[derive(Clone)]
pub struct Place {
    /// Where.
    pub address: SocketAddr,
    /// With TLS: whom to trust, and the name to ask for.
    pub tls: Option<(Arc<rustls::ClientConfig>, String)>,
    /// The address of this machine that it is reached from, where that matters.
    pub from: Option<Ipv4Addr>,
}

impl Place {
    /// A server without TLS.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None, from: None }
    }

    /// The same, reached from an address of this machine: any of 127.0.0.0/8.
    #[must_use]
    pub fn from(self, address: Ipv4Addr) -> Self {
        Self { from: Some(address), ..self }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When nobody listens there, or TLS fails.
    pub fn connect(&self) -> io::Result<Connection> {
        self.connect_behind(b"")
    }

    /// Opens a connection that begins with these bytes, before TLS.
    ///
    /// # Errors
    /// As [`Place::connect`].
    pub fn connect_behind(&self, beginning: &[u8]) -> io::Result<Connection> {
        let mut tcp = match self.from {
            None => TcpStream::connect_timeout(&self.address, DEADLINE)?,
            Some(from) => connect_from(from, self.address)?,
        };
        tcp.write_all(beginning)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(DEADLINE))?;
        tcp.set_write_timeout(Some(DEADLINE))?;
        let handle = tcp.try_clone()?;
        let stream = match &self.tls {
            None => Duplex::new(tcp),
            Some((config, name)) => {
                let name = name.clone().try_into().map_err(io::Error::other)?;
                let mut session =
                    rustls::ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                let mut tcp = tcp;
                session.complete_io(&mut tcp)?;
                Duplex::new(rustls::StreamOwned::new(session, tcp))
            }
        };
        Ok(Connection { stream, handle })
    }

    /// Sends one request on a connection of its own.
    ///
    /// # Panics
    /// When no answer comes.
    pub fn request(&self, request: &Request) -> Response {
        self.connect().expect("the server accepts").request(request)
    }
}

/// The standard library binds no socket before it connects.
fn connect_from(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        tokio::time::timeout(DEADLINE, socket.connect(to)).await?
    })?;
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// An open connection.
pub struct Connection {
    stream: Duplex,
    handle: TcpStream,
}

impl Connection {
    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the other side is gone.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Sends a request and reads its answer.
    ///
    /// # Panics
    /// When no answer comes.
    pub fn request(&mut self, request: &Request) -> Response {
        self.send(&request.bytes()).expect("the request can be sent");
        self.response_to(&request.method)
    }

    /// Reads the answer to a request with this method; passes over 1xx but 101.
    ///
    /// # Panics
    /// When none comes.
    pub fn response_to(&mut self, method: &str) -> Response {
        let (status, head, framing) = self.response_head(method);
        let body = framing.read_whole(&mut self.stream).expect("the body is whole");
        Response { status, head, body }
    }

    /// Reads the head of an answer, and says how its body ends; passes over 1xx but 101.
    ///
    /// # Panics
    /// When none comes.
    pub fn response_head(&mut self, method: &str) -> (u16, Head, Framing) {
        loop {
            let head = self.read_head().expect("an answer comes");
            let status = status_of(&head);
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let empty = method == "HEAD" || matches!(status, 101 | 204 | 304);
            let framing = if empty { Framing::Length(0) } else { head.framing(false) };
            return (status, head, framing);
        }
    }

    /// Reads the next head, whatever its status; `None` where the server closed.
    pub fn read_head(&mut self) -> Option<Head> {
        Head::read(&mut self.stream).expect("the head is whole")
    }

    /// The stream, for bodies read piece by piece and for what is not HTTP any more.
    pub fn stream(&mut self) -> &mut Duplex {
        &mut self.stream
    }

    /// Gives the stream away.
    pub fn into_stream(self) -> Duplex {
        self.stream
    }

    /// Whether the server closes the connection within `patience`, sending nothing more.
    pub fn is_closed_within(&mut self, patience: Duration) -> bool {
        self.handle.set_read_timeout(Some(patience)).unwrap();
        let closed = match Head::read(&mut self.stream) {
            Ok(head) => head.is_none(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        };
        self.handle.set_read_timeout(Some(DEADLINE)).unwrap();
        closed
    }
}

/// The status in a status line.
pub fn status_of(head: &Head) -> u16 {
    let status = head.line.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no status line: {}", head.line))
}
