//! The `prkdb` program.
//!
//! Writes to a closed stdout fail instead of killing the process (the runtime of Rust ignores
//! SIGPIPE), and the one writer of results ends quietly then. A shell that asks for completions is
//! answered before anything else could write to stdout.

use std::process::ExitCode;

fn main() -> ExitCode {
    prkdb::commands::panic::install();
    if let Some(code) = prkdb::commands::complete::hook() {
        return ExitCode::from(code);
    }
    ExitCode::from(prkdb::commands::run(std::env::args_os()))
}
