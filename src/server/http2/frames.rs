//! What an HTTP/2 client sends, frame by frame, before the `h2` crate reads it.
//!
//! Owns what that crate does not bound: how long a frame or a header block may be on its way, how many
//! streams a client may open for nothing, how many frames that carry nothing it may send. Reads the nine
//! bytes in front of each frame (RFC 9113 4.1) and no payload. Does no I/O.

use std::time::{Duration, Instant};

/// Streams and frames are counted for so long; then the count begins anew.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`; the `h2` crate compares it.
const PREFACE_BYTES: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// How much of it is too much, within [`WINDOW`].
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameLimits {
    /// Streams that came to nothing: taken back, refused, or never a request at all.
    pub(super) wasted: u32,
    /// Frames that carry nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, DATA without data, unknown ones.
    pub(super) control: u32,
}

/// A client sent more of something than any client needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flood {
    /// Streams that came to nothing.
    #[error("too many streams were taken back or refused")]
    Wasted,
    /// Frames that carry nothing.
    #[error("too many frames that carry nothing")]
    Control,
}

/// Where in the frames of a client the reading is, and what came so far.
#[derive(Debug)]
pub(super) struct Frames {
    limits: FrameLimits,
    head: [u8; 9],
    head_len: usize,
    /// Bytes of the preface, or of a payload, that are still to come.
    skip: usize,
    in_data: bool,
    in_block: bool,
    last_stream: u32,
    unfinished_since: Option<Instant>,
    wasted: Tally,
    control: Tally,
}

/// What came since when.
#[derive(Debug)]
struct Tally {
    since: Instant,
    count: u32,
}

impl Tally {
    const fn new(since: Instant) -> Self {
        Self { since, count: 0 }
    }

    /// Counts one more; says how many came.
    fn add(&mut self, now: Instant) -> u32 {
        if now.duration_since(self.since) >= WINDOW {
            *self = Self::new(now);
        }
        self.count += 1;
        self.count
    }
}

impl Frames {
    /// The frames of a connection that begins now.
    pub(super) const fn new(limits: FrameLimits, now: Instant) -> Self {
        Self {
            limits,
            head: [0; 9],
            head_len: 0,
            skip: PREFACE_BYTES,
            in_data: false,
            in_block: false,
            last_stream: 0,
            unfinished_since: None,
            wasted: Tally::new(now),
            control: Tally::new(now),
        }
    }

