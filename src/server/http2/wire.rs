//! The byte stream of an HTTP/2 client, as the `h2` crate gets it: what is read is looked at on its way.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pulse::Pulse;
use crate::server::transport::Socket;

/// A socket that is lent to the `h2` crate; [`Pulse::take_back`] has it again when this is dropped.
pub(super) struct Watched {
    socket: Option<Socket>,
    pulse: Arc<Pulse>,
}

impl Watched {
    pub(super) const fn new(socket: Socket, pulse: Arc<Pulse>) -> Self {
        Self { socket: Some(socket), pulse }
    }

    fn socket(&mut self) -> io::Result<Pin<&mut Socket>> {
        let socket = self.socket.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        Ok(Pin::new(socket))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            self.pulse.give_back(socket);
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(this.socket()?.poll_read(cx, buf))?;
        if this.pulse.note_read(buf.filled().get(before..).unwrap_or_default()) {
            return Poll::Ready(Ok(()));
        }
        // Nothing of a flood is read; the connection hears of it when this returns.
        buf.set_filled(before);
        Poll::Pending
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.pulse.note_flushed(false);
        let written = ready!(this.socket()?.poll_write(cx, buf))?;
        this.pulse.note_written();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.pulse.note_flushed(false);
        let written = ready!(this.socket()?.poll_write_vectored(cx, bufs))?;
        this.pulse.note_written();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.socket()?.poll_flush(cx))?;
        this.pulse.note_flushed(true);
        Poll::Ready(Ok(()))
    }

    /// Closing is the connection's: it may have to read what a client still sends, so that the last
    /// frames are not lost to a reset.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

#[async_trait]
impl Shutdown for Watched {
    async fn shutdown(&mut self) {}
}

impl UniqueID for Watched {
    fn id(&self) -> UniqueIDType {
        self.socket.as_ref().map_or(-1, Socket::fd)
    }
}

impl Ssl for Watched {}

impl Peek for Watched {}

impl GetTimingDigest for Watched {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Watched {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Watched {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("fd", &self.id()).finish()
    }
}
