//! What the gateway is measured against.
//!
//! `bare-proxy proxy LISTEN UPSTREAM THREADS` forwards every request and does nothing else.
//! `bare-proxy upstream LISTEN` answers every request with the same 1 KiB.

use std::env;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use mimalloc::MiMalloc;
use pingora::Result;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

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

fn proxy(listen: &str, upstream: SocketAddr, threads: usize) {
    let conf = ServerConf { threads, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let conf = Arc::clone(&server.configuration);
    let mut service = http_proxy_service(&conf, Bare { upstream });
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever();
}

/// One thread: what stands behind the proxies must never be what is waited for.
fn upstream(listen: &str) -> std::io::Result<()> {
    Builder::new_current_thread().enable_io().build()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(answer(stream));
        }
    })
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let body = "x".repeat(1024);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n";
    let answer = [head, &body].concat();
    let mut request = Vec::with_capacity(8 * 1024);
    loop {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
        // Requests have no bodies here.
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            stream.write_all(answer.as_bytes()).await?;
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["proxy", listen, address, threads] => {
            let (Ok(address), Ok(threads)) = (address.parse(), threads.parse()) else {
                eprintln!("bare-proxy: UPSTREAM is an address and a port, THREADS a number");
                return ExitCode::FAILURE;
            };
            proxy(listen, address, threads);
            ExitCode::SUCCESS
        }
        ["upstream", listen] => match upstream(listen) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("bare-proxy: {error}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("usage: bare-proxy proxy LISTEN UPSTREAM THREADS | bare-proxy upstream LISTEN");
            ExitCode::FAILURE
        }
    }
}
