//! The `kordon` binary: parse arguments, run one command, end with its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(kordon::cli::main())
}
