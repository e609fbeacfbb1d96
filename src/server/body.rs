//! Where the body of an HTTP/1 request ends.
//!
//! Owns the framing of request bodies, apart from Pingora's own reading of them: no byte behind the
//! end of one message is shown to it, so that the two can't disagree on where the next request
//! begins (PP-9, PP-11). Does no I/O.

/// The most bytes of extensions on one chunk; they mean nothing to anybody.
const MAX_EXTENSION_BYTES: u32 = 256;

/// The most bytes of trailer fields.
const MAX_TRAILER_BYTES: u32 = 8 * 1024;

/// What is left of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes; none left: the message is over.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// Not HTTP any more: a WebSocket, until the connection ends.
    Tunnel,
}

/// A chunked body that breaks the grammar (RFC 9112 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunked body is malformed: {0}")]
pub(super) struct FramingError(&'static str);

/// Where in a chunked body the reading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunked {
    place: Place,
    /// Bytes left of the chunk.
    left: u64,
    /// Digits of the size, bytes of its extension, or bytes of the trailers.
    count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Size,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    TrailerStart,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

impl Framing {
    /// A body of `length` bytes.
    pub(super) const fn length(length: u64) -> Self {
        Self::Length(length)
    }

    /// A chunked body.
    pub(super) const fn chunked() -> Self {
        Self::Chunked(Chunked { place: Place::Size, left: 0, count: 0 })
    }

    /// Whether the message is over.
    pub(super) const fn is_done(self) -> bool {
        match self {
            Self::Length(left) => left == 0,
            Self::Chunked(chunked) => matches!(chunked.place, Place::Done),
            Self::Tunnel => false,
        }
    }

    /// Takes the bytes that come next; says how many of them belong to this message.
    ///
    /// # Errors
    /// [`FramingError`] when a chunked body breaks the grammar.
    pub(super) fn admit(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        match self {
            Self::Length(left) => {
                let admitted = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= admitted as u64;
                Ok(admitted)
            }
            Self::Chunked(chunked) => chunked.admit(bytes),
            Self::Tunnel => Ok(bytes.len()),
        }
    }
}

impl Chunked {
    fn admit(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at).filter(|_| self.place != Place::Done) {
            if self.place == Place::Data {
                at += self.skip(bytes.len() - at);
            } else {
                self.step(byte)?;
                at += 1;
            }
        }
        Ok(at)
    }

    fn skip(&mut self, available: usize) -> usize {
        let skipped = usize::try_from(self.left).map_or(available, |left| left.min(available));
        self.left -= skipped as u64;
        if self.left == 0 {
            self.place = Place::DataReturn;
        }
        skipped
    }

    /// One byte of anything but data.
    fn step(&mut self, byte: u8) -> Result<(), FramingError> {
        self.place = match (self.place, byte) {
            (Place::Size, b'\r') if self.count > 0 => Place::SizeLineFeed,
            (Place::Size, b';') if self.count > 0 => self.enter(Place::Extension),
            (Place::Size, _) => self.digit(byte)?,
            (Place::Extension, b'\r') => Place::SizeLineFeed,
            (Place::Extension, _) => self.text(byte, MAX_EXTENSION_BYTES)?,
            (Place::SizeLineFeed, b'\n') if self.left == 0 => self.enter(Place::TrailerStart),
            (Place::SizeLineFeed, b'\n') => Place::Data,
            (Place::DataReturn, b'\r') => Place::DataLineFeed,
            (Place::DataLineFeed, b'\n') => self.enter(Place::Size),
            (Place::TrailerStart, b'\r') => Place::LastLineFeed,
            (Place::TrailerStart, b' ' | b'\t') => return Err(FramingError("a folded trailer")),
            (Place::TrailerStart | Place::Trailer, _) => self.trailer(byte)?,
            (Place::TrailerLineFeed, b'\n') => Place::TrailerStart,
            (Place::LastLineFeed, b'\n') => Place::Done,
            _ => return Err(FramingError("a line does not end where it must")),
        };
        Ok(())
    }

    const fn enter(&mut self, place: Place) -> Place {
        self.count = 0;
        place
    }

    fn digit(&mut self, byte: u8) -> Result<Place, FramingError> {
        let Some(digit) = char::from(byte).to_digit(16) else {
            return Err(FramingError("a chunk's size is not a hexadecimal number"));
        };
        self.count += 1;
        // Fifteen digits can't overflow, and no body is that long.
        if self.count > 15 {
            return Err(FramingError("a chunk's size has too many digits"));
        }
        self.left = if self.count == 1 { 0 } else { self.left << 4 } | u64::from(digit);
        Ok(Place::Size)
    }

    fn trailer(&mut self, byte: u8) -> Result<Place, FramingError> {
        if byte == b'\r' {
            return Ok(Place::TrailerLineFeed);
        }
        self.place = Place::Trailer;
        self.text(byte, MAX_TRAILER_BYTES)
    }

    fn text(&mut self, byte: u8, limit: u32) -> Result<Place, FramingError> {
        self.count += 1;
        if self.count > limit {
            return Err(FramingError("too many bytes of extensions or trailers"));
        }
        if byte == b'\t' || (byte >= b' ' && byte != 0x7f) {
            return Ok(self.place);
        }
        Err(FramingError("a control character in an extension or trailer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes of `input` belong to a chunked message, given in pieces of `piece` bytes.
    fn chunked_len(input: &[u8], piece: usize) -> Result<Option<usize>, FramingError> {
        let mut framing = Framing::chunked();
        let mut len = 0;
        for part in input.chunks(piece) {
            let admitted = framing.admit(part)?;
            len += admitted;
            if admitted < part.len() {
                break;
            }
        }
        Ok(framing.is_done().then_some(len))
    }

    #[test]
    fn a_body_of_known_length_ends_after_its_bytes() {
        let mut framing = Framing::length(5);
        assert_eq!(framing.admit(b"abc"), Ok(3));
        assert!(!framing.is_done());
        assert_eq!(framing.admit(b"deGET /"), Ok(2));
        assert!(framing.is_done());
        assert_eq!(framing.admit(b"GET /"), Ok(0));
        assert!(Framing::length(0).is_done());
    }

    #[test]
    fn a_chunked_body_ends_with_its_last_chunk_however_it_comes() {
        let cases: &[(&str, &[u8], &[u8])] = &[
            ("empty", b"0\r\n\r\n", b""),
            ("one chunk and the next request", b"3\r\nabc\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\n"),
            ("two chunks, hex size", b"a\r\n0123456789\r\nB\r\n01234567890\r\n0\r\n\r\n", b"x"),
            ("extension", b"3;name=\"va lue\"\r\nabc\r\n0;x\r\n\r\n", b""),
            ("trailers", b"0\r\nX-A: 1\r\nX-B: 2\r\n\r\n", b"POST"),
            ("data that looks like an end", b"7\r\n0\r\n\r\nGE\r\n0\r\n\r\n", b"GET"),
            ("leading zeros", b"003\r\nabc\r\n000\r\n\r\n", b""),
        ];
        for (name, body, next) in cases {
            let input = [*body, *next].concat();
            for piece in [1, 2, 7, input.len()] {
                assert_eq!(chunked_len(&input, piece), Ok(Some(body.len())), "{name}, by {piece}");
            }
        }
    }

    #[test]
    fn a_chunked_body_that_breaks_the_grammar_is_refused() {
        let cases: &[(&str, &[u8])] = &[
            ("no size", b"\r\nabc"),
            ("no digit", b"3z\r\nabc\r\n"),
            ("sign", b"+3\r\nabc\r\n"),
            ("prefix", b"0x3\r\nabc\r\n"),
            ("space behind the size", b"3 \r\nabc\r\n"),
            ("bare line feed behind the size", b"3\nabc\r\n"),
            ("size beyond 64 bits", b"FFFFFFFFFFFFFFFF1\r\n"),
            ("no CRLF behind the data", b"3\r\nabcd\r\n"),
            ("bare line feed behind the data", b"3\r\nabc\n0\r\n\r\n"),
            ("bare line feed in an extension", b"3;a\nb\r\nabc\r\n"),
            ("bare CR in an extension", b"3;a\rb\r\nabc\r\n"),
            ("NUL in an extension", b"3;a\0b\r\nabc\r\n"),
            ("bare line feed behind a trailer", b"0\r\nX: 1\n\r\n"),
            ("folded trailer", b"0\r\n X: 1\r\n\r\n"),
            ("NUL in a trailer", b"0\r\nX: \0\r\n\r\n"),
        ];
        for (name, body) in cases {
            for piece in [1, body.len()] {
                assert!(chunked_len(body, piece).is_err(), "{name}, by {piece}");
            }
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = [b"3;".as_slice(), &[b'a'; 300], b"\r\nabc\r\n"].concat();
        assert!(chunked_len(&extension, 64).is_err());
        let trailers = [b"0\r\n".as_slice(), &b"X-Filler: 0123456789\r\n".repeat(500)].concat();
        assert!(chunked_len(&trailers, 64).is_err());
    }

    #[test]
    fn a_tunnel_has_no_end() {
        let mut framing = Framing::Tunnel;
        assert_eq!(framing.admit(b"anything"), Ok(8));
        assert!(!framing.is_done());
    }
}
