//! What the gateway is measured against: the best that a bare Pingora can be.
//!
//! `bare-proxy proxy LISTEN UPSTREAM THREADS [--tls CERT KEY] [--http2] [--work-stealing]` forwards every
//! request and does nothing else.

use std::env;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use mimalloc::MiMalloc;
use pingora::Result;
use pingora::listeners::tls::TlsSettings;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;

const USAGE: &str =
    "usage: bare-proxy proxy LISTEN UPSTREAM THREADS [--tls CERT KEY] [--http2] [--work-stealing]";

/// Idle connections that are kept to the upstream, for each thread; as many as the gateway keeps.
const UPSTREAM_POOL: usize = 1024;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

struct Bare {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }
}

/// The arguments.
struct Options {
    listen: String,
    upstream: SocketAddr,
    threads: usize,
    tls: Option<(String, String)>,
    http2: bool,
    work_stealing: bool,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Option<Self> {
        args.next().filter(|command| command == "proxy")?;
        let listen = args.next()?;
        let upstream = args.next()?.parse().ok()?;
        let threads = args.next()?.parse().ok()?;
        let mut options = Self { listen, upstream, threads, tls: None, http2: false, work_stealing: false };
        while let Some(option) = args.next() {
            match option.as_str() {
                "--tls" => options.tls = Some((args.next()?, args.next()?)),
                "--http2" => options.http2 = true,
                "--work-stealing" => options.work_stealing = true,
                _ => return None,
            }
        }
        Some(options)
    }
}

fn proxy(options: Options) -> Result<()> {
    // The same as the gateway's; Pingora would install another.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let conf = ServerConf {
        threads: options.threads,
        work_stealing: options.work_stealing,
        upstream_keepalive_pool_size: UPSTREAM_POOL,
        // Told to end, it ends.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let conf = Arc::clone(&server.configuration);
    let mut service = http_proxy_service(&conf, Bare { upstream: options.upstream });
    match options.tls {
        None => service.add_tcp(&options.listen),
        Some((certificate, key)) => {
            let mut settings = TlsSettings::intermediate(&certificate, &key)?;
            if options.http2 {
                settings.enable_h2();
            }
            service.add_tls_with_settings(&options.listen, None, settings);
        }
    }
    server.add_service(service);
    server.run_forever();
}

fn main() -> ExitCode {
    let Some(options) = Options::parse(env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    match proxy(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bare-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}
