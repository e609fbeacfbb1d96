//! How long a request lives, and what is told of it when it is over.
//!
//! A request ends with its answer, or before that when its session ends or its WebSocket falls
//! silent: [`Life::live`] races the work against both. Dropping the work skips Pingora's own
//! `logging` phase, so the access event, of which [`Record`] knows most, is written when the exchange
//! is dropped: once for each request, also for one that was cancelled or panicked.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::HeaderValue;

use super::drain::Drain;
use super::transport::Wire;
use crate::gateway::sessions::Serving;
use crate::gateway::{ForwardPlan, LastCookie, Refusal};
use crate::telemetry::Events;
use crate::telemetry::events::{Access, InFlight};
use crate::web::RequestId;
use crate::web::client_addr::forwarded_for;
use crate::web::proxies::TrustedProxies;

/// Why a request was ended before its answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Its session is over.
    SessionEnded,
    /// The upstream did not say in time whether it takes the WebSocket.
    NoAnswer,
    /// Nothing was heard of the WebSocket for too long, from either side.
    Silent,
}

/// One connection's request in progress, as its three sides see it: the connection that started it,
/// the edge that decides on it, the transport that carries it.
pub(super) struct Life {
    drain: Arc<Drain>,
    opened: Instant,
    /// Milliseconds since `opened`.
    last_traffic: AtomicU64,
    tunnel: AtomicBool,
    answered: AtomicBool,
    /// Whether the request in progress has a limit on its silence.
    limited: AtomicBool,
    request: Mutex<InProgress>,
    cut: OnceLock<Cut>,
    returned: Mutex<Option<Box<Wire>>>,
}

#[derive(Default)]
struct InProgress {
    serving: Option<Serving>,
    silence: Option<Silence>,
}

/// How long a WebSocket may be silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    /// Until the upstream agrees to it; within the answer, where it doesn't.
    pub(super) before: Duration,
    /// Once it has agreed.
    pub(super) after: Duration,
}

impl Life {
    pub(super) fn new(drain: Arc<Drain>) -> Self {
        Self {
            drain,
            opened: Instant::now(),
            last_traffic: AtomicU64::new(0),
            tunnel: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            limited: AtomicBool::new(false),
            request: Mutex::default(),
            cut: OnceLock::new(),
            returned: Mutex::default(),
        }
    }

    /// Counts a request in until the returned value is dropped, or until it becomes a tunnel: a
    /// WebSocket never ends by itself, so no drain waits for one.
    pub(super) fn begin(self: &Arc<Self>) -> Counted {
        *lock(&self.request) = InProgress::default();
        self.answered.store(false, Ordering::Relaxed);
        self.limited.store(false, Ordering::Relaxed);
        self.drain.enter();
        Counted(Arc::clone(self))
    }

    /// The request is to end with this session.
    pub(super) fn ends_with(&self, serving: Serving) {
        lock(&self.request).serving = Some(serving);
    }

    /// The request asks for a WebSocket.
    pub(super) fn limit_silence(&self, silence: Silence) {
        self.note_traffic();
        lock(&self.request).silence = Some(silence);
        self.limited.store(true, Ordering::Relaxed);
    }

    /// The upstream's answer begins.
    pub(super) fn note_answer(&self) {
        if self.limited.load(Ordering::Relaxed) {
            self.note_traffic();
        }
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether the upstream's answer has begun.
    pub(super) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// The upstream agreed to a WebSocket: what follows is not HTTP.
    pub(super) fn become_tunnel(&self) {
        if !self.tunnel.swap(true, Ordering::Relaxed) {
            self.drain.leave();
        }
    }

    /// Whether the connection is a WebSocket by now.
    pub(super) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Relaxed)
    }

    /// Something of a WebSocket, or of the answer in its place, went through.
    pub(super) fn note_traffic(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_traffic.store(now, Ordering::Relaxed);
    }

    /// The transport was dropped: here is what it carried.
    pub(super) fn give_back(&self, wire: Box<Wire>) {
        *lock(&self.returned) = Some(wire);
    }

    /// The wire, once Pingora has let go of it.
    pub(super) fn take_back(&self) -> Option<Box<Wire>> {
        lock(&self.returned).take()
    }

    /// Does the work to its end, or until it has to be cut; the work is dropped then.
    ///
    /// # Errors
    /// [`Cut`].
    pub(super) async fn live<T>(&self, work: impl Future<Output = T>) -> Result<T, Cut> {
        let mut work = pin!(work);
        // The work is polled first; the others look at what it has left here by then and need no
        // waking of their own for that.
        let cut = tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            () = self.session_end() => Cut::SessionEnded,
            cut = self.silence() => cut,
        };
        // Before the work is dropped: its record asks for it.
        Err(*self.cut.get_or_init(|| cut))
    }

    async fn session_end(&self) {
        let serving = poll_fn(|_| ready_when_set(lock(&self.request).serving.take())).await;
        tokio::select! {
            () = serving.ended() => {}
            () = self.time_is_over(&serving) => {}
        }
    }

    /// SC-10: what is answered goes on no longer than its session. An answer is use of it, a WebSocket while
    /// something goes through.
    async fn time_is_over(&self, serving: &Serving) {
        poll_fn(|_| ready_when_set(self.answered.load(Ordering::Relaxed).then_some(()))).await;
        serving.over(|| if self.is_tunnel() { self.silent_for() } else { Duration::ZERO }).await;
    }

    async fn silence(&self) -> Cut {
        let limit = || if self.limited.load(Ordering::Relaxed) { lock(&self.request).silence } else { None };
        let Silence { before, after } = poll_fn(|_| ready_when_set(limit())).await;
        let answered = poll_fn(|_| ready_when_set(self.answered.load(Ordering::Relaxed).then_some(())));
        if tokio::time::timeout(before, answered).await.is_err() {
            return Cut::NoAnswer;
        }
        let after = if self.is_tunnel() { after } else { before };
        while let Some(left) = after.checked_sub(self.silent_for()).filter(|left| !left.is_zero()) {
            tokio::time::sleep(left).await;
        }
        Cut::Silent
    }

    fn silent_for(&self) -> Duration {
        let last = Duration::from_millis(self.last_traffic.load(Ordering::Relaxed));
        self.opened.elapsed().saturating_sub(last)
    }
}

