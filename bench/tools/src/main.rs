//! What the benchmark drives proxies with.
//!
//! `bench-tools load` asks a proxy for the same page over and over, checks every answer whole and tells
//! the latencies; `bench-tools upstream` is the application behind the proxies. Both are single-threaded
//! and cost far less than any proxy: they share one core, and must never be what is waited for.

mod head;
mod load;
mod pattern;
mod upstream;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;
use tokio::runtime::Builder;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Whatever goes wrong ends the program.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Drives proxies and stands behind them.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends requests, each as soon as the one before is answered; checks every answer; prints one line of JSON
    Load(load::Options),
    /// Serves /bytes/N, behind any prefix: N bytes of a pattern that the load knows; runs until it is killed
    Upstream(upstream::Options),
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-tools: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Outcome<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    match command {
        Command::Load(options) => runtime.block_on(load::run(options)),
        Command::Upstream(options) => runtime.block_on(upstream::run(options)),
    }
}
