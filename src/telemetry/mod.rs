//! What the operator is told: log lines and metrics, one function per event.

pub mod events;
pub mod logging;
pub mod metrics;

pub use events::Events;
