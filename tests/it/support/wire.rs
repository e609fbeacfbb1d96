//! HTTP/1.1 on the wire, read without interpretation: what was sent is what a test sees.

use std::io::{self, BufRead, BufReader, Read, Write};

/// Bytes both ways.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A stream that is read through a buffer and written without one.
pub struct Duplex(BufReader<Box<dyn Stream>>);

impl Duplex {
    /// Wraps a stream.
    pub fn new(stream: impl Stream + 'static) -> Self {
        Self(BufReader::new(Box::new(stream)))
    }
}

impl Read for Duplex {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl BufRead for Duplex {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.0.consume(count);
    }
}

impl Write for Duplex {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.get_mut().flush()
    }
}

/// A start line and header fields, in the order and spelling of the wire. Bytes above ASCII are kept
/// as the characters of the same number.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The request or status line, without its end.
    pub line: String,
    /// The fields.
    pub fields: Vec<(String, String)>,
}

/// The values of all fields of a name, in any case.
pub fn all<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let same = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
    fields.iter().filter(same).map(|(_, value)| value.as_str()).collect()
}

/// The value of the only field of a name.
///
/// # Panics
/// When there are several.
pub fn one<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let all = all(fields, name);
    assert!(all.len() < 2, "several {name}: {all:?}");
    all.first().copied()
}

impl Head {
    /// The values of all fields of this name, in any case.
    pub fn all(&self, name: &str) -> Vec<&str> {
        all(&self.fields, name)
    }

    /// The value of the only field of this name.
    ///
    /// # Panics
    /// When there are several.
    pub fn one(&self, name: &str) -> Option<&str> {
        one(&self.fields, name)
    }

    /// Reads a head; `None` where the other side closed before its first byte.
    ///
    /// # Errors
    /// When reading fails or ends within the head.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let Some(line) = read_line(from)? else { return Ok(None) };
        let mut head = Self { line, fields: Vec::new() };
        loop {
            let line = read_line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                return Ok(Some(head));
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            head.fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    /// How the body after this head ends. `request` says whose head it is.
    pub fn framing(&self, request: bool) -> Framing {
        if self.all("transfer-encoding").iter().any(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return Framing::Chunked;
        }
        match self.one("content-length") {
            Some(length) => Framing::Length(length.parse().expect("Content-Length is a number")),
            None if request => Framing::Length(0),
            None => Framing::Close,
        }
    }
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection.
    Close,
}

impl Framing {
    /// Reads a body piece by piece; never holds more than one piece.
    ///
    /// # Errors
    /// When reading fails or the body is cut off.
    pub fn read(self, from: &mut impl BufRead, mut piece: impl FnMut(&[u8])) -> io::Result<()> {
        match self {
            Self::Length(length) => read_exactly(from, length, &mut piece),
            Self::Close => read_to_end(from, &mut piece),
            Self::Chunked => loop {
                let length = read_chunk_size(from)?;
                read_exactly(from, length, &mut piece)?;
                let end = read_line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
                if !end.is_empty() {
                    return Err(io::Error::other("a chunk does not end with a line end"));
                }
                if length == 0 {
                    return Ok(());
                }
            },
        }
    }

    /// Reads a whole body.
    ///
    /// # Errors
    /// As [`Framing::read`].
    pub fn read_whole(self, from: &mut impl BufRead) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        self.read(from, |piece| body.extend_from_slice(piece))?;
        Ok(body)
    }
}

fn read_line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if from.take(1 << 20).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.pop_if(|last| *last == b'\r');
    Ok(Some(line.into_iter().map(char::from).collect()))
}

fn read_chunk_size(from: &mut impl BufRead) -> io::Result<u64> {
    let line = read_line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let digits = line.split(';').next().unwrap_or_default().trim();
    u64::from_str_radix(digits, 16).map_err(io::Error::other)
}

fn read_exactly(from: &mut impl BufRead, mut length: u64, piece: &mut impl FnMut(&[u8])) -> io::Result<()> {
    while length > 0 {
        let buffer = from.fill_buf()?;
        if buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let taken = buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        piece(&buffer[..taken]);
        from.consume(taken);
        length -= taken as u64;
    }
    Ok(())
}

fn read_to_end(from: &mut impl BufRead, piece: &mut impl FnMut(&[u8])) -> io::Result<()> {
    loop {
        let buffer = from.fill_buf()?;
        let taken = buffer.len();
        if taken == 0 {
            return Ok(());
        }
        piece(buffer);
        from.consume(taken);
    }
}
