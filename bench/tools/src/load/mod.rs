//! The load: so many clients, each of which asks again as soon as it was answered.

mod dial;
mod http1;
mod http2;
mod tally;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use self::dial::Dialer;
use self::tally::Tally;
use crate::Outcome;
use crate::pattern::Body;
use crate::upstream::parse_field;

/// How long after the end an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The arguments.
#[derive(Args)]
pub struct Options {
    /// The proxy's address, such as 127.0.0.1:8080
    #[arg(long, value_name = "ADDR")]
    connect: SocketAddr,
    /// What is sent as Host, or :authority; with TLS also the name that the certificate must have
    #[arg(long)]
    host: String,
    /// Path and query that are asked for
    #[arg(long)]
    path: String,
    /// How many bytes of the pattern the right answer has
    #[arg(long, value_name = "BYTES")]
    body: usize,
    /// Clients at once, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 32)]
    connections: usize,
    /// Requests at once on each connection, with --http2
    #[arg(long, value_name = "M", default_value_t = 1, requires = "http2")]
    streams: usize,
    /// How long requests are begun; one that was begun is waited for
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,
    /// How long requests are sent before any is counted
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    warm_up: f64,
    /// Use TLS, and trust the certificate authorities in this file; handshakes are always whole ones
    #[arg(long, value_name = "CA.PEM")]
    tls: Option<PathBuf>,
    /// Use HTTP/2, which is negotiated in TLS
    #[arg(long, requires = "tls")]
    http2: bool,
    /// Make a connection for each request; to connect, TLS with it, is a part of the latency then
    #[arg(long)]
    close: bool,
    /// A header to send; may be given again
    #[arg(long, value_name = "NAME: VALUE", value_parser = parse_field)]
    header: Vec<(String, String)>,
    /// A file with the value of a Cookie header on each line: each request sends the next one
    #[arg(long, value_name = "FILE")]
    cookies: Option<PathBuf>,
}

/// Sends requests as long as is asked, and prints what became of them.
pub async fn run(options: Options) -> Outcome<()> {
    if options.connections == 0 || options.streams == 0 {
        return Err("there must be a client at least".into());
    }
    let dialer = Dialer::new(&options)?;
    let report = if options.http2 {
        http2::drive(&options, dialer).await?
    } else {
        http1::drive(&options, dialer).await?
    };
    println!("{report}");
    Ok(())
}

/// What all clients share; `R` is a request as the protocol has it.
struct Load<R> {
    dialer: Dialer,
    close: bool,
    requests: Vec<R>,
    next: AtomicUsize,
    body: Body,
    until: Instant,
    tally: Tally,
}

impl<R> Load<R> {
    /// From here on time counts, so whatever takes time comes before.
    fn begin(options: &Options, dialer: Dialer, requests: Vec<R>) -> Outcome<Arc<Self>> {
        let body = Body::new(options.body);
        let from = Instant::now() + Duration::try_from_secs_f64(options.warm_up)?;
        Ok(Arc::new(Self {
            dialer,
            close: options.close,
            requests,
            next: AtomicUsize::new(0),
            body,
            until: from + Duration::try_from_secs_f64(options.seconds)?,
            tally: Tally::new(from)?,
        }))
    }

    /// The next request, while there is time for one.
    fn next(&self) -> Option<&R> {
        if self.until <= Instant::now() {
            return None;
        }
        self.requests.get(self.next.fetch_add(1, Ordering::Relaxed) % self.requests.len())
    }

    /// Waits for the clients; gives the figures.
    async fn finish(&self, mut clients: JoinSet<()>) -> Value {
        let ended = async { while clients.join_next().await.is_some() {} };
        let _ = timeout_at((self.until + PATIENCE).into(), ended).await;
        for _ in 0..clients.len() {
            self.tally.fail(format!("no answer {} s after the last request was sent", PATIENCE.as_secs()));
        }
        self.tally.report()
    }
}

/// What is sent in turn: one request, or one for each cookie.
fn requests<R>(options: &Options, make: impl Fn(Option<&str>) -> Outcome<R>) -> Outcome<Vec<R>> {
    let Some(file) = &options.cookies else { return Ok(vec![make(None)?]) };
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let requests: Vec<_> = text.lines().map(|cookie| make(Some(cookie))).collect::<Outcome<_>>()?;
    if requests.is_empty() {
        return Err(format!("{}: there is no cookie in it", file.display()).into());
    }
    Ok(requests)
}
