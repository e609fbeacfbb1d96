//! The body of every answer: known to both ends, so that it need not be kept by either to be checked.

/// What is repeated: so many characters as a prime number, that a body which lost a block of a usual size
/// or got one twice is another body.
const ALPHABET: &[u8; 61] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxy";

/// The first `bytes` bytes of the pattern.
pub fn pattern(bytes: usize) -> Vec<u8> {
    ALPHABET.iter().copied().cycle().take(bytes).collect()
}
