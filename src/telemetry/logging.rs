//! Log lines: JSON or human, on standard output, filtered so that no library prints headers or tokens.
//!
//! The gateway's own lines come at the level of the configuration, those of all other crates at WARN
//! and above only, and Pingora's with their fixed text only (see the `bridge` module): it prints request
//! targets with their query, and so codes and states, at ERROR (LG-1, LG-2). `RUST_LOG` is not read.

use std::any::Any;
use std::io::{self, IsTerminal as _};
use std::panic::PanicHookInfo;
use std::sync::{Arc, OnceLock};

use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;

use super::bridge;
use super::events::ACCESS;
use super::lines::{Lines, Shape};
use super::outlet::Outlet;

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

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// It is set up.
    #[error("logging is already set up in this process")]
    AlreadySet,
    /// The thread that writes it.
    #[error("the system gives no thread for the log: {0}")]
    Thread(#[source] io::Error),
}

/// The process's log.
static OUTLET: OnceLock<Arc<Outlet>> = OnceLock::new();

/// Sets up the process's log on standard output, and a panic hook that writes to it.
///
/// # Errors
/// [`InitError`]; when called twice, for one.
pub fn init(settings: &LogSettings) -> Result<(), InitError> {
    let outlet = Arc::new(Outlet::new(io::stdout()));
    let lines = Arc::clone(&outlet);
    let write = move |target: &str, line: &[u8]| lines.take(target == ACCESS, line);
    let subscriber = subscriber(shape(settings.format), settings.level, write);
    tracing::subscriber::set_global_default(subscriber).or(Err(InitError::AlreadySet))?;
    bridge::install().or(Err(InitError::AlreadySet))?;
    outlet.start().map_err(InitError::Thread)?;
    OUTLET.set(outlet).or(Err(InitError::AlreadySet))?;
    std::panic::set_hook(Box::new(tell_panic));
    Ok(())
}

/// Writes the lines that wait; to be called before the process ends.
pub fn flush() {
    if let Some(outlet) = OUTLET.get() {
        outlet.write_out();
    }
}

fn shape(format: Format) -> Shape {
    match format {
        Format::Human => Shape::Human,
        Format::Auto if io::stdout().is_terminal() => Shape::Human,
        Format::Json | Format::Auto => Shape::Json,
    }
}

fn subscriber(
    shape: Shape,
    level: Level,
    write: impl Fn(&str, &[u8]) + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    let own = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let filter =
        Targets::new().with_default(LevelFilter::WARN.min(own)).with_target(env!("CARGO_PKG_NAME"), own);
    tracing_subscriber::registry().with(filter).with(Lines::new(shape, write))
}

fn tell_panic(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string);
    write_panic(info.payload(), location.as_deref());
}

/// One line for a panic. A fixed text is told; one with values in it could hold a secret and is not.
fn write_panic(payload: &(dyn Any + Send), location: Option<&str>) {
    let message = payload.downcast_ref::<&'static str>().copied().unwrap_or("(text withheld)");
    let thread = std::thread::current();
    tracing::error!(event = "panic", location, thread = thread.name(), "{message}");
}

/// The lines that `work` writes on this thread; for tests.
#[cfg(test)]
pub(crate) fn captured(format: Format, level: Level, work: impl FnOnce()) -> Vec<String> {
    use std::sync::{Mutex, Once};

    // With one subscriber in the process `tracing` caches what the first thread to come by thinks of
    // a line; with a second one, that listens to all, it asks each time.
    static LISTEN_TO_ALL: Once = Once::new();
    LISTEN_TO_ALL.call_once(|| {
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    });
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let write =
        move |_: &str, line: &[u8]| sink.lock().unwrap().push(String::from_utf8(line.to_vec()).unwrap());
    tracing::subscriber::with_default(subscriber(shape(format), level, write), work);
    let lines = lines.lock().unwrap();
    lines.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_levels(target: &'static str) -> impl Fn() {
        move || {
            if target == "own" {
                tracing::error!("e");
                tracing::warn!("w");
                tracing::info!("i");
                tracing::debug!("d");
                tracing::trace!("t");
            } else {
                tracing::error!(target: "hyper::proto", "e");
                tracing::warn!(target: "hyper::proto", "w");
                tracing::info!(target: "hyper::proto", "i");
                tracing::debug!(target: "hyper::proto", "d");
                tracing::trace!(target: "hyper::proto", "t");
            }
        }
    }

    #[test]
    fn the_level_holds_for_our_lines_and_libraries_speak_at_warn_and_above_only() {
        let cases = [
            ("own, error", "own", Level::Error, 1),
            ("own, warn", "own", Level::Warn, 2),
            ("own, info", "own", Level::Info, 3),
            ("own, debug", "own", Level::Debug, 4),
            ("own, trace", "own", Level::Trace, 5),
            ("library, error", "hyper", Level::Error, 1),
            ("library, warn", "hyper", Level::Warn, 2),
            ("library, info", "hyper", Level::Info, 2),
            ("library, trace", "hyper", Level::Trace, 2),
        ];
        for (name, target, level, wanted) in cases {
            let lines = captured(Format::Json, level, all_levels(target));
            assert_eq!(lines.len(), wanted, "{name}: {lines:?}");
        }
    }

    #[test]
    fn a_panic_is_one_line_without_the_values_of_its_text() {
        let secret = String::from("hunter2");
        let with_value = std::panic::catch_unwind(|| panic!("the password is {secret}")).unwrap_err();
        let fixed = std::panic::catch_unwind(|| panic!("a fixed text")).unwrap_err();
        let lines = captured(Format::Json, Level::Info, || {
            write_panic(&*with_value, Some("src/a.rs:7:1"));
            write_panic(&*fixed, None);
        });
        let [with_value, fixed] = lines.as_slice() else { panic!("{lines:?}") };
        assert!(!with_value.contains("hunter2"), "{with_value}");
        assert!(
            with_value.contains("(text withheld)") && with_value.contains("src/a.rs:7:1"),
            "{with_value}"
        );
        assert!(fixed.contains("\"event\":\"panic\"") && fixed.contains("a fixed text"), "{fixed}");
    }
}
