//! The command line: `run`, `check`, `doctor`, `backup`, `example-config`, `keygen`, `keys`, `demo`.
//!
//! Exit status: 0 when all went well, 78 (`EX_CONFIG` of sysexits.h) for a configuration that can't be
//! used, 2 for wrong arguments, 1 for everything else; `doctor` has 3 for warnings alone. What went wrong
//! stands on standard error; a report is on standard output, whatever is in it.

mod backup;
mod keys;
mod summary;

use std::error::Error;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use self::backup::BackupFailure;
use self::keys::{KeysCommand, KeysFailure};
use crate::clock::Clock;
use crate::config::{self, ConfigError};
use crate::demo::{self, DemoError, DemoOptions};
use crate::doctor::{self, Level};
use crate::random::RandomError;
use crate::secret;
use crate::server::{self, RunError};
use crate::session::Key;
use crate::telemetry::logging;

const EX_CONFIG: u8 = 78;

/// What `doctor` ends with where there are warnings and no failures.
const WARNINGS: u8 = 3;

/// An authentication gateway: signs people in with OpenID Connect in front of applications that know
/// nothing of sign-in, and tells them in request headers who is asking.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until it is told to stop (SIGTERM or SIGINT; requests in flight are finished)
    Run(ConfigPath),
    /// Check a configuration file and say what it means; exit status 78 if it can't be used
    Check(ConfigPath),
    /// Walk the whole chain of a sign-in (file, names, TLS, provider, keys, client, clocks, store,
    /// applications) and say what holds and what to change
    ///
    /// Exit status by the worst finding: 0 all holds, 3 warnings, 1 failures, 78 the configuration
    /// can't be used. It may run beside the gateway.
    Doctor {
        #[command(flatten)]
        config: ConfigPath,
        /// Print one JSON object for each finding, a line each
        #[arg(long)]
        json: bool,
    },
    /// Make a consistent copy of the session store while the gateway runs (or while none does)
    ///
    /// The running gateway makes it and goes on meanwhile; this has to run as its user or as root. To
    /// restore: stop the gateway, move the copy to `sessions.redb` in `data_dir`, start.
    Backup {
        #[command(flatten)]
        config: ConfigPath,
        /// Where the copy goes, over an older one [default: backup/sessions.redb in `data_dir`]
        output: Option<PathBuf>,
    },
    /// Print a configuration file with every setting, each explained and at its default
    ExampleConfig,
    /// Print a new key for `session.keys`
    Keygen,
    /// Tell of the session keys, or make a new one
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Start a gateway with a provider and an application of its own, to look at in a browser
    Demo {
        /// The gateway's port on loopback [default: 8080, or any free one]
        #[arg(long, value_name = "PORT")]
        port: Option<u16>,
    },
}

