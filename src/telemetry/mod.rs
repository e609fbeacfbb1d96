//! What the operator is told: log lines and metrics, one function per event.

mod bridge;
pub mod events;
mod lines;
pub mod logging;
pub mod metrics;
mod outlet;

pub use events::Events;
