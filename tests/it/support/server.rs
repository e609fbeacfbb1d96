//! A small HTTP/1.1 server that hides nothing: a thread for each connection, the bytes as they came.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::DEADLINE;
use super::wire::{Duplex, Framing, Head};

/// What a handler says about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next request may come.
    KeepAlive,
    /// It ends.
    Close,
}

/// One request on a connection, and the way to answer it.
pub struct Exchange {
    /// The request's head.
    pub head: Head,
    /// Which connection of the server, from 1.
    pub connection: usize,
    stream: Duplex,
    body_read: bool,
}

/// Answers requests; runs on the connection's thread. An error closes the connection.
pub type Handler = dyn Fn(&mut Exchange) -> io::Result<After> + Send + Sync;

/// A server on a loopback port; stops when dropped.
pub struct Server {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    opened: Arc<AtomicUsize>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts on a free port, with TLS if a configuration is given.
    pub fn start(tls: Option<Arc<rustls::ServerConfig>>, handler: Arc<Handler>) -> Self {
        Self::start_at(super::ports::free(), tls, handler)
    }

    /// As [`Server::start`], on a port of the caller's.
    pub fn start_at(port: u16, tls: Option<Arc<rustls::ServerConfig>>, handler: Arc<Handler>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let mut server = Self {
            address: listener.local_addr().unwrap(),
            stopped: Arc::default(),
            connections: Arc::default(),
            opened: Arc::default(),
            accepting: None,
        };
        let (stopped, connections) = (Arc::clone(&server.stopped), Arc::clone(&server.connections));
        let opened = Arc::clone(&server.opened);
        server.accepting = Some(thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let connection = opened.fetch_add(1, Ordering::SeqCst) + 1;
                connections.lock().unwrap().push(stream.try_clone().unwrap());
                let (tls, handler) = (tls.clone(), Arc::clone(&handler));
                let held = stream.try_clone().unwrap();
                thread::spawn(move || {
                    // The other side going away is its own business.
                    let _ = serve(stream, tls, connection, &*handler);
                    // The list above holds the socket too: without this it would stay open.
                    let _ = held.shutdown(Shutdown::Both);
                });
            }
        }));
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections came so far.
    pub fn connections(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees the flag and drops the listener.
        drop(TcpStream::connect(self.address));
        // Whoever starts another one on this port finds it free.
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for connection in self.connections.lock().unwrap().drain(..) {
            // Most are closed already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn serve(
    tcp: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    connection: usize,
    handler: &Handler,
) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(DEADLINE * 4))?;
    let mut stream = match tls {
        None => Duplex::new(tcp),
        Some(config) => {
            let session = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
            Duplex::new(rustls::StreamOwned::new(session, tcp))
        }
    };
    while let Some(head) = Head::read(&mut stream)? {
        let mut exchange = Exchange { head, connection, stream, body_read: false };
        let after = handler(&mut exchange)?;
        if after == After::Close || !exchange.body_read {
            return Ok(());
        }
        stream = exchange.stream;
    }
    Ok(())
}

impl Exchange {
    /// The request target as sent.
    pub fn target(&self) -> &str {
        self.head.line.split(' ').nth(1).unwrap_or_default()
    }

    /// The path of the target.
    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }

    /// A decoded parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let (_, query) = self.target().split_once('?')?;
        parameter(query.as_bytes(), name)
    }

    /// Reads the body piece by piece, after `100 Continue` where it was asked for.
    ///
    /// # Errors
    /// When the body is cut off.
    pub fn read_body(&mut self, piece: impl FnMut(&[u8])) -> io::Result<()> {
        if self.head.one("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        self.head.framing(true).read(&mut self.stream, piece)?;
        self.body_read = true;
        Ok(())
    }

    /// The whole body.
    ///
    /// # Errors
    /// When the body is cut off.
    pub fn body(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        self.read_body(|piece| body.extend_from_slice(piece))?;
        Ok(body)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the other side is gone.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Answers with a whole body, and keeps the connection where the request's body was read.
    ///
    /// # Errors
    /// When the other side is gone.
    pub fn answer(&mut self, status: u16, fields: &[(&str, &str)], body: &[u8]) -> io::Result<After> {
        let mut head = format!("HTTP/1.1 {status} -\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in fields {
            write!(head, "{name}: {value}\r\n").map_err(io::Error::other)?;
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes)?;
        if !self.body_read && self.head.framing(true) == Framing::Length(0) {
            self.body_read = true;
        }
        Ok(After::KeepAlive)
    }

    /// The stream itself, for what is not HTTP any more.
    pub fn stream(&mut self) -> &mut Duplex {
        &mut self.stream
    }
}

/// A decoded parameter of a query or form body.
pub fn parameter(form: &[u8], name: &str) -> Option<String> {
    url::form_urlencoded::parse(form).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
