//! The thin binary: everything is in the library.

use std::process::ExitCode;

/// A request allocates some dozens of small pieces on one thread and frees them on it: what this allocator is best at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    selvedge::cli::run(std::env::args_os())
}
