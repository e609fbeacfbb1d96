//! Log lines: JSON or human, filtered so that no library prints headers or tokens.

/// The shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// Human on a terminal, else JSON.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Human,
}

/// How much is logged, of the gateway's own lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Level {
    /// Only what someone must act on.
    Error,
    /// And what was coped with.
    Warn,
    /// And one line for each request and each sign-in.
    #[default]
    Info,
    /// And calls to providers and stores.
    Debug,
    /// And every step.
    Trace,
}

/// Settings of the log.
#[derive(Clone, Debug, Default)]
pub struct LogSettings {
    /// The shape of lines.
    pub format: Format,
    /// The least level that is written.
    pub level: Level,
    /// Whether each request writes an access line (default true, set by `config`).
    pub access: bool,
}

/// The log is already set up in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("logging is already set up in this process")]
pub struct AlreadySet;

/// Sets up the process's log. Lines of other crates come at WARN and above only, whatever the level:
/// Pingora's and hyper's debug lines print headers (LG-2).
///
/// # Errors
/// [`AlreadySet`] when called twice.
pub fn init(settings: &LogSettings) -> Result<(), AlreadySet> {
    todo!()
}
