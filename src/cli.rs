//! The command line: `run`, `check`, `example-config`, `keygen`, `demo`.

use std::process::ExitCode;

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    todo!()
}
