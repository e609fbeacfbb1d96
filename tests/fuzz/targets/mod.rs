//! What is fuzzed: one function for each kind of bytes that come from outside, with what must hold of it.
//!
//! `tests/fuzz` runs these under libFuzzer; `tests/it/seeds.rs` runs them over every kept input, in the
//! normal test run. A broken promise is a panic.

mod cookies;
mod heads;
pub mod paths;
mod provider;
mod proxies;
mod settings;
mod tokens;

/// A target's name, which is the name of its folder of seeds too, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("callback", provider::callback),
    ("chunked", heads::chunked),
    ("config", settings::config),
    ("cookie", cookies::cookie),
    ("forwarded", heads::forwarded),
    ("head", heads::head),
    ("metadata", provider::metadata),
    ("proxies", proxies::proxies),
    ("return_to", paths::return_to),
    ("sealed", cookies::sealed),
    ("target", paths::target),
    ("token", tokens::token),
];

/// The input in parts, which a NUL separates: so many that the last holds all the rest.
fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut parts = input.splitn(N, |byte| *byte == 0);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// A text with bytes changed: each pair of bytes of `edits` is a place and what is mixed into it.
fn edited(text: &str, edits: &[u8]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (edit, number) in edits.chunks_exact(2).zip(0..) {
        // Far places too: every second pair counts from the end.
        let place = usize::from(edit[0]) % bytes.len();
        let place = if number % 2 == 0 { place } else { bytes.len() - 1 - place };
        bytes[place] ^= edit[1];
    }
    bytes
}