#[derive(Debug, Args)]
struct ConfigPath {
    /// The configuration file
    #[arg(
        short = 'c',
        long = "config",
        value_name = "PATH",
        env = "PORTCULLIS_CONFIG",
        default_value = "/etc/portcullis/portcullis.toml"
    )]
    path: PathBuf,
}

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no backup was made: {0}")]
    Backup(#[from] BackupFailure),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("core dumps of this process, which could hold tokens, can't be switched off")]
    CoreDumps(#[source] std::io::Error),
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error(transparent)]
    Keys(#[from] KeysFailure),
    #[error(transparent)]
    Logging(#[from] logging::InitError),
    #[error(transparent)]
    Random(#[from] RandomError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("can't write to standard output")]
    Output(#[from] std::io::Error),
    #[error("the system gives no threads")]
    Threads(#[source] std::io::Error),
}

impl Failure {
    /// Problems of a file begin with the file's name, all else with the program's.
    const fn prefix(&self) -> &'static str {
        if matches!(self, Self::Config(_)) { "" } else { "portcullis: " }
    }

    const fn exit_status(&self) -> u8 {
        match self {
            Self::Config(_) => EX_CONFIG,
            Self::Backup(_)
            | Self::CoreDumps(_)
            | Self::Demo(_)
            | Self::Keys(_)
            | Self::Logging(_)
            | Self::Random(_)
            | Self::Run(_)
            | Self::Output(_)
            | Self::Threads(_) => 1,
        }
    }
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return tell_usage(&usage),
    };
    if let Err(error) = secret::forbid_core_dumps() {
        tell(&Failure::CoreDumps(error));
        return ExitCode::FAILURE;
    }
    install_crypto_provider();
    let executed = cli.command.execute();
    logging::flush();
    match executed {
        Ok(status) => status,
        Err(failure) => {
            tell(&failure);
            ExitCode::from(failure.exit_status())
        }
    }
}

impl Command {
    fn execute(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Run(config) => run(&config.path)?,
            Self::Check(config) => check(&config.path)?,
            Self::Doctor { config, json } => return doctor(&config.path, json),
            Self::Backup { config, output } => back_up(&config.path, output.as_deref())?,
            Self::ExampleConfig => print(config::EXAMPLE)?,
            Self::Demo { port } => demo::run(DemoOptions { port })?,
            Self::Keys { command } => keys(&command)?,
            Self::Keygen => print(Key::random()?.to_text().expose())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn run(path: &Path) -> Result<(), Failure> {
    let settings = config::load(path)?;
    logging::init(&settings.log)?;
    Ok(server::run(settings)?)
}

fn check(path: &Path) -> Result<(), Failure> {
    let settings = config::load(path)?;
    print(&format!("{} is a good configuration.\n\n{}", path.display(), summary::of(&settings)))
}

fn keys(command: &KeysCommand) -> Result<(), Failure> {
    let clock = Clock::system();
    let told = match command {
        KeysCommand::List(config) => keys::list(&config::load(&config.path)?, &clock),
        KeysCommand::Rotate(config) => keys::rotate(&config::load(&config.path)?, &clock),
    };
    print(&told?)
}

fn back_up(path: &Path, output: Option<&Path>) -> Result<(), Failure> {
    let settings = config::load(path)?;
    print(&backup::make(&settings, output)?)
}

/// Findings are printed as they come: some take seconds.
fn doctor(path: &Path, json: bool) -> Result<ExitCode, Failure> {
    let mut printed = Ok(());
    let worst = doctor::examine(path, &Clock::system(), &mut |finding| {
        let line =
            if json { serde_json::to_string(finding).unwrap_or_default() } else { finding.to_string() };
        if printed.is_ok() {
            printed = print(&format!("{line}\n"));
        }
    })
    .map_err(Failure::Threads)?;
    printed?;
    Ok(ExitCode::from(match worst {
        Level::Ok | Level::Note => 0,
        Level::Warning => WARNINGS,
        Level::Failure => 1,
        Level::Unusable => EX_CONFIG,
    }))
}

/// TLS everywhere uses one provider of cryptography; whoever installs one first decides, so this comes
/// before anything that speaks TLS.
fn install_crypto_provider() {
    // It fails only where a provider is installed already, which in this process is this one.
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Help and version go to standard output with status 0, wrong arguments to standard error with 2.
fn tell_usage(usage: &clap::Error) -> ExitCode {
    let printed = usage.print();
    match (usage.use_stderr(), printed) {
        (false, Ok(())) => ExitCode::SUCCESS,
        (true, _) => ExitCode::from(2),
        (false, Err(_)) => ExitCode::FAILURE,
    }
}

fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // `portcullis example-config | head` is no failure.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// The failure and what caused it, on standard error.
fn tell(failure: &Failure) {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        // Some texts hold their cause already.
        let told = error.to_string();
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = error.source();
    }
    // Where nobody listens there is nobody to tell.
    let _unheard = writeln!(std::io::stderr().lock(), "{}{text}", failure.prefix());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_configuration_is_where_the_argument_says_or_at_its_fixed_place() {
        let path = |arguments: &[&str]| match Cli::try_parse_from(arguments).unwrap().command {
            Command::Run(config)
            | Command::Check(config)
            | Command::Doctor { config, .. }
            | Command::Backup { config, .. }
            | Command::Keys { command: KeysCommand::List(config) | KeysCommand::Rotate(config) } => {
                config.path
            }
            other @ (Command::ExampleConfig | Command::Keygen | Command::Demo { .. }) => panic!("{other:?}"),
        };
        assert_eq!(path(&["portcullis", "check", "--config", "a.toml"]), Path::new("a.toml"));
        assert_eq!(path(&["portcullis", "run", "-c", "a.toml"]), Path::new("a.toml"));
        assert_eq!(path(&["portcullis", "keys", "rotate", "-c", "a.toml"]), Path::new("a.toml"));
        assert_eq!(path(&["portcullis", "backup", "-c", "a.toml", "copy"]), Path::new("a.toml"));
    }

    #[test]
    fn only_a_wrong_configuration_ends_with_78() {
        let config = ConfigError { file: "a.toml".to_owned(), problems: Vec::new() };
        assert_eq!(Failure::from(config).exit_status(), 78);
        let signals = RunError::Signals(std::io::Error::other("no"));
        assert_eq!(Failure::Run(signals).exit_status(), 1);
    }
}
