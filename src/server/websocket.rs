//! The connection to an upstream for a request that asks for a WebSocket.
//!
//! Pingora tells its upstream side of the end of the request (there is no body) and reads the answer
//! in one `select`, in random order. Where a quick upstream's 101 is read first, the end of the
//! request is then taken for the end of the WebSocket, and closes it at once. So the answer is held
//! back here for one turn of the scheduler: by then the end of the request was seen.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::HttpPeer;
use pingora::{BError, Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Makes a peer that of a WebSocket: a connection of its own, never one out of the pool.
pub(super) fn prepare(peer: &mut HttpPeer) {
    peer.options.custom_l4 = Some(Arc::new(Connector));
    // Groups of HTTP connections count from 0.
    peer.group_key = !peer.group_key;
    peer.options.idle_timeout = Some(Duration::ZERO);
    // What ends a dead one is the limit on its silence.
    peer.options.tcp_keepalive = None;
}

#[derive(Debug)]
struct Connector;

#[async_trait]
impl L4Connect for Connector {
    /// Pingora bounds the time, as it does for its own connections.
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let Some(address) = address.as_inet() else {
            return Error::e_explain(ErrorType::ConnectError, "not an IP address");
        };
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        let socket = Unhurried { stream, asked: false };
        Ok(VirtualSocketStream::new(Box::new(socket)).into())
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "Pingora passes its errors in boxes")]
fn failed(error: io::Error) -> BError {
    let timed_out = error.kind() == io::ErrorKind::TimedOut;
    let kind = if timed_out { ErrorType::ConnectTimedout } else { ErrorType::ConnectError };
    Error::because(kind, "connecting for a WebSocket", error)
}

/// A socket that has an answer only one turn after it was asked.
#[derive(Debug)]
struct Unhurried {
    stream: TcpStream,
    asked: bool,
}

impl VirtualSocket for Unhurried {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        // No other option is set on any peer.
        if matches!(option, VirtualSockOpt::NoDelay) { self.stream.set_nodelay(true) } else { Ok(()) }
    }
}

impl AsyncRead for Unhurried {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.asked) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Unhurried {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        self.asked = true;
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