    /// Takes the bytes that came.
    ///
    /// # Errors
    /// [`Flood`].
    pub(super) fn take(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
            } else {
                bytes = rest;
                self.push(first, now)?;
            }
            if !self.is_unfinished() {
                self.unfinished_since = None;
            }
        }
        if self.is_unfinished() {
            self.unfinished_since.get_or_insert(now);
        }
        Ok(())
    }

    /// Since when a frame that is no DATA, or a header block, has been on its way.
    pub(super) const fn unfinished_since(&self) -> Option<Instant> {
        self.unfinished_since
    }

    /// A stream is served, or was answered: either makes up for one that came to nothing, so that a proxy in
    /// front, whose one connection carries many clients, is no flood.
    pub(super) const fn note_good(&mut self) {
        self.wasted.count = self.wasted.count.saturating_sub(1);
    }

    /// Whether something other than DATA is on its way.
    const fn is_unfinished(&self) -> bool {
        self.head_len > 0 || self.in_block || (self.skip > 0 && !self.in_data)
    }

    /// One byte in front of a frame.
    fn push(&mut self, byte: u8, now: Instant) -> Result<(), Flood> {
        if let Some(place) = self.head.get_mut(self.head_len) {
            *place = byte;
        }
        self.head_len += 1;
        if self.head_len < self.head.len() {
            return Ok(());
        }
        self.head_len = 0;
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        self.skip = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        self.in_data = kind == DATA;
        self.begin(kind, flags, u32::from_be_bytes(stream) & 0x7fff_ffff, now)
    }

    fn begin(&mut self, kind: u8, flags: u8, stream: u32, now: Instant) -> Result<(), Flood> {
        match kind {
            DATA if self.skip > 0 || flags & END_STREAM != 0 => Ok(()),
            HEADERS => {
                self.in_block = flags & END_HEADERS == 0;
                let opens = stream > self.last_stream;
                self.last_stream = self.last_stream.max(stream);
                if opens { self.waste(now) } else { self.note_control(now) }
            }
            CONTINUATION => {
                self.in_block = flags & END_HEADERS == 0;
                self.note_control(now)
            }
            RST_STREAM => self.waste(now),
            _ => self.note_control(now),
        }
    }

    fn waste(&mut self, now: Instant) -> Result<(), Flood> {
        if self.wasted.add(now) > self.limits.wasted { Err(Flood::Wasted) } else { Ok(()) }
    }

    fn note_control(&mut self, now: Instant) -> Result<(), Flood> {
        if self.control.add(now) > self.limits.control { Err(Flood::Control) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const LIMITS: FrameLimits = FrameLimits { wasted: 10, control: 20 };

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// Frames behind the preface, fed in pieces of this size.
    fn fed(bytes: &[u8], piece: usize, now: Instant) -> (Frames, Result<(), Flood>) {
        let mut frames = Frames::new(LIMITS, now);
        let all = [PREFACE, bytes].concat();
        let result = all.chunks(piece).try_for_each(|piece| frames.take(piece, now));
        (frames, result)
    }

    #[test]
    fn what_is_on_its_way_is_known_however_it_comes() {
        let whole = frame(HEADERS, END_HEADERS | END_STREAM, 1, b"block");
        let open = frame(HEADERS, END_STREAM, 1, b"block");
        let cases: &[(&str, Vec<u8>, bool)] = &[
            ("nothing", Vec::new(), false),
            ("a whole frame", whole.clone(), false),
            ("a part of a frame's head", whole[..4].to_vec(), true),
            ("a part of its payload", whole[..11].to_vec(), true),
            ("an open block", open.clone(), true),
            (
                "an open block with more of it",
                [open.clone(), frame(CONTINUATION, 0, 1, b"more")].concat(),
                true,
            ),
            ("a closed block", [open.clone(), frame(CONTINUATION, END_HEADERS, 1, b"end")].concat(), false),
            ("a part of DATA", frame(DATA, 0, 1, b"a long body")[..12].to_vec(), false),
            ("DATA whose head is a part", frame(DATA, 0, 1, b"a long body")[..5].to_vec(), true),
        ];
        let now = Instant::now();
        for (name, bytes, expected) in cases {
            for piece in [1, 2, 7, 4096] {
                let (frames, result) = fed(bytes, piece, now);
                assert_eq!(result, Ok(()), "{name}");
                assert_eq!(frames.unfinished_since().is_some(), *expected, "{name} by {piece}");
            }
        }
    }

    #[test]
    fn a_block_is_as_old_as_its_first_byte_and_a_new_one_as_its_own() {
        let start = Instant::now();
        let (mut frames, _) = fed(&frame(HEADERS, 0, 1, b""), 4096, start);
        let later = start + Duration::from_secs(3);
        frames.take(&frame(CONTINUATION, 0, 1, b"x"), later).unwrap();
        assert_eq!(frames.unfinished_since(), Some(start));
        let next = [frame(CONTINUATION, END_HEADERS, 1, b"x"), frame(HEADERS, 0, 3, b"")].concat();
        frames.take(&next, later).unwrap();
        assert_eq!(frames.unfinished_since(), Some(later));
    }

    #[test]
    fn more_than_any_client_needs_is_a_flood() {
        let open = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, b"");
        let reset = |stream| frame(RST_STREAM, 0, stream, &[0; 4]);
        let kinds = |kind| frame(kind, 0, 0, b"").repeat(21);
        let cases: &[(&str, Vec<u8>, Result<(), Flood>)] = &[
            (
                "streams that are never served",
                (0..11).flat_map(|i| open(2 * i + 1)).collect(),
                Err(Flood::Wasted),
            ),
            ("fewer of them", (0..10).flat_map(|i| open(2 * i + 1)).collect(), Ok(())),
            (
                "resets",
                (0..6).flat_map(|i| [open(2 * i + 1), reset(2 * i + 1)].concat()).collect(),
                Err(Flood::Wasted),
            ),
            ("DATA without data", kinds(DATA), Err(Flood::Control)),
            ("the ends of bodies", frame(DATA, END_STREAM, 1, b"").repeat(21), Ok(())),
            ("DATA", frame(DATA, 0, 1, b"x").repeat(100), Ok(())),
            ("PRIORITY", kinds(2), Err(Flood::Control)),
            ("SETTINGS", kinds(4), Err(Flood::Control)),
            ("PING", kinds(6), Err(Flood::Control)),
            ("WINDOW_UPDATE", kinds(8), Err(Flood::Control)),
            ("CONTINUATION", kinds(CONTINUATION), Err(Flood::Control)),
            ("trailers", [open(1), open(1).repeat(21)].concat(), Err(Flood::Control)),
            ("unknown frames", kinds(0xbe), Err(Flood::Control)),
        ];
        for (name, bytes, expected) in cases {
            for piece in [1, 4096] {
                assert_eq!(fed(bytes, piece, Instant::now()).1, *expected, "{name}");
            }
        }
    }

    #[test]
    fn streams_that_are_served_and_floods_that_take_their_time_are_none() {
        let start = Instant::now();
        let (mut frames, _) = fed(b"", 4096, start);
        for stream in 0..100 {
            frames.take(&frame(HEADERS, END_HEADERS, 2 * stream + 1, b""), start).unwrap();
            frames.note_good();
        }
        for stream in 100..200 {
            frames.take(&frame(HEADERS, END_HEADERS, 2 * stream + 1, b""), start).unwrap();
            frames.note_good();
            frames.take(&frame(RST_STREAM, 0, 2 * stream + 1, &[0; 4]), start).unwrap();
            frames.note_good();
        }
        for turn in 1..4 {
            let now = start + WINDOW * turn;
            frames.take(&frame(6, 0, 0, &[0; 8]).repeat(20), now).unwrap();
        }
    }
}
