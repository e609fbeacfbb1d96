//! JOSE: (bytes, keys, now) -> claims. Every signature in the gateway is checked here and nowhere
//! else. Nothing that a token says is ever fetched (`jku`, `x5u`, `jwk`, `x5c` are ignored).

pub mod claims;
pub mod jwk;
pub mod jws;
pub mod private_key;
pub mod rules;
pub mod sign;
pub mod verify;

pub use claims::{ClaimError, Claims};
pub use jwk::KeySet;
pub use verify::Algorithm;

/// Outside text for a log line or an error: at most `max` characters, letters, digits, printable ASCII
/// and the space kept, everything else (controls, direction marks) replaced by `?` (LG-3).
pub(crate) fn printable(text: &str, max: usize) -> String {
    let keep = |c: char| c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric();
    text.chars().take(max).map(|c| if keep(c) { c } else { '?' }).collect()
}
