//! Sockets: the only place that names pingora.

use crate::config::Settings;

/// Why the server did not start or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Told in words; `exit_code` says which status the process ends with.
    #[error("{0}")]
    Start(String),
}

/// Runs the gateway until it is told to stop (SIGTERM, SIGINT: drain; SIGHUP is caught). Blocks.
///
/// # Errors
/// [`RunError`].
pub fn run(settings: Settings) -> Result<(), RunError> {
    todo!()
}
