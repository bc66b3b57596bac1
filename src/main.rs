//! The thin binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    selvedge::cli::run(std::env::args_os())
}
