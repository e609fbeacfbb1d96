//! The byte stream of one client, as Pingora gets it: it ends where the request ends.
//!
//! Owns the socket (or TLS session), the bytes that were read ahead, and the framing of the request
//! in progress. Pingora is shown the body of that request and nothing behind it; what a client sends
//! ahead stays here for the next request head. When Pingora lets go of it, for whatever reason, the
//! socket goes back to the connection, which closes it decently.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf as _, BytesMut};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use pingora::tls::ServerTlsStream;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, BufWriter, ReadBuf,
};
use tokio::net::TcpStream;

use super::body::Framing;
use super::life::Life;
use super::pace::{Download, Pace, Upload};

/// Head and body of a small answer leave together: one system call, one TLS record.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;

/// How much is read at once while a request head is waited for: more than most heads have.
const READ_BYTES: usize = 4 * 1024;

/// TLS reads the socket in small pieces; this gathers them.
const TLS_READ_BUFFER_BYTES: usize = 16 * 1024;

/// How much is read from a client that sends ahead while its request is still in progress.
const PROBE_BYTES: usize = 512;

/// How long a client may leave a part of an answer unread before it counts as gone.
pub(super) const CLIENT_WRITE_TIMEOUT: Duration = Duration::from_mins(1);

/// What reading a body fails with when the client was waited for too long.
pub(super) const BODY_TOO_SLOW: io::ErrorKind = io::ErrorKind::TimedOut;
/// HTTP/2, as TLS names it.
pub(super) const HTTP2: &[u8] = b"h2";

/// Cleartext or TLS.
pub(super) enum Socket {
    /// Cleartext.
    Plain(TcpStream),
    /// TLS.
    Tls(Box<ServerTlsStream<BufReader<TcpStream>>>),
}

impl Socket {
    /// What TLS reads from.
    pub(super) fn buffered(stream: TcpStream) -> BufReader<TcpStream> {
        BufReader::with_capacity(TLS_READ_BUFFER_BYTES, stream)
    }

    /// Whether the client chose HTTP/2 in its TLS handshake (RFC 9113 3.2).
    pub(super) fn is_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(HTTP2),
        }
    }

    /// The number that the system has for it.
    pub(super) fn fd(&self) -> i32 {
        match self {
            Self::Plain(stream) => stream.as_raw_fd(),
            Self::Tls(stream) => stream.get_ref().0.get_ref().as_raw_fd(),
        }
    }
}

/// What a connection owns of its client between requests and lends to Pingora for each.
pub(super) struct Wire {
    socket: BufWriter<Socket>,
    /// Read, and not yet shown to Pingora.
    ahead: BytesMut,
    framing: Framing,
    upload: Upload,
    download: Download,
}

impl Wire {
    /// The wire of an accepted client.
    pub(super) fn new(socket: Socket) -> Self {
        let socket = BufWriter::with_capacity(WRITE_BUFFER_BYTES, socket);
        // No body is waited for before a request begins.
        let upload = Upload::new(Pace { idle: Duration::ZERO, bytes_per_second: 0 }, true);
        Self {
            socket,
            ahead: BytesMut::new(),
            framing: Framing::length(0),
            upload,
            download: Download::new(CLIENT_WRITE_TIMEOUT),
        }
    }

    /// The bytes that were read ahead.
    pub(super) const fn ahead(&mut self) -> &mut BytesMut {
        &mut self.ahead
    }

    /// The socket, with what was written to it buffered.
    pub(super) const fn socket(&mut self) -> &mut BufWriter<Socket> {
        &mut self.socket
    }

    /// Reads more ahead; 0 bytes: the client has closed its side.
    pub(super) async fn read_ahead(&mut self) -> io::Result<usize> {
        self.ahead.reserve(READ_BYTES);
        self.socket.get_mut().read_buf(&mut self.ahead).await
    }

    /// Starts a request whose body is framed like that, and waited for as `upload` says.
    pub(super) fn begin(&mut self, framing: Framing, upload: Upload) {
        self.framing = framing;
        self.upload = upload;
    }

