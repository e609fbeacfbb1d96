//! Connections: from an accepted socket to whole request heads.
//!
//! The first stage of the request path. It takes a permit that is held until the connection ends,
//! does TLS under a deadline, reads each request head under a total deadline and by a strict grammar
//! ([`super::head`]), and hands it to Pingora with [`ServerSession::set_pipelined_prefix`]. Pingora's
//! own listening service can do none of that: it times single reads, not heads, and accepts what it
//! can parse. Between the permit and TLS stand the PROXY protocol ([`super::proxy_protocol`]) and the limit by
//! address ([`super::crowd`]).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use pingora::apps::HttpServerApp as _;
use pingora::prelude::timeout;
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use super::crowd::{Crowd, Full};
use super::drain::Drain;
use super::edge::{Edge, Exchange};
use super::head::{self, Head, HeadError, Limits, METHODS, Scanner};
use super::http2;
use super::life::{Client, Cut, Life, Record};
use super::pace::{Pace, Upload};
use super::proxy_protocol::{self, HeaderError, Source};
use super::tls::Acceptor;
use super::transport::{Socket, Transport, Wire};
use crate::config::ServerSettings;
use crate::gateway::Refusal;
use crate::session::cookie::attempts_in;
use crate::telemetry::Events;
use crate::web::host::LastHost;
use crate::web::proxies::TrustedProxies;
use crate::web::{RequestId, cookie};

/// How long the listener rests after the system refused it a socket: without that it would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long, and how much, is read from a client that still sends when its connection is closed:
/// closing at once would reset it, and the answer could be lost on its way.
pub(super) const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;

/// How long a client may take to receive an answer that is written here.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What all connections share.
pub(super) struct Door {
    pub(super) proxy: Arc<HttpProxy<Edge>>,
    pub(super) shutdown: ShutdownWatch,
    pub(super) drain: Arc<Drain>,
    pub(super) events: Events,
    permits: Arc<Semaphore>,
    proxies: Arc<TrustedProxies>,
    crowd: Arc<Crowd>,
    pub(super) limits: Limits,
    pub(super) max_requests: usize,
    pace: Pace,
    pub(super) head_timeout: Duration,
    handshake_timeout: Duration,
    pub(super) keepalive_timeout: Duration,
    /// `None`: no listener offers it.
    pub(super) http2: Option<http2::Bounds>,
}

/// A listener's own, in one of the threads that accept from it.
pub(super) struct Entrance {
    listener: TcpListener,
    way: Way,
    /// Whose turn it is among these threads.
    turn: Arc<Mutex<()>>,
}

/// How connections of a listener come in.
#[derive(Clone)]
pub(super) struct Way {
    /// TLS of its own.
    pub(super) acceptor: Option<Acceptor>,
    /// The port.
    pub(super) local_port: u16,
    /// Whether each begins with a PROXY header.
    pub(super) proxy_protocol: bool,
}

impl Entrance {
    /// A listener.
    pub(super) const fn new(listener: TcpListener, way: Way, turn: Arc<Mutex<()>>) -> Self {
        Self { listener, way, turn }
    }
}

/// How a connection goes on after its wait for a request head.
enum Next {
    Head(Box<Head>),
    /// The client left, or was idle for too long, or the server closes.
    Close,
    /// With as much of the head as is known.
    Refuse(HeadError, Bytes),
}

