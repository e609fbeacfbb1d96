//! One fuzzer for all targets, so that it links once: `PORTCULLIS_FUZZ` names the one that runs.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

#[path = "../targets/mod.rs"]
mod targets;

static RUN: OnceLock<fn(&[u8])> = OnceLock::new();

/// The target that the environment names.
fn chosen() -> fn(&[u8]) {
    let name = std::env::var("PORTCULLIS_FUZZ").unwrap_or_default();
    let names: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    match targets::TARGETS.iter().find(|(known, _)| *known == name) {
        Some((_, run)) => *run,
        None => panic!("PORTCULLIS_FUZZ is {name:?}, and there are {names:?}"),
    }
}

fuzz_target!(init: { let _ = RUN.set(chosen()); }, |input: &[u8]| {
    if let Some(run) = RUN.get() {
        run(input);
    }
});