    /// Whether the request in progress was read to its end.
    pub(super) const fn is_between_requests(&self) -> bool {
        self.framing.is_done()
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let len = self.ahead.len().min(buf.remaining());
            let chunk = self.ahead.get(..len).unwrap_or_default();
            let admitted = self.framing.admit(chunk).map_err(malformed)?;
            self.upload.came(admitted);
            buf.put_slice(chunk.get(..admitted).unwrap_or_default());
            self.ahead.advance(admitted);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(self.socket.get_mut()).poll_read(cx, buf) {
            Poll::Ready(read) => read?,
            Poll::Pending => return self.poll_overdue(cx),
        }
        let read = buf.filled().get(before..).unwrap_or_default();
        self.upload.came(read.len());
        let admitted = self.framing.admit(read).map_err(malformed)?;
        self.ahead.extend_from_slice(read.get(admitted..).unwrap_or_default());
        buf.set_filled(before + admitted);
        Poll::Ready(Ok(()))
    }

    /// Fails where the client was waited for too long; a WebSocket has its own measure of that.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.framing == Framing::Tunnel {
            return Poll::Pending;
        }
        self.upload.poll_overdue(cx).map(|()| Err(io::Error::from(BODY_TOO_SLOW)))
    }

    /// The message is over: Pingora reads on only to learn whether the client goes away. What comes
    /// instead is kept for the next request, and Pingora is left waiting; the answer wakes it.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            return Poll::Pending;
        }
        let mut space = [const { MaybeUninit::uninit() }; PROBE_BYTES];
        let mut probe = ReadBuf::uninit(&mut space);
        ready!(Pin::new(self.socket.get_mut()).poll_read(cx, &mut probe))?;
        if probe.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.ahead.extend_from_slice(probe.filled());
        Poll::Pending
    }
}

fn malformed(error: super::body::FramingError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A wire that is lent to Pingora.
pub(super) struct Transport {
    wire: Option<Box<Wire>>,
    life: Arc<Life>,
}

impl Transport {
    /// Lends a wire; [`Life::take_back`] has it again when this is dropped.
    pub(super) const fn new(wire: Box<Wire>, life: Arc<Life>) -> Self {
        Self { wire: Some(wire), life }
    }

    fn wire(&mut self) -> io::Result<&mut Wire> {
        self.wire.as_deref_mut().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        if let Some(wire) = self.wire.take() {
            self.life.give_back(wire);
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let is_tunnel = this.life.is_tunnel();
        let wire = this.wire()?;
        if is_tunnel {
            wire.framing = Framing::Tunnel;
        }
        if wire.framing.is_done() {
            return wire.poll_end(cx);
        }
        let read = ready!(wire.poll_body(cx, buf));
        if is_tunnel {
            this.life.note_traffic();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wire = this.wire()?;
        wire.upload.go_on();
        let written = Pin::new(wire.socket()).poll_write(cx, buf);
        let written = ready!(wire.download.poll(cx, written, |written| *written == buf.len()));
        if this.life.is_tunnel() {
            this.life.note_traffic();
        }
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut().wire()?;
        let flushed = Pin::new(wire.socket()).poll_flush(cx);
        wire.download.poll(cx, flushed, |()| true)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// Closing is the connection's: it may have to read what a client still sends, so that the answer is
/// not lost to a reset.
#[async_trait]
impl Shutdown for Transport {
    async fn shutdown(&mut self) {
        if let Ok(wire) = self.wire() {
            // A client that is gone is no error here.
            let _ = wire.socket.flush().await;
        }
    }
}

impl UniqueID for Transport {
    fn id(&self) -> UniqueIDType {
        self.wire.as_ref().map_or(-1, |wire| wire.socket.get_ref().fd())
    }
}

impl Ssl for Transport {}

impl Peek for Transport {}

impl GetTimingDigest for Transport {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Transport {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Transport {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("fd", &self.id()).finish()
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