impl Door {
    /// The door to `proxy`.
    pub(super) fn new(
        proxy: HttpProxy<Edge>,
        drain: Arc<Drain>,
        events: Events,
        settings: &ServerSettings,
    ) -> Arc<Self> {
        Arc::new(Self {
            proxy: Arc::new(proxy),
            shutdown: drain.shutdown_watch(),
            drain,
            events,
            permits: Arc::new(Semaphore::new(settings.max_connections.min(Semaphore::MAX_PERMITS))),
            proxies: Arc::clone(&settings.trusted_proxies),
            crowd: Crowd::new(settings.max_connections_per_address, Arc::clone(&settings.trusted_proxies)),
            limits: Limits {
                bytes: settings.max_request_head_bytes,
                target_bytes: settings.max_request_target_bytes,
                fields: settings.max_request_headers,
            },
            max_requests: settings.max_requests_per_connection,
            pace: Pace {
                idle: settings.body_idle_timeout,
                bytes_per_second: settings.min_body_bytes_per_second,
            },
            head_timeout: settings.request_head_timeout,
            handshake_timeout: settings.tls_handshake_timeout,
            keepalive_timeout: settings.keepalive_timeout,
            http2: settings.http2.map(|http2| http2::Bounds::new(http2, settings)),
        })
    }

