//! The application behind the gateway: tells what it got, and misbehaves on request.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use super::DEADLINE;
use super::client::Response;
use super::server::{After, Exchange, Handler, Server};
use super::wire;

/// An application.
///
/// Every path tells what it got, as JSON ([`Echo`]). Besides: `/sse` (one event, the next at
/// [`Upstream::go_on`]), `/ws` (echoes messages), `/big?bytes=N`, and what [`Upstream::answers`] and
/// [`Upstream::waits_at`] add.
pub struct Upstream {
    server: Option<Server>,
    state: Arc<State>,
    scheme: &'static str,
}

#[derive(Default)]
struct State {
    hits: AtomicUsize,
    turns: Mutex<usize>,
    turned: Condvar,
    raw: Mutex<HashMap<String, Vec<u8>>>,
    waits: Mutex<Vec<String>>,
}

/// What the application got.
#[derive(Debug)]
pub struct Echo {
    /// The request line.
    pub line: String,
    /// The fields, in order and spelling.
    pub fields: Vec<(String, String)>,
    /// Bytes of body.
    pub body_bytes: u64,
    /// Which connection of the application, from 1.
    pub connection: u64,
    /// Which request of the application, from 1.
    pub hit: u64,
}

impl Echo {
    /// Reads what the application told.
    ///
    /// # Panics
    /// When the answer is not the application's.
    pub fn of(response: &Response) -> Self {
        assert_eq!(response.status, 200, "not the application: {}", response.text());
        let told = response.json();
        let number = |name: &str| told[name].as_u64().expect("the echo has its numbers");
        Self {
            line: told["line"].as_str().expect("the echo has a line").to_owned(),
            fields: serde_json::from_value(told["fields"].clone()).expect("the echo has fields"),
            body_bytes: number("body_bytes"),
            connection: number("connection"),
            hit: number("hit"),
        }
    }

    /// The value of the only field of this name.
    ///
    /// # Panics
    /// When there are several.
    pub fn one(&self, name: &str) -> Option<&str> {
        wire::one(&self.fields, name)
    }
}

impl Upstream {
    /// Starts one on a free port.
    pub fn start() -> Self {
        Self::start_with(super::ports::free(), None)
    }

    /// Starts one on a port where another one was.
    pub fn start_at(port: u16) -> Self {
        Self::start_with(port, None)
    }

    /// Starts one that speaks TLS.
    pub fn start_tls(config: Arc<rustls::ServerConfig>) -> Self {
        Self::start_with(super::ports::free(), Some(config))
    }

    fn start_with(port: u16, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let state = Arc::<State>::default();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let server = Server::start_at(port, tls, handler(&state));
        Self { server: Some(server), state, scheme }
    }

    /// Its URL for a route; the host is a name, so that it has to be resolved.
    pub fn url(&self) -> String {
        format!("{}://localhost:{}", self.scheme, self.server().address().port())
    }

    /// How many requests came so far.
    pub fn hits(&self) -> usize {
        self.state.hits.load(Ordering::SeqCst)
    }

    /// How many connections came so far.
    pub fn connections(&self) -> usize {
        self.server().connections()
    }

    /// Answers this path with these bytes, as they are, and closes.
    pub fn answers(&self, path: &str, bytes: &[u8]) {
        self.state.raw.lock().unwrap().insert(path.into(), bytes.into());
    }

    /// Answers this path only at [`Upstream::go_on`].
    pub fn waits_at(&self, path: &str) {
        self.state.waits.lock().unwrap().push(path.into());
    }

    /// Lets a handler that waits take its next step.
    pub fn go_on(&self) {
        *self.state.turns.lock().unwrap() += 1;
        self.state.turned.notify_all();
    }

    /// Closes all connections and stops listening.
    pub fn stop(&mut self) {
        drop(self.server.take());
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("the application runs")
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // Nobody waits for a turn any more.
        *self.state.turns.lock().unwrap() += 1000;
        self.state.turned.notify_all();
    }
}

impl State {
    /// Waits for the test to say [`Upstream::go_on`] once more than `before` times.
    fn wait_for_turn(&self, before: usize) {
        let turns = self.turns.lock().unwrap();
        let waited = self.turned.wait_timeout_while(turns, DEADLINE * 2, |turns| *turns <= before);
        assert!(!waited.unwrap().1.timed_out(), "the test never said go on");
    }
}

fn handler(state: &Arc<State>) -> Arc<Handler> {
    let state = Arc::clone(state);
    Arc::new(move |exchange: &mut Exchange| {
        let hit = state.hits.fetch_add(1, Ordering::SeqCst) + 1;
        let path = exchange.path().to_owned();
        let scripted = state.raw.lock().unwrap().get(&path).cloned();
        if let Some(bytes) = scripted {
            exchange.read_body(|_| {})?;
            exchange.send(&bytes)?;
            return Ok(After::Close);
        }
        if state.waits.lock().unwrap().contains(&path) {
            state.wait_for_turn(0);
        }
        match path.as_str() {
            "/sse" => events(&state, exchange),
            "/ws" => web_socket(exchange),
            "/big" => big(exchange),
            _ => echo(exchange, hit),
        }
    })
}

fn echo(exchange: &mut Exchange, hit: usize) -> io::Result<After> {
    let mut body_bytes = 0;
    exchange.read_body(|piece| body_bytes += piece.len() as u64)?;
    let told: Value = json!({
        "line": exchange.head.line,
        "fields": exchange.head.fields,
        "body_bytes": body_bytes,
        "connection": exchange.connection,
        "hit": hit,
    });
    exchange.answer(200, &[("Content-Type", "application/json")], told.to_string().as_bytes())
}

fn events(state: &State, exchange: &mut Exchange) -> io::Result<After> {
    exchange
        .send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    for turn in 0..3 {
        let event = format!("data: {turn}\n\n");
        exchange.send(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
        state.wait_for_turn(turn);
    }
    exchange.send(b"0\r\n\r\n")?;
    Ok(After::Close)
}

fn web_socket(exchange: &mut Exchange) -> io::Result<After> {
    let key = exchange.head.one("sec-websocket-key").ok_or(io::ErrorKind::InvalidData)?;
    let accept = derive_accept_key(key.as_bytes());
    exchange.send(
        format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nSet-Cookie: from-the-application=1\r\n\r\n")
            .as_bytes(),
    )?;
    let mut socket = WebSocket::from_raw_socket(exchange.stream(), Role::Server, None);
    while let Ok(message) = socket.read() {
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            socket.send(message).map_err(io::Error::other)?;
        }
    }
    Ok(After::Close)
}

/// Sends so many bytes that they can't have been held anywhere.
fn big(exchange: &mut Exchange) -> io::Result<After> {
    let bytes: usize = exchange.parameter("bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
    exchange.read_body(|_| {})?;
    exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").as_bytes())?;
    let piece = vec![b'x'; 1 << 16];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(piece.len());
        exchange.send(&piece[..now])?;
        left -= now;
    }
    Ok(After::KeepAlive)
}
