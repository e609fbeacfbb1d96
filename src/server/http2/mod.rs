//! HTTP/2 connections: from a TLS handshake that chose it to streams in Pingora's filters.
//!
//! What [`super::connection`] is for HTTP/1. The `h2` crate reads frames; Pingora makes sessions of its
//! streams. Here stand the limits that both lack ([`frames`], [`pulse`]), the rules for heads, the same
//! as for HTTP/1 ([`super::head`]), and the end of a connection: it is told to go when the server closes,
//! and everything that was answered leaves before it is gone (docs/decisions/0012).

mod frames;
mod pulse;
mod wire;

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::poll_fn;
use h2::Reason;
use h2::server::Connection as H2;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, SET_COOKIE};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode};
use pingora::Result;
use pingora::apps::HttpServerApp as _;
use pingora::http::RequestHeader;
use pingora::prelude::timeout;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{self, H2Accept, H2Options, HttpSession};
use pingora::protocols::{Digest, Stream};
use tokio::runtime::Handle;

use self::frames::FrameLimits;
use self::pulse::{End, Pulse, Times};
use self::wire::Watched;
use super::connection::{Answer, Door, LINGER, WRITE_TIMEOUT, close, deletions};
use super::convert;
use super::edge::Exchange;
use super::head::{self, Head, HeadError, METHODS, StreamHead};
use super::life::{Client, Life, Record};
use super::transport::{Socket, Wire};
use crate::config::{Http2Settings, ServerSettings};
use crate::web::Reply;

/// What of an answer waits for one slow client before the application is no longer read.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// The body of one request may fill the stream's window; those of all requests of a connection so many.
const WINDOWS: usize = 4;

/// Streams that were reset, and are remembered for what their client sent before it knew.
const REMEMBERED_RESETS: usize = 100;

/// How much may be on its way, and how much is too much.
#[derive(Clone)]
pub(super) struct Bounds {
    options: H2Options,
    frames: FrameLimits,
    /// Streams that are worked on, those included whose client has taken them back.
    streams: usize,
}

impl Bounds {
    /// Those of the settings.
    pub(super) fn new(http2: Http2Settings, settings: &ServerSettings) -> Self {
        let clients_share = |count| u32::try_from(count).unwrap_or(u32::MAX);
        let mut options = H2Options::new();
        options
            .max_concurrent_streams(clients_share(http2.max_streams))
            // Twice what HTTP/1 may send: what is a little too large is told so, and written to the log. What
            // is larger is answered by the `h2` crate.
            .max_header_list_size(clients_share(2 * header_list_bytes(settings)))
            .initial_window_size(clients_share(http2.window_bytes))
            .initial_connection_window_size(clients_share(WINDOWS * http2.window_bytes))
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            // Both are counted here too, all of them together; these see what comes within one read.
            .max_pending_accept_reset_streams(http2.max_resets)
            .max_local_error_reset_streams(Some(http2.max_resets));
        let frames = FrameLimits {
            // Streams count until they are served, and as many as are allowed may come at once.
            wasted: clients_share(http2.max_resets + http2.max_streams),
            control: clients_share(http2.max_control_frames),
        };
        Self { options, frames, streams: 2 * http2.max_streams }
    }
}

/// A head of HTTP/1 as RFC 9113 6.5.2 counts it.
const fn header_list_bytes(settings: &ServerSettings) -> usize {
    const OVERHEAD: usize = 32;
    settings.max_request_head_bytes + OVERHEAD * settings.max_request_headers
}

/// Serves a connection to its end.
pub(super) async fn serve(door: &Arc<Door>, socket: Socket, client: Arc<Client>) {
    let Some(bounds) = &door.http2 else { return };
    let times = Times { head: door.head_timeout, idle: door.keepalive_timeout, leaving: LINGER };
    let pulse = Pulse::new(times, bounds.frames);
    let wire: Stream = Box::new(Watched::new(socket, Arc::clone(&pulse)));
    let handshake = server::handshake(wire, Some(bounds.options.clone()));
    if let Ok(Ok(h2)) = timeout(door.head_timeout, handshake).await {
        let connection = Connection {
            door: Arc::clone(door),
            client,
            pulse: Arc::clone(&pulse),
            h2,
            digest: Arc::default(),
            most_streams: bounds.streams,
            requests_left: door.max_requests,
            leaving: false,
        };
        connection.run().await;
    }
    // The wire was dropped with the connection, and gave the socket back. A drain waits for the end of this
    // where answers were on their way: the pulse goes last.
    if let Some(socket) = pulse.take_back() {
        close(Wire::new(socket), true).await;
    }
}