    /// Accepts connections until the server closes; each runs as a task of the present runtime.
    ///
    /// A permit is taken before a connection is accepted: above the limit clients wait in the
    /// system's queue. Of the threads that accept from a listener one at a time has it and waits: where each
    /// held one, those of one listener could hold the last ones, and nobody would get in by another.
    pub(super) async fn accept(self: Arc<Self>, entrance: Entrance) {
        let accepting = async {
            loop {
                let _turn = entrance.turn.lock().await;
                let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return };
                match entrance.listener.accept().await {
                    Ok((stream, peer)) => self.spawn(stream, peer, &entrance, permit),
                    Err(error) => {
                        tracing::warn!(event = "accept_failed", %error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = self.drain.closing().cancelled() => {}
            () = accepting => {}
        }
    }

    fn spawn(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        entrance: &Entrance,
        permit: OwnedSemaphorePermit,
    ) {
        let (door, way) = (Arc::clone(self), entrance.way.clone());
        Handle::current().spawn(async move {
            door.admit(stream, peer.ip(), way).await;
            drop(permit);
        });
    }

    /// Learns who it is, and lets in who has not too many connections already. Whoever is not let in is closed at
    /// once: an answer would cost what the limit is there to save.
    async fn admit(self: &Arc<Self>, mut stream: TcpStream, peer: IpAddr, way: Way) {
        let Some(client) = self.client(&mut stream, peer, &way).await else { return };
        match self.crowd.enter(client.address) {
            Ok(_place) => self.connect(stream, way.acceptor, Arc::new(client)).await,
            Err(Full { is_news }) => {
                let detail = "it has max_connections_per_address already";
                self.events.connection_refused("address_limit", client.address, detail, is_news);
            }
        }
    }

    /// Whose connection it is, as far as the connection itself says; `None`: it is not taken.
    async fn client(&self, stream: &mut TcpStream, peer: IpAddr, way: &Way) -> Option<Client> {
        let (port, tls) = (way.local_port, way.acceptor.is_some());
        if !way.proxy_protocol {
            return Some(Client::new(peer, port, tls, &self.proxies));
        }
        if !self.proxies.contain(peer) {
            let detail = "it is not one of trusted_proxies";
            self.events.connection_refused("not_a_proxy", peer.to_canonical(), detail, false);
            return None;
        }
        match Box::pin(self.announced(stream)).await {
            Ok(Source::Client(address)) => Some(Client::new(address, port, tls, &self.proxies)),
            // Whoever is behind it may write headers, which the proxy did not look at.
            Ok(Source::Proxy) => Some(Client::new(peer, port, tls, &Arc::default())),
            Err(HeaderError::Nothing) => None,
            Err(error) => {
                let detail = error.to_string();
                self.events.connection_refused("proxy_header", peer.to_canonical(), &detail, true);
                None
            }
        }
    }

    async fn announced(&self, stream: &mut TcpStream) -> Result<Source, HeaderError> {
        let read = timeout(self.handshake_timeout, proxy_protocol::read(stream)).await;
        read.unwrap_or(Err(HeaderError::TooSlow))
    }

    async fn connect(self: &Arc<Self>, stream: TcpStream, acceptor: Option<Acceptor>, client: Arc<Client>) {
        // Failing is harmless: answers may come later by a few milliseconds.
        let _ = stream.set_nodelay(true);
        match self.secure(stream, acceptor).await {
            // Boxed: a connection of HTTP/1 does without.
            Ok(socket) if socket.is_http2() => Box::pin(http2::serve(self, socket, client)).await,
            Ok(socket) => self.serve(Box::new(Wire::new(socket)), client).await,
            Err(error) => tracing::debug!(event = "tls_handshake_failed", client = %client.address, %error),
        }
    }

    async fn secure(&self, stream: TcpStream, acceptor: Option<Acceptor>) -> io::Result<Socket> {
        let Some(acceptor) = acceptor else { return Ok(Socket::Plain(stream)) };
        let acceptor = acceptor.load_full();
        let handshake = acceptor.accept(Socket::buffered(stream));
        match timeout(self.handshake_timeout, handshake).await {
            Ok(stream) => Ok(Socket::Tls(Box::new(stream?))),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long")),
        }
    }

    /// Serves request after request.
    async fn serve(&self, mut wire: Box<Wire>, client: Arc<Client>) {
        let life = Arc::new(Life::new(Arc::clone(&self.drain)));
        // A client that connects and says nothing has less patience coming than one that came back.
        let patience = Patience::new(self.head_timeout);
        let mut impatience = pin!(self.impatience(&patience));
        let mut requests_left = self.max_requests;
        let mut last_host = LastHost::default();
        loop {
            let head = match self.next_head(&mut wire, &mut last_host, impatience.as_mut()).await {
                Next::Head(head) => head,
                Next::Close => return,
                Next::Refuse(error, head) => return self.refuse(*wire, error, &head, &client, &life).await,
            };
            if head.asks_server {
                return self.answer_asterisk(*wire, &head, &client, &life).await;
            }
            requests_left = requests_left.saturating_sub(1);
            match self.exchange(wire, head, &life, &client, requests_left == 0).await {
                Some(back) => wire = back,
                None => return,
            }
            patience.last(self.keepalive_timeout);
        }
    }

    /// Resolves when the server closes, or when patience is over.
    ///
    /// One such wait lasts as long as its connection: a timer and a place in a list of waiters for
    /// each request would cost more than reading the request.
    async fn impatience(&self, patience: &Patience) {
        tokio::select! {
            () = self.drain.closing().cancelled() => {}
            () = patience.end(self.keepalive_timeout) => {}
        }
    }

    /// Waits for the next request head: impatiently for its first byte, then under one deadline.
    async fn next_head(
        &self,
        wire: &mut Wire,
        last_host: &mut LastHost,
        impatience: Pin<&mut impl Future<Output = ()>>,
    ) -> Next {
        if wire.ahead().is_empty() && !read_first(wire, impatience).await {
            return Next::Close;
        }
        let mut scanner = Scanner::default();
        let mut deadline = None;
        loop {
            match scanner.find_end(wire.ahead(), self.limits) {
                Ok(Some(end)) => return parse(take(wire.ahead(), end).freeze(), self.limits, last_host),
                Ok(None) => {}
                Err(error) => return Next::Refuse(error, std::mem::take(wire.ahead()).freeze()),
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.head_timeout);
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, wire.read_ahead()).await {
                Ok(Ok(read)) if read > 0 => {}
                Ok(_) => return Next::Close,
                Err(_) => return Next::Refuse(HeadError::TooSlow, Bytes::new()),
            }
        }
    }

    /// One request and its answer, the last one perhaps. Gives the wire back where another request may follow.
    async fn exchange(
        &self,
        mut wire: Box<Wire>,
        head: Box<Head>,
        life: &Arc<Life>,
        client: &Arc<Client>,
        is_last: bool,
    ) -> Option<Box<Wire>> {
        let _counted = life.begin();
        let frame = head.frame();
        wire.begin(head.framing, Upload::new(self.pace, head.expects_continue));
        let record = Record::new(&self.events, Arc::clone(client), Arc::clone(life), head.method);
        let id = record.id;
        let exchange = Exchange::new(head, record, Arc::clone(life)).ending_connection(is_last);
        let mut session = ServerSession::new_http1(Box::new(Transport::new(wire, Arc::clone(life))));
        session.set_pipelined_prefix(frame);
        session.set_connection_user_context(Some(Box::new(exchange)));
        // Whatever Pingora gives back is dropped in here: the wire comes back by that.
        let answer = async { self.proxy.process_new_http(session, &self.shutdown).await.is_some() };
        let answered = life.live(answer).await;
        let mut wire = life.take_back()?;
        match answered {
            // Where the two framings differ, the connection has no next request.
            Ok(true) if wire.is_between_requests() && !self.drain.is_closing() => return Some(wire),
            Err(Cut::NoAnswer) => {
                write_and_close(*wire, Answer::SLOW_UPSTREAM.text(&id, "").as_bytes()).await;
            }
            Ok(_) | Err(Cut::SessionEnded | Cut::Silent) => {
                let may_still_send = !wire.is_between_requests() || !wire.ahead().is_empty();
                close(*wire, may_still_send && !life.is_tunnel()).await;
            }
        }
        None
    }

    async fn refuse(
        &self,
        wire: Wire,
        error: HeadError,
        head: &[u8],
        client: &Arc<Client>,
        life: &Arc<Life>,
    ) {
        let mut record = Record::new(&self.events, Arc::clone(client), Arc::clone(life), "");
        let answer = Answer::of(error);
        record.refusal = Some(answer.refusal);
        record.status = answer.status;
        record.tell("", "");
        tracing::debug!(event = "request_head_refused", request_id = %record.id, reason = %error);
        let deletions = match error {
            HeadError::TooLarge => deletions(head).iter().filter_map(set_cookie).collect(),
            HeadError::Malformed(_)
            | HeadError::Method
            | HeadError::TargetTooLong
            | HeadError::Expectation
            | HeadError::TooSlow => String::new(),
        };
        write_and_close(wire, answer.text(&record.id, &deletions).as_bytes()).await;
    }

    /// `OPTIONS *` asks the server itself, and never an upstream (PP-2).
    async fn answer_asterisk(&self, wire: Wire, head: &Head, client: &Arc<Client>, life: &Arc<Life>) {
        let mut record = Record::new(&self.events, Arc::clone(client), Arc::clone(life), head.method);
        record.status = 204;
        record.tell(head.host.name(), "*");
        let allow = METHODS.join(", ");
        let text = format!("HTTP/1.1 204 No Content\r\nAllow: {allow}\r\nConnection: close\r\n\r\n");
        write_and_close(wire, text.as_bytes()).await;
    }
}

/// Until when a connection may be idle.
struct Patience {
    opened: Instant,
    /// Milliseconds since `opened`.
    ends: AtomicU64,
}

impl Patience {
    fn new(time: Duration) -> Self {
        let patience = Self { opened: Instant::now(), ends: AtomicU64::new(0) };
        patience.last(time);
        patience
    }

    /// Lasts so long from now on.
    fn last(&self, time: Duration) {
        let ends = u64::try_from((self.opened.elapsed() + time).as_millis()).unwrap_or(u64::MAX);
        self.ends.store(ends, Ordering::Relaxed);
    }

    /// Waits for its end, which may move meanwhile; `at_least_every` is when that is looked at.
    async fn end(&self, at_least_every: Duration) {
        loop {
            let ends = Duration::from_millis(self.ends.load(Ordering::Relaxed));
            let left = ends.saturating_sub(self.opened.elapsed());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(at_least_every)).await;
        }
    }
}

/// Waits for the first bytes of a head; says whether there are any.
async fn read_first(wire: &mut Wire, impatience: Pin<&mut impl Future<Output = ()>>) -> bool {
    tokio::select! {
        // The read first: a request that is there already is served.
        biased;
        read = wire.read_ahead() => matches!(read, Ok(1..)),
        () = impatience => false,
    }
}

/// What a browser may drop for its next head to be smaller: the sign-ins under way.
pub(super) fn deletions(head: &[u8]) -> Vec<HeaderValue> {
    attempts_in(head).into_iter().map(|(name, secure)| cookie::delete(name, secure)).collect()
}

fn set_cookie(value: &HeaderValue) -> Option<String> {
    Some(format!("Set-Cookie: {}\r\n", value.to_str().ok()?))
}

/// The answer to a head that was not understood: there is no request that a page could be made for.
pub(super) struct Answer {
    pub(super) status: u16,
    reason: &'static str,
    pub(super) refusal: Refusal,
}

impl Answer {
    const SLOW_UPSTREAM: Self =
        Self { status: 504, reason: "Gateway Timeout", refusal: Refusal::UpstreamTimeout };

