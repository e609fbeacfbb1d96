//! The environment of the integration tests: everything that stands around one gateway.

pub mod browser;
pub mod certificate;
pub mod certified_provider;
pub mod client;
pub mod cookie_jar;
pub mod forge;
pub mod form;
pub mod gateway;
pub mod hpack;
pub mod http2;
pub mod lax;
pub mod node;
pub mod ports;
#[allow(dead_code, reason = "the store's own tests use all of it")]
pub mod redis_server;
pub mod rig;
pub mod scripted_provider;
pub mod server;
pub mod upstream;
pub mod wire;

use std::time::{Duration, Instant};

/// How long anything may take before its test fails. Long, because the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `ready` gives a value.
///
/// # Panics
/// When nothing came within [`DEADLINE`]; `what` stands in the message.
pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(started.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
