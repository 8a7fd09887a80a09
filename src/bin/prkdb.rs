//! The `prkdb` program.
//!
//! Writes to a closed stdout fail instead of killing the process (the runtime of Rust ignores
//! SIGPIPE), and the one writer of results ends quietly then. A shell that asks for completions is
//! answered before anything else could write to stdout.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Keeps what is freed for a while instead of giving it back at once (docs/decisions/0008).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    prkdb::commands::panic::install();
    if let Some(code) = prkdb::commands::complete::hook() {
        return ExitCode::from(code);
    }
    ExitCode::from(prkdb::commands::run(std::env::args_os()))
}
