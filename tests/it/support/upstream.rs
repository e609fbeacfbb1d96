//! The application behind the gateway: tells what it got, and misbehaves on request.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use super::client::Response;
use super::server::{After, Exchange, Handler, Server};
use super::wire::{self, Head};
use super::{DEADLINE, lax, wait_for};

/// So many bytes of a body are told.
const TOLD_BYTES: usize = 4096;

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
    raw: Mutex<HashMap<String, Script>>,
    waits: Mutex<Vec<String>>,
    seen: Mutex<Vec<Head>>,
    is_lax: bool,
    breaches: Mutex<Vec<String>>,
    left: AtomicUsize,
}

/// What a path is answered with, byte for byte.
#[derive(Clone)]
struct Script {
    answer: Vec<u8>,
    then: Then,
}

/// What comes after such an answer.
#[derive(Clone)]
enum Then {
    Close,
    KeepAlive,
    /// At [`Upstream::go_on`] these bytes, which nobody asked for; then it waits for the other side to leave.
    Send(Vec<u8>),
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
    /// The beginning of the body, each byte as the character of its number.
    pub body: String,
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
            body: told["body"].as_str().expect("the echo has a body").to_owned(),
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

    /// Starts one that reads requests as laxly as applications do ([`lax`]), and notes whom it served
    /// what only `root` may see.
    pub fn start_lax() -> Self {
        Self::start_in_state(super::ports::free(), None, State { is_lax: true, ..State::default() })
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
        Self::start_in_state(port, tls, State::default())
    }

    fn start_in_state(port: u16, tls: Option<Arc<rustls::ServerConfig>>, state: State) -> Self {
        let state = Arc::new(state);
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

    /// The head of every request so far.
    pub fn seen(&self) -> Vec<Head> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The request line of every request so far.
    pub fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|head| head.line).collect()
    }

    /// What a lax application served to somebody who had no right to it.
    pub fn breaches(&self) -> Vec<String> {
        self.state.breaches.lock().unwrap().clone()
    }

    /// How many connections came so far.
    pub fn connections(&self) -> usize {
        self.server().connections()
    }

    /// Answers this path with these bytes, as they are, and closes.
    pub fn answers(&self, path: &str, bytes: &[u8]) {
        self.script(path, bytes, Then::Close);
    }

    /// Answers this path with these bytes, as they are, and keeps the connection.
    pub fn answers_and_stays(&self, path: &str, bytes: &[u8]) {
        self.script(path, bytes, Then::KeepAlive);
    }

    /// Answers this path with these bytes, as they are, and at [`Upstream::go_on`] sends more.
    pub fn answers_and_goes_on(&self, path: &str, bytes: &[u8], more: &[u8]) {
        self.script(path, bytes, Then::Send(more.into()));
    }

    fn script(&self, path: &str, bytes: &[u8], then: Then) {
        self.state.raw.lock().unwrap().insert(path.into(), Script { answer: bytes.into(), then });
    }

    /// Waits until the gateway has left a connection of [`Upstream::answers_and_goes_on`].
    pub fn wait_until_left(&self) {
        wait_for("the connection to be left", || (self.state.left.load(Ordering::SeqCst) > 0).then_some(()));
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
    fn note(&self, head: &Head) {
        self.seen.lock().unwrap().push(head.clone());
        if self.is_lax && lax::is_breach(head) {
            self.breaches.lock().unwrap().push(format!("{head:?}"));
        }
    }

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
        state.note(&exchange.head);
        let path = exchange.path().to_owned();
        let scripted = state.raw.lock().unwrap().get(&path).cloned();
        if let Some(script) = scripted {
            return play(&state, exchange, &script);
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

fn play(state: &State, exchange: &mut Exchange, script: &Script) -> io::Result<After> {
    exchange.read_body(|_| {})?;
    exchange.send(&script.answer)?;
    match &script.then {
        Then::Close => Ok(After::Close),
        Then::KeepAlive => Ok(After::KeepAlive),
        Then::Send(more) => {
            state.wait_for_turn(0);
            // Whoever has left already has left.
            let _ = exchange.send(more).and_then(|()| io::copy(exchange.stream(), &mut io::sink()));
            state.left.fetch_add(1, Ordering::SeqCst);
            Ok(After::Close)
        }
    }
}

fn echo(exchange: &mut Exchange, hit: usize) -> io::Result<After> {
    let (mut body_bytes, mut body) = (0, String::new());
    exchange.read_body(|piece| {
        body_bytes += piece.len() as u64;
        let left = TOLD_BYTES.saturating_sub(body.chars().count());
        body.extend(piece.iter().take(left).map(|&byte| char::from(byte)));
    })?;
    let told: Value = json!({
        "line": exchange.head.line,
        "fields": exchange.head.fields,
        "body_bytes": body_bytes,
        "body": body,
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
