//! Ports for programs that must be told theirs.

use std::net::TcpStream;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which the kernel hands out ports for outgoing connections, so that a port which
/// is free between two starts of its owner stays free.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
    let spread = std::process::id().wrapping_mul(7919) % u32::from(COUNT);
    AtomicU16::new(u16::try_from(spread).expect("the remainder is below the count"))
});

/// A loopback port on which nobody listens, handed out once in this process.
pub fn free() -> u16 {
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        // Asked by a connection and not by listening: a program that is started just then would inherit the
        // listener and keep the port for a moment.
        if TcpStream::connect(("127.0.0.1", port)).is_err() {
            return port;
        }
    }
    panic!("no free port in {FIRST}..{}", FIRST + COUNT);
}