struct Connection {
    door: Arc<Door>,
    client: Arc<Client>,
    pulse: Arc<Pulse>,
    h2: H2<Stream, Bytes>,
    digest: Arc<Digest>,
    most_streams: usize,
    requests_left: usize,
    leaving: bool,
}

/// What happens next on a connection.
enum Next {
    Stream(Box<HttpSession>),
    /// A head that Pingora refused.
    Refused,
    /// The server closes.
    Leave,
    End(End),
    Gone,
}

impl Connection {
    async fn run(mut self) {
        let (drain, pulse) = (Arc::clone(&self.door.drain), Arc::clone(&self.pulse));
        // Both last as long as the connection: new ones for each stream would cost more.
        let mut closing = std::pin::pin!(drain.closing().cancelled());
        let mut end = std::pin::pin!(pulse.end());
        loop {
            match self.next(closing.as_mut(), end.as_mut()).await {
                Next::Stream(session) => {
                    self.begin(session);
                    self.requests_left = self.requests_left.saturating_sub(1);
                    if self.requests_left == 0 && !self.leaving {
                        self.leave();
                    }
                }
                Next::Refused => self.note_refused(HeadError::Malformed("refused by Pingora")),
                Next::Leave => self.leave(),
                Next::End(end) => return self.end(end).await,
                Next::Gone => return,
            }
        }
    }

    async fn next(
        &mut self,
        closing: Pin<&mut impl Future<Output = ()>>,
        end: Pin<&mut impl Future<Output = End>>,
    ) -> Next {
        tokio::select! {
            // The connection first: the others look at what it has left by then.
            biased;
            accepted = HttpSession::from_h2_conn(&mut self.h2, Arc::clone(&self.digest)) => match accepted {
                Ok(Some(H2Accept::Session(session))) => Next::Stream(Box::new(session)),
                Ok(Some(H2Accept::Rejected)) => Next::Refused,
                Ok(None) | Err(_) => Next::Gone,
            },
            next = poll_fn(|context| self.pulse.settle(context)) => next,
            () = closing, if !self.leaving => Next::Leave,
            end = end => Next::End(end),
        }
    }

    /// Tells the client to go: what it has begun, and begins until it hears of that, is still served.
    fn leave(&mut self) {
        self.leaving = true;
        self.pulse.leave();
        self.h2.graceful_shutdown();
    }

    fn begin(&self, mut session: Box<HttpSession>) {
        if self.pulse.streams() >= self.most_streams {
            return session.shutdown_with_reason(Reason::REFUSED_STREAM);
        }
        let life = Arc::new(Life::new(Arc::clone(&self.door.drain)));
        let in_progress = self.pulse.begin_stream(life.begin());
        let (door, client) = (Arc::clone(&self.door), Arc::clone(&self.client));
        Handle::current().spawn(async move {
            answer(&door, *session, client, Arc::clone(&life)).await;
            if life.is_answered() {
                in_progress.end_answered();
            }
        });
    }

    /// Writes the access event for a head of which no session came to be.
    fn note_refused(&self, error: HeadError) {
        let life = Arc::new(Life::new(Arc::clone(&self.door.drain)));
        drop(refusal(&self.door, &self.client, &life, "", error));
    }

    /// Says goodbye and is gone, with whatever is still in progress.
    async fn end(mut self, end: End) {
        let reason = match end {
            End::Idle => Reason::NO_ERROR,
            End::SlowHead => {
                self.note_refused(HeadError::TooSlow);
                Reason::ENHANCE_YOUR_CALM
            }
            End::Flood(flood) => {
                tracing::warn!(event = "http2_flood", client = %self.client.address, reason = %flood);
                Reason::ENHANCE_YOUR_CALM
            }
        };
        self.h2.abrupt_shutdown(reason);
        // A client that takes none of it is no error.
        let _ = timeout(LINGER, async {
            while let Ok(Some(_)) = HttpSession::from_h2_conn(&mut self.h2, Arc::clone(&self.digest)).await {}
        })
        .await;
    }
}

