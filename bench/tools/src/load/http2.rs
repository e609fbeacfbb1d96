//! HTTP/2 over TLS.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use serde_json::Value;
use tokio::task::JoinSet;

use super::dial::{Dialer, Wire};
use super::{Load, Options, requests};
use crate::pattern::Body;
use crate::{Outcome, head};

/// What browsers let a server send ahead, on one stream and on all.
const STREAM_WINDOW: u32 = 6 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 15 * 1024 * 1024;

/// So much of a wrong answer is told.
const TOLD: usize = 300;

type Sender = SendRequest<Bytes>;

/// Drives HTTP/2.
pub async fn drive(options: &Options, dialer: Dialer) -> Outcome<Value> {
    let requests = requests(options, |cookie| request(options, cookie))?;
    let mut senders = Vec::new();
    for _ in 0..options.connections {
        senders.push(if options.close { None } else { Some(open(&dialer).await?) });
    }
    let load = Load::begin(options, dialer, requests)?;
    let mut clients = JoinSet::new();
    for sender in senders {
        clients.spawn(client(Arc::clone(&load), sender, options.streams));
    }
    Ok(load.finish(clients).await)
}

fn request(options: &Options, cookie: Option<&str>) -> Outcome<Request<()>> {
    let mut request = Request::get(format!("https://{}{}", options.host, options.path)).body(())?;
    let fields = options.header.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in fields.chain(cookie.map(|cookie| ("cookie", cookie))) {
        let name = HeaderName::from_bytes(name.as_bytes())?;
        request.headers_mut().append(name, HeaderValue::from_str(value)?);
    }
    Ok(request)
}

/// Makes a connection; it is kept going by a task of its own.
async fn open(dialer: &Dialer) -> Outcome<Sender> {
    let Wire::Tls(stream) = dialer.dial().await? else { return Err("HTTP/2 needs TLS".into()) };
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err("the proxy does not speak HTTP/2".into());
    }
    let mut builder = Builder::new();
    builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    let (sender, connection) = builder.enable_push(false).handshake(stream).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// One connection, and the next one where the proxy ended it.
async fn client(load: Arc<Load<Request<()>>>, mut sender: Option<Sender>, streams: usize) {
    while Instant::now() < load.until {
        if load.close {
            once(&load).await;
            continue;
        }
        let connection = match sender.take() {
            Some(sender) => Ok(sender),
            None => reopen(&load).await,
        };
        match connection {
            Ok(sender) => share(&load, &sender, streams).await,
            Err(error) => return load.tally.fail(error.to_string()),
        }
    }
}

async fn reopen(load: &Load<Request<()>>) -> Outcome<Sender> {
    load.tally.connect();
    open(&load.dialer).await
}

/// A request with a connection of its own.
async fn once(load: &Load<Request<()>>) {
    let Some(request) = load.next() else { return };
    let begun = Instant::now();
    let asked = async { ask(&mut reopen(load).await?, request, &load.body).await };
    count(load, begun, asked.await);
}

/// Asks over one connection until the end, or until the proxy takes no more requests.
async fn share(load: &Arc<Load<Request<()>>>, sender: &Sender, streams: usize) {
    let mut asking = JoinSet::new();
    for _ in 0..streams {
        asking.spawn(one_by_one(Arc::clone(load), sender.clone()));
    }
    while asking.join_next().await.is_some() {}
}

async fn one_by_one(load: Arc<Load<Request<()>>>, mut sender: Sender) {
    while let Some(request) = load.next() {
        // An error here, too, says that the connection takes no more.
        let Ok(ready) = sender.ready().await else { return };
        sender = ready;
        let begun = Instant::now();
        match ask(&mut sender, request, &load.body).await {
            // It was not looked at: the proxy had ended the connection before. The next one will do.
            Err(error) if was_refused(&*error) => return,
            asked => count(&load, begun, asked),
        }
    }
}

fn was_refused(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.downcast_ref::<h2::Error>().is_some_and(|error| {
        error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
    })
}

fn count(load: &Load<Request<()>>, begun: Instant, asked: Outcome<Option<String>>) {
    match asked {
        Ok(None) => load.tally.succeed(begun),
        Ok(Some(wrong)) => load.tally.fail(wrong),
        Err(error) => load.tally.fail(error.to_string()),
    }
}

/// Asks; gives what is wrong with the answer.
async fn ask(sender: &mut Sender, request: &Request<()>, expected: &Body) -> Outcome<Option<String>> {
    let (response, _) = sender.send_request(request.clone(), true)?;
    let (head, body) = response.await?.into_parts();
    if head.status == StatusCode::OK {
        compare(body, expected).await
    } else {
        Ok(Some(format!("HTTP/2 {}: {}", head.status, start(body).await?)))
    }
}

/// Compares a body while it comes.
async fn compare(mut body: RecvStream, expected: &Body) -> Outcome<Option<String>> {
    let (mut taken, mut wrong) = (0, None);
    while let Some(piece) = body.data().await {
        let piece = piece?;
        let end = taken + piece.len();
        if wrong.is_none() && !expected.has(taken, &piece) {
            wrong = Some(format!("the body differs in bytes {taken} to {end}"));
        }
        taken = end;
        body.flow_control().release_capacity(piece.len())?;
    }
    let short = taken < expected.length();
    Ok(wrong.or_else(|| short.then(|| format!("the body has {taken} bytes"))))
}

/// The beginning of a wrong answer.
async fn start(mut body: RecvStream) -> Outcome<String> {
    let mut start = String::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        if start.len() < TOLD {
            start.push_str(&head::text(&piece[..piece.len().min(TOLD)]));
        }
    }
    Ok(start)
}