    pub(super) const fn of(error: HeadError) -> Self {
        let (status, reason, refusal) = match error {
            HeadError::Malformed(_) => (400, "Bad Request", Refusal::BadRequest),
            HeadError::Method => (405, "Method Not Allowed", Refusal::MethodNotAllowed),
            HeadError::TooSlow => (408, "Request Timeout", Refusal::BadRequest),
            HeadError::TargetTooLong => (414, "URI Too Long", Refusal::BadRequest),
            HeadError::Expectation => (417, "Expectation Failed", Refusal::BadRequest),
            HeadError::TooLarge => (431, "Request Header Fields Too Large", Refusal::BadRequest),
        };
        Self { status, reason, refusal }
    }

    /// What it says.
    pub(super) fn body(&self, id: &RequestId) -> String {
        let Self { status, reason, refusal } = self;
        format!("{status} {reason}\ncode: {}\nrequest id: {id}\n", refusal.code())
    }

    /// The answer, with more fields, each ended.
    fn text(&self, id: &RequestId, more: &str) -> String {
        let Self { status, reason, .. } = self;
        let body = self.body(id);
        let allow = if *status == 405 { format!("Allow: {}\r\n", METHODS.join(", ")) } else { String::new() };
        format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             {allow}{more}Connection: close\r\n\r\n{body}",
            body.len()
        )
    }
}