/// One stream.
async fn answer(door: &Arc<Door>, session: HttpSession, client: Arc<Client>, life: Arc<Life>) {
    let request = session.req_header();
    let head = head::parse_stream(&stream_head(request, !session.is_body_empty()), door.limits);
    match head {
        Ok(head) if head.asks_server => answer_asterisk(door, session, &head, client, life).await,
        Ok(head) => exchange(door, session, head, client, life).await,
        Err(error) => refuse(door, session, error, &client, &life).await,
    }
}

fn stream_head(request: &RequestHeader, has_body: bool) -> StreamHead<'_> {
    StreamHead {
        method: request.method.as_str(),
        target: request.uri.path_and_query().map_or("", PathAndQuery::as_str),
        scheme: request.uri.scheme_str(),
        authority: request.uri.authority().map(http::uri::Authority::as_str),
        fields: &request.headers,
        has_body,
    }
}

async fn exchange(
    door: &Arc<Door>,
    mut session: HttpSession,
    mut head: Box<Head>,
    client: Arc<Client>,
    life: Arc<Life>,
) {
    let record = Record::new(&door.events, client, Arc::clone(&life), head.method);
    let request = session.req_header_mut();
    if as_http_1(request, &mut head).is_err() {
        return;
    }
    Exchange::new(head, record, Arc::clone(&life)).ride(request);
    let work = door.proxy.process_new_http(ServerSession::new_http2(session), &door.shutdown);
    // Where it is cut, the stream is reset by being dropped.
    let _ = life.live(work).await;
}

/// The shape that a request has with HTTP/1: the host is a field, the target a path, and Pingora sees no other
/// field.
fn as_http_1(request: &mut RequestHeader, head: &mut Head) -> Result<()> {
    let target = request.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    request.set_uri(target.into());
    head.fields = convert::take_fields(request);
    request.insert_header(HOST, head.host.to_string())?;
    if let Some(length) = head.fields.get(CONTENT_LENGTH) {
        request.insert_header(CONTENT_LENGTH, length.clone())?;
    }
    Ok(())
}

/// `OPTIONS *` asks the server itself, and never an upstream (PP-2).
async fn answer_asterisk(
    door: &Door,
    session: HttpSession,
    head: &Head,
    client: Arc<Client>,
    life: Arc<Life>,
) {
    let mut record = Record::new(&door.events, client, life, head.method);
    let reply = Reply::empty(StatusCode::NO_CONTENT).with_header(ALLOW, allowed());
    record.status = reply.status.as_u16();
    record.tell(head.host.name(), "*");
    send(session, reply).await;
}

/// Answers a head that was not understood: there is no request that a page could be made for.
async fn refuse(door: &Door, session: HttpSession, error: HeadError, client: &Arc<Client>, life: &Arc<Life>) {
    let method = METHODS.iter().find(|&&method| method == session.req_header().method.as_str());
    let record = refusal(door, client, life, method.unwrap_or(&""), error);
    let answer = Answer::of(error);
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut reply = Reply { body: answer.body(&record.id).into(), ..Reply::empty(status) }
        .with_header(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if error == HeadError::Method {
        reply = reply.with_header(ALLOW, allowed());
    }
    if error == HeadError::TooLarge {
        let crumbs = session.req_header().headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        let cookies = crumbs.collect::<Vec<_>>().join(&b';');
        for deletion in deletions(&cookies) {
            reply.headers.append(SET_COOKIE, deletion);
        }
    }
    send(session, reply).await;
}

/// The access event of a refused head, written.
fn refusal(
    door: &Door,
    client: &Arc<Client>,
    life: &Arc<Life>,
    method: &'static str,
    error: HeadError,
) -> Record {
    let mut record = Record::new(&door.events, Arc::clone(client), Arc::clone(life), method);
    let answer = Answer::of(error);
    record.refusal = Some(answer.refusal);
    record.status = answer.status;
    record.tell("", "");
    tracing::debug!(event = "request_head_refused", request_id = %record.id, reason = %error);
    record
}

fn allowed() -> HeaderValue {
    HeaderValue::try_from(METHODS.join(", ")).unwrap_or(HeaderValue::from_static("GET"))
}

/// Answers a stream that Pingora's filters never see.
async fn send(mut session: HttpSession, reply: Reply) {
    let ends = reply.body.is_empty() || session.req_header().method == Method::HEAD;
    let Ok(head) = convert::answer(&reply) else { return };
    session.set_write_timeout(Some(WRITE_TIMEOUT));
    // A client that is gone by now is no error.
    if session.write_response_header(head, ends).is_ok() && !ends {
        let _ = session.write_body(reply.body, true).await;
    }
}