fn ready_when_set<T>(value: Option<T>) -> Poll<T> {
    match value {
        Some(value) => Poll::Ready(value),
        None => Poll::Pending,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept here is whole after every step, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that a drain waits for.
pub(super) struct Counted(Arc<Life>);

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.0.is_tunnel() {
            self.0.drain.leave();
        }
    }
}

/// Who sent the requests of a connection; behind a trusted proxy, who sent one of them.
#[derive(Debug)]
pub(super) struct Client {
    /// From where.
    pub(super) address: IpAddr,
    /// The same, as `X-Forwarded-For`.
    pub(super) forwarded_for: HeaderValue,
    /// The port of the listener.
    pub(super) local_port: u16,
    /// Whether the connection is TLS.
    pub(super) tls: bool,
    /// What the connection's last cookie opened to.
    pub(super) last_cookie: Arc<LastCookie>,
    /// The proxies, where the address is one of theirs, which may name another client for each request.
    proxies: Option<Arc<TrustedProxies>>,
}

impl Client {
    /// Who connected to a listener.
    pub(super) fn new(address: IpAddr, local_port: u16, tls: bool, proxies: &Arc<TrustedProxies>) -> Self {
        // An IPv4 client of an IPv6 listener is told as IPv4.
        let address = address.to_canonical();
        let proxies = proxies.contain(address).then(|| Arc::clone(proxies));
        let last_cookie = Arc::default();
        Self { address, forwarded_for: forwarded_for(address), local_port, tls, last_cookie, proxies }
    }

    /// Who sent a request with these headers, where that is not the one who connected.
    fn behind(&self, headers: &HeaderMap) -> Option<Self> {
        let address = self.proxies.as_ref()?.client(self.address, headers);
        if address == self.address {
            return None;
        }
        let forwarded_for = forwarded_for(address);
        let last_cookie = Arc::clone(&self.last_cookie);
        let (local_port, tls) = (self.local_port, self.tls);
        Some(Self { address, forwarded_for, local_port, tls, last_cookie, proxies: None })
    }
}

/// What the access event says, but for the host and path.
pub(super) struct Record {
    events: Events,
    _in_flight: InFlight,
    started: Instant,
    client: Arc<Client>,
    life: Arc<Life>,
    /// The request's id.
    pub(super) id: RequestId,
    /// The method; empty where the head was not understood.
    pub(super) method: &'static str,
    /// The status; 0 while no answer was begun.
    pub(super) status: u16,
    /// Bytes of body sent.
    pub(super) bytes_sent: usize,
    /// Why it was refused.
    pub(super) refusal: Option<Refusal>,
    /// Where it went.
    pub(super) plan: Option<ForwardPlan>,
    /// The browser.
    pub(super) user_agent: Option<HeaderValue>,
}

impl Record {
    pub(super) fn new(events: &Events, client: Arc<Client>, life: Arc<Life>, method: &'static str) -> Self {
        Self {
            events: events.clone(),
            _in_flight: events.request_began(),
            started: Instant::now(),
            client,
            life,
            id: RequestId::new(),
            method,
            status: 0,
            bytes_sent: 0,
            refusal: None,
            plan: None,
            user_agent: None,
        }
    }

    /// Who sent it.
    pub(super) const fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Learns the client from the request's headers, where a trusted proxy names it.
    pub(super) fn learn_client(&mut self, headers: &HeaderMap) {
        if let Some(client) = self.client.behind(headers) {
            self.client = Arc::new(client);
        }
    }

    /// Writes the access event.
    pub(super) fn tell(&mut self, host: &str, path: &str) {
        if self.life.cut.get() == Some(&Cut::NoAnswer) {
            self.status = Refusal::UpstreamTimeout.status().as_u16();
            self.refusal = Some(Refusal::UpstreamTimeout);
        }
        let session = self.plan.as_ref().and_then(ForwardPlan::session);
        self.events.request_finished(&Access {
            request_id: &self.id,
            client: self.client.address,
            method: self.method,
            host,
            path,
            status: self.status,
            route: self.plan.as_ref().map(|plan| &*plan.route().name),
            refusal: self.refusal.map(Refusal::code),
            user: session.map(|session| &*session.identity.user),
            duration: self.started.elapsed(),
            bytes_sent: self.bytes_sent,
            user_agent: self.user_agent.as_ref().and_then(|value| std::str::from_utf8(value.as_bytes()).ok()),
        });
    }
}