fn parse(bytes: Bytes, limits: Limits, last_host: &mut LastHost) -> Next {
    match head::parse(&bytes, limits, last_host) {
        Ok(head) => Next::Head(head),
        Err(error) => Next::Refuse(error, bytes),
    }
}

/// The bytes of a head; what follows stays.
fn take(ahead: &mut BytesMut, end: usize) -> BytesMut {
    // Splitting at the very end would make the rest share, and keep, the head's memory.
    if ahead.len() == end { std::mem::take(ahead) } else { ahead.split_to(end.min(ahead.len())) }
}

async fn write_and_close(mut wire: Wire, text: &[u8]) {
    let write = async {
        wire.socket().write_all(text).await?;
        wire.socket().flush().await
    };
    if let Ok(Ok(())) = timeout(WRITE_TIMEOUT, write).await {
        close(wire, true).await;
    }
}

/// Closes a connection. Where the client may still be sending, that is read for a moment and dropped.
pub(super) async fn close(mut wire: Wire, linger: bool) {
    // A client that is gone by now is no error.
    let _ = timeout(LINGER, async {
        wire.socket().shutdown().await?;
        if linger { discard(&mut wire).await } else { Ok(()) }
    })
    .await;
}

async fn discard(wire: &mut Wire) -> io::Result<()> {
    let mut left = LINGER_BYTES;
    while left > 0 {
        wire.ahead().clear();
        match wire.read_ahead().await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}
