//! What stands around the gateway while `bench/sign-ins` measures what a sign-in costs it.
//!
//! `sign-in provider LISTEN ALGORITHM` is an OpenID provider that answers at once. It needs no page of its own:
//! the code of a sign-in is its nonce, so that it has nothing to remember.
//! `sign-in browsers GATEWAY HOST COUNT BROWSERS` signs in so often, over as many connections as there are
//! browsers, and ends when all is done.

mod browsers;
mod http;
mod provider;

use std::process::ExitCode;

use mimalloc::MiMalloc;
use portcullis::token::Algorithm;

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
            eprintln!("sign-in: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match *arguments {
        ["provider", listen, algorithm] => {
            let algorithm = Algorithm::find(algorithm).ok_or("there is no such algorithm")?;
            runtime.block_on(provider::serve(listen, algorithm))
        }
        ["browsers", gateway, host, count, browsers] => {
            runtime.block_on(browsers::sign_in(gateway, host, count.parse()?, browsers.parse()?))
        }
        _ => Err("see the head of bench/sign-in/src/main.rs".into()),
    }
}
