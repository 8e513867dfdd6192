//! norn: one infraspec.yaml, one plan, one apply.

use std::process::ExitCode;

fn main() -> ExitCode {
    norn::cli::main()
}
