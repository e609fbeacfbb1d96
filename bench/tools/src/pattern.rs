//! The body of every answer: known to both ends, so that it need not be kept by either to be checked.

/// What is repeated: so many characters as a prime number, that a body which lost a block of a usual size
/// or got one twice is another body.
const ALPHABET: &[u8; 61] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxy";

/// So much is compared at once: it stays in the processor's cache, as a long body would not.
const PIECE: usize = 64 * 1024;

/// The first `bytes` bytes of the pattern.
pub fn pattern(bytes: usize) -> Vec<u8> {
    ALPHABET.iter().copied().cycle().take(bytes).collect()
}

/// A body that is known without being kept.
pub struct Body {
    length: usize,
    /// Longer than what is compared at once by one turn, so that it can begin anywhere in it.
    start: Vec<u8>,
}

impl Body {
    /// The body of so many bytes.
    pub fn new(length: usize) -> Self {
        Self { length, start: pattern(PIECE + ALPHABET.len()) }
    }

    /// How long it is.
    pub const fn length(&self) -> usize {
        self.length
    }

    /// Whether these are its bytes from `at` on.
    pub fn has(&self, at: usize, bytes: &[u8]) -> bool {
        let is_right = |(number, piece): (usize, &[u8])| {
            let turn = (at + number * PIECE) % ALPHABET.len();
            self.start.get(turn..turn + piece.len()) == Some(piece)
        };
        at + bytes.len() <= self.length && bytes.chunks(PIECE).enumerate().all(is_right)
    }
}
