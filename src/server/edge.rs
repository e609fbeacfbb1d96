//! The edge: Pingora's filters around the gateway's verdict.
//!
//! Each filter translates and nothing more: a request becomes a [`Request`], the verdict becomes an
//! answer or a plan, the plan becomes a peer and headers. What an upstream or client must not see is
//! in [`super::convert`], what a request may be in [`crate::gateway`].

use std::any::Any;
use std::io;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{SET_COOKIE, USER_AGENT};
use http::{HeaderMap, Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::prelude::timeout;
use pingora::protocols::http::ServerSession;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{BError, Error, ErrorSource, ErrorType, Result};

use super::body::Framing;
use super::convert::{self, Forwarded};
use super::head::{self, Head};
use super::life::{Life, Record, Silence};
use super::transport::{BODY_TOO_SLOW, CLIENT_WRITE_TIMEOUT};
use super::upstream::{Attempts, Destination, Upstreams};
use super::websocket;
use crate::endpoints::{self, Endpoint};
use crate::gateway::sessions::Serving;
use crate::gateway::{ForwardPlan, Gateway, Refusal, SetCookies};
use crate::web::{Reply, Request};

/// How long an endpoint waits for the whole of a request body.
const ENDPOINT_BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// No address for the upstream's name.
const UNRESOLVED: ErrorType = ErrorType::new("UpstreamUnresolved");

/// More came of a body than its route allows.
const TOO_LARGE: ErrorType = ErrorType::new("BodyTooLarge");

/// The proxy's filters.
pub(super) struct Edge {
    gateway: Arc<Gateway>,
    upstreams: Arc<Upstreams>,
}

/// One request on its way through the filters.
pub(super) struct Exchange {
    record: Record,
    life: Arc<Life>,
    /// Whole, where it is not lent ([`Exchange::lend_fields`]). In a box: it goes through many hands.
    head: Box<Head>,
    /// Whether the connection ends with it.
    is_last: bool,
    /// Bytes of its body that went on to an upstream, of those that are tried the present one.
    body_bytes: u64,
    attempts: Attempts,
}

/// An exchange on its way through Pingora in the fields of an HTTP/2 request, for which Pingora has no
/// connection's context. Its first taker has it.
#[derive(Clone)]
struct Carried(Arc<Mutex<Option<Box<Exchange>>>>);

/// What is to be done with a request.
enum Verdict {
    /// It goes to the upstream of its plan.
    Forward,
    /// It ends here.
    Answer(Reply),
}

impl Exchange {
    /// The request whose head was read.
    pub(super) fn new(head: Box<Head>, record: Record, life: Arc<Life>) -> Self {
        Self { record, life, head, is_last: false, body_bytes: 0, attempts: Attempts::default() }
    }

    /// Whether the connection ends with it.
    #[must_use]
    pub(super) fn ending_connection(mut self, is_last: bool) -> Self {
        self.is_last = is_last;
        self
    }

    /// Whether so much of a body is more than its route allows.
    fn is_too_large(&self, body_bytes: u64) -> bool {
        let max = self.record.plan.as_ref().and_then(|plan| plan.route().max_body_bytes);
        max.is_some_and(|max| body_bytes > max)
    }

    /// Gives the exchange to a request of HTTP/2.
    pub(super) fn ride(self, request: &mut RequestHeader) {
        let carried = Carried(Arc::new(Mutex::new(Some(Box::new(self)))));
        request.extensions_mut().insert(carried);
    }

    /// The exchange that such a request carries.
    fn carried_by(request: &mut RequestHeader) -> Option<Box<Self>> {
        let Carried(exchange) = request.extensions_mut().remove()?;
        exchange.lock().ok()?.take()
    }

    /// The fields for an upstream. Hardly ever does anybody ask for them again: they are not copied, but read
    /// once more then ([`Exchange::recall_fields`]).
    fn lend_fields(&mut self) -> HeaderMap {
        if self.head.raw.is_empty() { self.head.fields.clone() } else { mem::take(&mut self.head.fields) }
    }

    /// Sees to it that the fields are there, after they were lent.
    fn recall_fields(&mut self) {
        if self.head.fields.is_empty() {
            self.head.fields = head::fields(&self.head.raw);
        }
    }

    /// The request as the gateway sees it. `head` is Pingora's, which has a method and hardly any field.
    fn request<'a>(&'a self, head: &'a RequestHeader) -> Request<'a> {
        let client = self.record.client();
        Request {
            id: self.record.id,
            method: &head.method,
            target: &self.head.target,
            host: &self.head.host,
            headers: &self.head.fields,
            client: client.address,
            local_port: client.local_port,
        }
    }
}

/// However it ended: with its answer, cut, or in a panic.
impl Drop for Exchange {
    fn drop(&mut self) {
        self.record.tell(self.head.host.name(), self.head.target.path());
    }
}

impl Edge {
    /// The filters of a gateway.
    pub(super) const fn new(gateway: Arc<Gateway>, upstreams: Arc<Upstreams>) -> Self {
        Self { gateway, upstreams }
    }

    async fn verdict(&self, session: &mut Session, exchange: &mut Exchange) -> Verdict {
        match endpoints::find(&self.gateway.settings().paths, &exchange.head.target) {
            // Boxed, as every way but the one to an upstream: that one stays small.
            Some(endpoint) => Box::pin(self.call(endpoint, session, exchange)).await,
            None => self.decide(session.req_header(), exchange).await,
        }
    }

    async fn decide(&self, head: &RequestHeader, exchange: &mut Exchange) -> Verdict {
        let last_cookie = &exchange.record.client().last_cookie;
        match self.gateway.decide(&exchange.request(head), last_cookie).await {
            Ok(plan) => {
                if let Some(session) = plan.session() {
                    let (sessions, session) =
                        (Arc::clone(&self.gateway.shared().sessions), Arc::clone(session));
                    exchange.life.ends_with(Serving::new(
                        sessions,
                        session,
                        self.gateway.settings().reading.limits,
                    ));
                }
                exchange.record.plan = Some(plan);
                if matches!(exchange.head.framing, Framing::Length(length) if exchange.is_too_large(length)) {
                    return Verdict::Answer(self.failure(head, exchange, Refusal::BodyTooLarge));
                }
                Verdict::Forward
            }
            Err(refusal) => Box::pin(self.refuse(head, exchange, refusal)).await,
        }
    }

    async fn refuse(&self, head: &RequestHeader, exchange: &mut Exchange, refusal: Refusal) -> Verdict {
        let mut cookies = SetCookies::default();
        let (mut reply, refusal) = self.gateway.refuse(&exchange.request(head), refusal, &mut cookies).await;
        exchange.record.refusal = Some(refusal);
        for cookie in cookies.0 {
            reply.headers.append(SET_COOKIE, cookie);
        }
        Verdict::Answer(reply)
    }

    async fn call(
        &self,
        endpoint: &'static Endpoint,
        session: &mut Session,
        exchange: &mut Exchange,
    ) -> Verdict {
        let max_bytes = endpoint.max_body(&session.req_header().method);
        let body = match read_body(max_bytes, session, exchange).await {
            Ok(body) => body,
            Err(refusal) => return self.refuse(session.req_header(), exchange, refusal).await,
        };
        let request = exchange.request(session.req_header());
        let answer = endpoints::answer(endpoint, &self.gateway, &request, &body).await;
        exchange.record.refusal = answer.refusal;
        Verdict::Answer(answer.reply)
    }

    /// The answer to a request that failed after its verdict.
    fn failure(&self, head: &RequestHeader, exchange: &mut Exchange, refusal: Refusal) -> Reply {
        exchange.record.refusal = Some(refusal);
        let mut reply = self.gateway.render(&exchange.request(head), refusal);
        if let Some(cookie) = exchange.record.plan.as_ref().and_then(ForwardPlan::set_cookie) {
            reply.headers.append(SET_COOKIE, cookie.clone());
        }
        reply
    }

    /// The page for a request whose handling panicked; nothing at all where the page does that too.
    fn after_panic(&self, head: &RequestHeader, exchange: &mut Exchange) -> Reply {
        let failure = AssertUnwindSafe(|| self.failure(head, exchange, Refusal::Internal));
        std::panic::catch_unwind(failure).unwrap_or_else(|_| Reply::empty(Refusal::Internal.status()))
    }

    fn destination(&self, exchange: &Exchange) -> Option<&Destination> {
        self.upstreams.get(exchange.record.plan.as_ref()?.route().upstream)
    }

    fn note_upstream_error(&self, exchange: &Exchange, error: &Error) {
        // An error's text may hold bytes of a message; its kind and the system's own words do not.
        let cause = error.root_cause().downcast_ref::<io::Error>();
        tracing::warn!(
            event = "upstream_failed",
            request_id = %exchange.record.id,
            upstream = self.destination(exchange).map_or("", Destination::name),
            error = error.etype().as_str(),
            cause = cause.map(tracing::field::display),
        );
    }
}

/// Reads the body of a request to an endpoint: by its length first, then under a deadline. A body that
/// is left unread closes the connection with the answer (PP-11).
async fn read_body(
    max_bytes: usize,
    session: &mut Session,
    exchange: &Exchange,
) -> std::result::Result<Vec<u8>, Refusal> {
    let mut body = Vec::new();
    if max_bytes == 0 || exchange.head.framing.is_done() {
        return Ok(body);
    }
    if matches!(exchange.head.framing, Framing::Length(length) if length > max_bytes as u64) {
        return Err(Refusal::BodyTooLarge);
    }
    let read = async {
        if exchange.head.expects_continue {
            session.write_continue_response().await?;
        }
        while let Some(part) = session.read_request_body().await? {
            if body.len() + part.len() > max_bytes {
                return Ok(Err(Refusal::BodyTooLarge));
            }
            body.extend_from_slice(&part);
        }
        Ok::<_, BError>(Ok(body))
    };
    match timeout(ENDPOINT_BODY_TIMEOUT, read).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => Err(Refusal::BadRequest),
    }
}

