//! The server on real sockets: a gateway in this process, raw requests, scripted applications.

mod support;

mod drain;
mod framing;
mod headers;
mod listeners;
mod panics;
mod refresh;
mod sessions;
mod streaming;
mod tls;
mod upstreams;
