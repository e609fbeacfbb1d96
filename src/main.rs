//! The program: arguments -> [`portcullis::cli`] -> exit code.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request allocates some hundred times, all of it small and soon given back.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    portcullis::cli::main()
}