async fn respond(session: &mut Session, record: &mut Record, reply: Reply) -> Result<()> {
    record.status = reply.status.as_u16();
    let head = convert::answer(&reply)?;
    if reply.body.is_empty() || session.req_header().method == Method::HEAD {
        return session.write_response_header(head, true).await;
    }
    session.write_response_header(head, false).await?;
    session.write_response_body(Some(reply.body), true).await
}

/// What a failure is to the client; `None` where there is no client left to tell.
fn refusal_of(error: &Error) -> Option<Refusal> {
    if error.etype() == &UNRESOLVED {
        return Some(Refusal::UpstreamUnresolved);
    }
    if error.etype() == &TOO_LARGE {
        return Some(Refusal::BodyTooLarge);
    }
    if is_slow_body(error) {
        return Some(Refusal::BodyTooSlow);
    }
    match error.esource() {
        ErrorSource::Upstream => Some(upstream_refusal(error.etype())),
        ErrorSource::Downstream => client_refusal(error.etype()),
        ErrorSource::Internal | ErrorSource::Unset => Some(Refusal::Internal),
    }
}

fn is_slow_body(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    *error.esource() == ErrorSource::Downstream
        && *error.etype() == ErrorType::ReadError
        && cause.is_some_and(|cause| cause.kind() == BODY_TOO_SLOW)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other failure is one of the upstream's answer")]
const fn upstream_refusal(kind: &ErrorType) -> Refusal {
    use ErrorType as E;
    match kind {
        E::ConnectTimedout | E::TLSHandshakeTimedout | E::ReadTimedout | E::WriteTimedout => {
            Refusal::UpstreamTimeout
        }
        E::ConnectRefused
        | E::ConnectNoRoute
        | E::ConnectError
        | E::TLSHandshakeFailure
        | E::HandshakeError
        | E::InvalidCert
        | E::BindError
        | E::SocketError => Refusal::UpstreamUnreachable,
        _ => Refusal::UpstreamFailed,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other failure is one of the request's own")]
const fn client_refusal(kind: &ErrorType) -> Option<Refusal> {
    use ErrorType as E;
    match kind {
        E::WriteError | E::WriteTimedout | E::ReadError | E::ConnectionClosed | E::H2Error => None,
        _ => Some(Refusal::BadRequest),
    }
}

/// RFC 9110 15.2: HTTP/1.0 knows no interim answers.
fn ignore_interim_answers(session: &mut Session) {
    if let ServerSession::H1(client) = session.as_downstream_mut() {
        client.set_ignore_info_resp(true);
    }
}

fn is_answered(session: &Session) -> bool {
    session.response_written().is_some_and(|head| !head.status.is_informational())
}

fn exchange_of(ctx: &mut Option<Box<Exchange>>) -> Result<&mut Exchange> {
    ctx.as_deref_mut().ok_or_else(|| Error::new_in(ErrorType::InternalError))
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = Option<Box<Exchange>>;

    fn new_ctx(&self) -> Self::CTX {
        None
    }

    /// The connection has given each request of HTTP/1 its exchange.
    fn on_connection_reuse(
        &self,
        _session: &mut Session,
        ctx: &mut Self::CTX,
        exchange: Box<dyn Any + Send + Sync>,
    ) {
        // How long it may leave an answer unread is the transport's to count.
        *ctx = exchange.downcast().ok();
    }

    /// None: compression is the upstream's.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<bool> {
        if ctx.is_none() {
            *ctx = Exchange::carried_by(session.req_header_mut());
            session.set_write_timeout(Some(CLIENT_WRITE_TIMEOUT));
        }
        let exchange = exchange_of(ctx)?;
        if exchange.is_last {
            session.set_keepalive(None);
        }
        exchange.record.learn_client(&exchange.head.fields);
        exchange.record.user_agent = exchange.head.fields.get(USER_AGENT).cloned();
        if session.req_header().version == Version::HTTP_10 {
            ignore_interim_answers(session);
        }
        // DO-7: a panic is this request's and nobody else's.
        let verdict = AssertUnwindSafe(self.verdict(session, exchange)).catch_unwind().await;
        let reply = match verdict {
            Ok(Verdict::Forward) => return Ok(false),
            Ok(Verdict::Answer(reply)) => reply,
            Err(_) => self.after_panic(session.req_header(), exchange),
        };
        if exchange.record.refusal == Some(Refusal::BadRequest) {
            // Whoever sends what could be read in two ways gets no second try on the same connection.
            session.set_keepalive(None);
        }
        respond(session, &mut exchange.record, reply).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        let exchange = exchange_of(ctx)?;
        let plan = exchange.record.plan.as_ref().ok_or_else(|| Error::new_in(ErrorType::InternalError))?;
        let id = plan.route().upstream;
        exchange.body_bytes = 0;
        let mut peer =
            self.upstreams.peer(id, &mut exchange.attempts).ok_or_else(|| Error::new_up(UNRESOLVED))?;
        if exchange.head.websocket {
            websocket::prepare(&mut peer);
            // Pingora has one read timeout for before and after the upgrade: both are kept here.
            peer.options.read_timeout = None;
            if let Some(destination) = self.upstreams.get(id) {
                let settings = destination.settings();
                exchange
                    .life
                    .limit_silence(Silence { before: settings.read_timeout, after: settings.idle_timeout });
            }
        }
        Ok(peer)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        peer: &HttpPeer,
        ctx: &mut Self::CTX,
        mut error: BError,
    ) -> BError {
        let Ok(exchange) = exchange_of(ctx) else { return error };
        let id = exchange.record.plan.as_ref().map(|plan| plan.route().upstream);
        let retry = id.is_some_and(|id| self.upstreams.note_failure(id, peer, &mut exchange.attempts));
        if retry {
            self.note_upstream_error(exchange, &error);
        }
        error.set_retry(retry);
        error
    }

    /// Pingora's own rule: what may have reached the upstream is tried again only where that does no
    /// harm, and on a connection that had been idle.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: BError,
        _ctx: &mut Self::CTX,
        client_reused: bool,
    ) -> BError {
        if !session.req_header().method.is_idempotent() || session.as_ref().retry_buffer_truncated() {
            error.set_retry(false);
        } else {
            error.retry.decide_reuse(client_reused);
        }
        error
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        let exchange = exchange_of(ctx)?;
        let internal = || Error::new_in(ErrorType::InternalError);
        exchange.recall_fields();
        let fields = exchange.lend_fields();
        let destination = self.destination(exchange).ok_or_else(internal)?;
        let forwarded = Forwarded {
            one_hop: &exchange.head.one_hop,
            websocket: exchange.head.websocket,
            plan: exchange.record.plan.as_ref().ok_or_else(internal)?,
            id: exchange.record.id,
            target: &exchange.head.target,
            host: &exchange.head.host,
            client: exchange.record.client(),
            upstream_host: destination.host(),
            headers: &self.gateway.settings().reading.headers,
        };
        convert::to_upstream(request, fields, &forwarded)
    }

    /// DO-3: what has no length is counted as it comes. The upstream's connection is closed then: it never has
    /// a body that looks whole.
    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        let exchange = exchange_of(ctx)?;
        if exchange.head.websocket {
            return Ok(());
        }
        exchange.body_bytes += body.as_ref().map_or(0, |body| body.len() as u64);
        if exchange.is_too_large(exchange.body_bytes) { Err(Error::new_down(TOO_LARGE)) } else { Ok(()) }
    }

    /// An upstream that switches protocols where nobody asked for it would take the connection over:
    /// Pingora lets that pass where neither side asked.
    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        answer: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        let asked = exchange_of(ctx)?.head.websocket;
        if answer.status == StatusCode::SWITCHING_PROTOCOLS && !asked {
            return Err(Error::new_up(ErrorType::InvalidHTTPHeader));
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        answer: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        let exchange = exchange_of(ctx)?;
        let agreed = answer.status == StatusCode::SWITCHING_PROTOCOLS;
        if agreed {
            exchange.life.become_tunnel();
            session.set_read_timeout(None);
        }
        if agreed || !answer.status.is_informational() {
            exchange.life.note_answer();
            exchange.record.status = answer.status.as_u16();
        }
        convert::to_client(answer, exchange.record.plan.as_ref())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        let exchange = exchange_of(ctx)?;
        exchange.record.bytes_sent += body.as_ref().map_or(0, Bytes::len);
        if exchange.head.websocket {
            exchange.life.note_traffic();
        }
        Ok(None)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Self::CTX) -> FailToProxy {
        let told = FailToProxy { error_code: 0, can_reuse_downstream: false };
        let Ok(exchange) = exchange_of(ctx) else { return told };
        if *error.esource() == ErrorSource::Upstream {
            self.note_upstream_error(exchange, error);
        }
        let Some(refusal) = refusal_of(error) else { return told };
        if is_answered(session) {
            exchange.record.refusal = Some(refusal);
            return told;
        }
        session.set_keepalive(None);
        exchange.recall_fields();
        let reply = self.failure(session.req_header(), exchange, refusal);
        // A client that is gone by now is no error.
        let _ = respond(session, &mut exchange.record, reply).await;
        FailToProxy { error_code: exchange.record.status, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, ctx: &mut Self::CTX) {
        // The access event is written when the record is dropped.
        if let Ok(exchange) = exchange_of(ctx) {
            exchange.record.bytes_sent = session.body_bytes_sent();
        }
    }

    /// LG-2: Pingora's own lines may hold bytes of a message.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Self::CTX, _error: &Error) -> bool {
        true
    }

    /// As [`Self::suppress_error_log`].
    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Self::CTX,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
