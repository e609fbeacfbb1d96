//! As much of HTTP/1.1 as both sides here need: messages with a length, over connections that stay open.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Outcome;

/// A request or an answer.
#[derive(Debug)]
pub struct Message {
    first_line: String,
    fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// A connection, and what was read of it beyond the last message.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Message {
    /// The `n`th word of the first line: method and target of a request, the status of an answer.
    pub fn word(&self, n: usize) -> &str {
        self.first_line.split(' ').nth(n).unwrap_or_default()
    }

    /// All values of a header.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn parse(head: &str) -> Self {
        let mut lines = head.lines();
        let first_line = lines.next().unwrap_or_default().to_owned();
        let fields = lines.filter_map(|line| line.split_once(':'));
        let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        Self { first_line, fields: fields.collect(), body: Vec::new() }
    }
}

impl Connection {
    pub fn new(stream: TcpStream) -> Outcome<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, ahead: Vec::with_capacity(16 * 1024) })
    }

    pub async fn send(&mut self, message: &str) -> Outcome<()> {
        Ok(self.stream.write_all(message.as_bytes()).await?)
    }

    /// The next message; `None` where the other side has closed.
    pub async fn receive(&mut self) -> Outcome<Option<Message>> {
        let end = loop {
            if let Some(at) = self.ahead.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            if self.stream.read_buf(&mut self.ahead).await? == 0 {
                return Ok(None);
            }
        };
        let head: Vec<_> = self.ahead.drain(..end).collect();
        let mut message = Message::parse(std::str::from_utf8(&head)?);
        let length = message.all("content-length").next().unwrap_or("0").parse()?;
        while self.ahead.len() < length {
            if self.stream.read_buf(&mut self.ahead).await? == 0 {
                return Err("a body was cut off".into());
            }
        }
        message.body = self.ahead.drain(..length).collect();
        Ok(Some(message))
    }
}
