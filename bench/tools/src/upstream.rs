//! The application behind the proxies: HTTP/1.1 with keep-alive, no bodies in requests.
//!
//! It sees whether the proxy told who is asking: a request without a header that it was told to require, or
//! with one that it was told to forbid, is answered 500, which the load takes for an error.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::pattern::pattern;
use crate::{Outcome, head};

/// The longest body that is made.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// The arguments.
#[derive(Args)]
pub struct Options {
    /// Where it listens, such as 127.0.0.1:8000
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// A header that every request must have with this value, and with no other; may be given again
    #[arg(long, value_name = "NAME: VALUE", value_parser = parse_field)]
    require: Vec<(String, String)>,
    /// A header that no request may have; may be given again
    #[arg(long, value_name = "NAME")]
    forbid: Vec<String>,
}

/// Reads `Name: value`.
pub fn parse_field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is written 'Name: value'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Serves until it is killed.
pub async fn run(options: Options) -> Outcome<()> {
    let listener = TcpListener::bind(options.listen).await?;
    let application = Arc::new(Application { options, answers: Mutex::default() });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let application = Arc::clone(&application);
        tokio::spawn(async move { application.serve(stream).await });
    }
}

struct Application {
    options: Options,
    /// Whole answers, by the length of their body.
    answers: Mutex<HashMap<usize, Bytes>>,
}

impl Application {
    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut request = Vec::with_capacity(8 * 1024);
        loop {
            let Some(end) = head::end(&request) else {
                if request.len() > head::MAX || stream.read_buf(&mut request).await? == 0 {
                    return Ok(());
                }
                continue;
            };
            let (answer, closes) = self.answer(&request[..end]);
            request.drain(..end);
            stream.write_all(&answer).await?;
            if closes {
                return Ok(());
            }
        }
    }

    /// The answer to a request, and whether the connection ends with it.
    fn answer(&self, request: &[u8]) -> (Bytes, bool) {
        let line = head::first_line(request);
        let mut closes = line.ends_with(b"1.0");
        let mut required_seen = 0;
        for (name, value) in head::fields(request) {
            if name.eq_ignore_ascii_case(b"connection") {
                closes = value.eq_ignore_ascii_case(b"close");
            }
            match self.look_at(name, value) {
                Ok(required) => required_seen += usize::from(required),
                Err(fault) => return (refusal("500 Internal Server Error", &fault), closes),
            }
        }
        if required_seen != self.options.require.len() {
            return (refusal("500 Internal Server Error", &self.missing(request)), closes);
        }
        let page = length(line).map(|length| self.page(length));
        (
            page.unwrap_or_else(|| {
                refusal("404 Not Found", "the path is no /bytes/N, or the method not GET")
            }),
            closes,
        )
    }

    /// Whether a field is one that is required.
    fn look_at(&self, name: &[u8], value: &[u8]) -> Result<bool, String> {
        if self.options.forbid.iter().any(|forbidden| forbidden.as_bytes().eq_ignore_ascii_case(name)) {
            return Err(format!("the request has the header {}: {}", head::text(name), head::text(value)));
        }
        let required =
            self.options.require.iter().find(|(required, _)| required.as_bytes().eq_ignore_ascii_case(name));
        match required {
            None => Ok(false),
            Some((_, wanted)) if wanted.as_bytes() == value => Ok(true),
            Some(_) => Err(format!("the request has the header {}: {}", head::text(name), head::text(value))),
        }
    }

    fn missing(&self, request: &[u8]) -> String {
        let count = |wanted: &str| {
            head::fields(request).filter(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes())).count()
        };
        let wrong = self.options.require.iter().find(|(name, _)| count(name) != 1);
        let (name, times) = wrong.map_or(("?", 0), |(name, _)| (name, count(name)));
        format!("the request has the header {name} {times} times")
    }

    fn page(&self, length: usize) -> Bytes {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.entry(length).or_insert_with(|| answer("200 OK", &pattern(length))).clone()
    }
}

/// How many bytes are asked for.
fn length(line: &[u8]) -> Option<usize> {
    let target = line.strip_prefix(b"GET ")?;
    let at = memchr::memmem::rfind(target, b"/bytes/")?;
    let rest = &target[at + b"/bytes/".len()..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    head::number(&rest[..digits]).filter(|length| *length <= MAX_BODY)
}

fn refusal(status: &str, text: &str) -> Bytes {
    answer(status, format!("upstream: {text}\n").as_bytes())
}

fn answer(status: &str, body: &[u8]) -> Bytes {
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat().into()
}
