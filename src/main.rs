//! The program: arguments -> [`portcullis::cli`] -> exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    portcullis::cli::main()
}
