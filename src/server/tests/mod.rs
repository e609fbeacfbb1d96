//! The server on real sockets: a gateway in this process, raw requests, scripted applications.

mod support;

mod framing;
