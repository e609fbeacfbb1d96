//! Lines of crates that use the `log` facade: Pingora and rustls among them.
//!
//! Pingora writes at WARN and ERROR what it was given: `Fail to proxy: ..., GET /oauth2/callback?code=...`,
//! unreadable header values, pieces of a request head (read in 0.9.1). So of a Pingora line only what
//! can't hold a request's bytes is written: a text without values, or the start of a text in
//! [`KNOWN`]. The module and line number are always told, so that the rest can be looked up in its source.

use tracing_log::log::{self, Level, LevelFilter, Log, Metadata, Record, SetLoggerError};

/// What stands for a text that is not told.
const WITHHELD: &str = "(text withheld)";

/// How texts of Pingora start whose values come from the operating system and not from a request:
/// these are told whole.
const KNOWN: &[&str] =
    &["Accept() failed ", "shutdown_signal error ", "Unable to listen for shutdown signal: "];

/// Modules of Pingora that speak about one request or connection. The gateway tells the end of each
/// request itself, with a code; Pingora's view of it (a client that went away is an ERROR there)
/// comes at DEBUG.
const ABOUT_ONE_REQUEST: &[&str] = &[
    "pingora_proxy",
    "pingora_core::apps",
    "pingora_core::protocols",
    "pingora_core::connectors",
    "pingora_pool",
];

/// Sends what the `log` facade gets to the gateway's log.
pub(super) fn install() -> Result<(), SetLoggerError> {
    log::set_logger(&Bridge)?;
    // Anything below is not even formatted.
    log::set_max_level(LevelFilter::Warn);
    Ok(())
}

struct Bridge;

impl Log for Bridge {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (library, line, text) = (record.target(), record.line(), text(record));
        match level(record) {
            Level::Error => tracing::error!(library, line, "{text}"),
            Level::Warn => tracing::warn!(library, line, "{text}"),
            Level::Info | Level::Debug | Level::Trace => tracing::debug!(library, line, "{text}"),
        }
    }

    fn flush(&self) {}
}

fn level(record: &Record<'_>) -> Level {
    if is_in(record.target(), ABOUT_ONE_REQUEST) { Level::Debug } else { record.level() }
}

fn is_in(target: &str, modules: &[&str]) -> bool {
    let rest_below = |module: &&str| target.strip_prefix(*module);
    modules.iter().filter_map(rest_below).any(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn text(record: &Record<'_>) -> String {
    if let Some(fixed) = record.args().as_str() {
        return fixed.to_owned();
    }
    let text = record.args().to_string();
    let is_safe =
        !record.target().starts_with("pingora") || KNOWN.iter().any(|known| text.starts_with(known));
    if is_safe { text } else { WITHHELD.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::logging::{self, Format, captured};
    use super::*;

    fn told(target: &str, level: Level, args: std::fmt::Arguments<'_>, at: logging::Level) -> Vec<String> {
        let record = Record::builder().target(target).level(level).line(Some(7)).args(args).build();
        captured(Format::Json, at, || Bridge.log(&record))
    }

    #[test]
    fn values_in_a_line_of_pingora_are_never_told() {
        let code = "SplxlOBeZQQYbYS6WxSbIA";
        for target in [
            "pingora_proxy",
            "pingora_core::apps::http_app",
            "pingora_core::services::listening",
            "pingora_new",
        ] {
            let args = format_args!("Fail to proxy: x, GET /oauth2/callback?code={code}");
            let lines = told(target, Level::Error, args, logging::Level::Trace);
            let [line] = lines.as_slice() else { panic!("{target}: {lines:?}") };
            assert!(!line.contains(code) && line.contains(WITHHELD), "{line}");
            assert!(line.contains(target) && line.contains("\"line\":7"), "{line}");
        }
    }

    #[test]
    fn what_holds_no_values_of_a_request_is_told() {
        let error = std::io::Error::other("too many open files");
        let cases: &[(&str, &str, std::fmt::Arguments<'_>, &str)] = &[
            ("fixed text", "pingora_core::server", format_args!("Daemon mode"), "Daemon mode"),
            (
                "accept",
                "pingora_core::services::listening",
                format_args!("Accept() failed {error}"),
                "too many open files",
            ),
            ("another library", "rustls::server", format_args!("alert {error}"), "alert too many open files"),
        ];
        for (name, target, args, wanted) in cases {
            let lines = told(target, Level::Error, *args, logging::Level::Info);
            assert!(
                lines.iter().any(|line| line.contains(wanted) && line.contains("\"ERROR\"")),
                "{name}: {lines:?}"
            );
        }
    }

    #[test]
    fn lines_below_warn_are_dropped_and_lines_about_one_request_come_at_debug() {
        let cases = [
            ("info", "rustls", Level::Info, logging::Level::Trace, 0),
            ("debug of pingora", "pingora_proxy", Level::Debug, logging::Level::Trace, 0),
            (
                "one request, at info",
                "pingora_core::protocols::http::v1::server",
                Level::Error,
                logging::Level::Info,
                0,
            ),
            (
                "one request, at debug",
                "pingora_core::protocols::http::v1::server",
                Level::Error,
                logging::Level::Debug,
                1,
            ),
            ("a like name", "pingora_proxy_other", Level::Error, logging::Level::Info, 1),
            ("a listener", "pingora_core::services::listening", Level::Error, logging::Level::Info, 1),
        ];
        for (name, target, level, at, wanted) in cases {
            let lines = told(target, level, format_args!("x"), at);
            assert_eq!(lines.len(), wanted, "{name}: {lines:?}");
        }
    }
}
