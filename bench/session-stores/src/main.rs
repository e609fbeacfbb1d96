//! What sessions cost in each of the gateway's stores; `bench/sessions` runs it and prints the table.
//!
//! `session-stores measure STORE FOLDER SESSIONS` fills a store, measures it and prints one JSON object.
//! `session-stores start STORE FOLDER` opens a store that is there and says how long that took.
//! `session-stores backup FOLDER` copies a disk store while it is used.
//! `session-stores fill CONFIG SESSIONS HOT COOKIES [CLAIMS]` puts sessions into the store of a gateway that does not run
//! yet, as if people had signed in there, and writes the cookies of some of them, one a line, into a file; CLAIMS is a JSON
//! object of claims that all of them have.
//! `session-stores write STORE FOLDER` writes sessions until it is killed, and says when it began.

mod fill;
mod measure;
mod people;
mod stores;

use std::path::Path;
use std::process::ExitCode;

use mimalloc::MiMalloc;

use crate::stores::Kind;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Whatever goes wrong ends the measurement.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("session-stores: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Outcome<()> {
    // As in the gateway: the runtime for what is not proxying has two threads.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let figures = match *arguments {
        ["measure", store, folder, sessions] => {
            let (kind, sessions) = (Kind::parse(store)?, sessions.parse()?);
            runtime.block_on(measure::everything(kind, Path::new(folder), sessions))?
        }
        ["start", store, folder] => {
            runtime.block_on(measure::start(Kind::parse(store)?, Path::new(folder)))?
        }
        ["backup", folder] => runtime.block_on(measure::backup(Path::new(folder)))?,
        ["fill", config, sessions, hot, cookies, ref claims @ ..] => {
            let plan =
                fill::Plan { sessions: sessions.parse()?, hot: hot.parse()?, cookies: Path::new(cookies) };
            runtime.block_on(fill::fill(Path::new(config), &plan, claims.first().copied()))?
        }
        ["write", store, folder] => {
            return runtime.block_on(measure::write_until_killed(Kind::parse(store)?, Path::new(folder)));
        }
        _ => return Err("see the head of bench/session-stores/src/main.rs".into()),
    };
    println!("{figures}");
    Ok(())
}
