//! The `prkdb` program.
//!
//! Writes to a closed stdout fail instead of killing the process (the runtime of Rust ignores
//! SIGPIPE), and the one writer of results ends quietly then.

use std::process::ExitCode;

fn main() -> ExitCode {
    prkdb::commands::panic::install();
    ExitCode::from(prkdb::commands::run(std::env::args_os()))
}
