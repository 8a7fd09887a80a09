//! Exit codes: the numbers, their names, and the one table that help, man pages and docs are made from.
//!
//! A code that stands for an error of a server comes from [`ErrorCode::exit_code`]; this file adds
//! only the codes that no server knows, and the words for each number.

use std::fmt::Write as _;

use prkdb_types::ErrorCode;

/// Done, also where there was nothing to do, and where the reader of stdout went away.
pub const OK: u8 = 0;
/// The server refused or failed.
pub const FAILURE: u8 = 1;
/// A wrong flag, argument or configuration file.
pub const USAGE: u8 = 2;
/// What was named does not exist.
pub const NOT_FOUND: u8 = 3;
/// No server answered.
pub const UNAVAILABLE: u8 = 4;
/// The deadline passed.
pub const TIMEOUT: u8 = 5;
/// Some items were done and some were not.
pub const PARTIAL: u8 = 8;
/// A confirmation was refused or not possible.
pub const NOT_CONFIRMED: u8 = 9;
/// The node or cluster is in a critical state.
pub const UNHEALTHY: u8 = 10;
/// The node or cluster serves, but something is wrong.
pub const DEGRADED: u8 = 11;
/// A local file failed.
pub const IO: u8 = 13;
/// A defect: the program panicked.
pub const BUG: u8 = 101;
/// Stopped by SIGINT.
pub const INTERRUPTED: u8 = 130;
/// Stopped by SIGTERM.
pub const TERMINATED: u8 = 143;

/// One row of the table of exit codes.
#[derive(Clone, Copy, Debug)]
pub struct ExitCode {
    /// The number.
    pub code: u8,
    /// Its name.
    pub name: &'static str,
    /// When a command ends with it.
    pub when: &'static str,
}

impl ExitCode {
    /// Returns the errors of servers and files that end with this code, in the order of their table.
    pub fn errors(&self) -> impl Iterator<Item = ErrorCode> + '_ {
        ErrorCode::ALL.iter().copied().filter(|error| error.exit_code() == self.code)
    }
}

/// Every exit code, by number.
pub const TABLE: &[ExitCode] = &[
    row(OK, "ok", "done; also when nothing had to change, and when the reader of stdout went away"),
    row(FAILURE, "failure", "the server refused or failed, and no other code says it better"),
    row(USAGE, "usage", "wrong flag, argument or configuration file"),
    row(NOT_FOUND, "not-found", "the key, collection or partition does not exist"),
    row(UNAVAILABLE, "unavailable", "no server could be reached, or it cannot serve at present"),
    row(
        TIMEOUT,
        "timeout",
        "the deadline passed, or the outcome of a write is unknown; the message says which",
    ),
    row(6, "auth", "not authenticated, or not permitted"),
    row(7, "conflict", "a precondition does not hold, such as a version, settings or a checkpoint"),
    row(PARTIAL, "partial", "some items were done and some failed"),
    row(
        NOT_CONFIRMED,
        "not-confirmed",
        "answered no, or a confirmation was needed and not possible",
    ),
    row(UNHEALTHY, "unhealthy", "status or health: critical; doctor: something fails"),
    row(DEGRADED, "degraded", "status: serving, but something is wrong; doctor: something may"),
    row(12, "corrupt", "stored data does not match its checksum"),
    row(IO, "io", "a local file or port: missing, no permission, disk full, in use"),
    row(14, "unsupported", "the server is too old or too new, or a file has a newer format"),
    row(15, "locked", "another process uses the data directory"),
    row(BUG, "bug", "a defect in prkdb; please report it"),
    row(INTERRUPTED, "interrupted", "stopped by SIGINT (Ctrl-C)"),
    row(TERMINATED, "terminated", "stopped by SIGTERM"),
];

const fn row(code: u8, name: &'static str, when: &'static str) -> ExitCode {
    ExitCode { code, name, when }
}

/// Returns the table as text, one line for each code, as `prkdb help exit-codes` prints it.
pub fn table_text() -> String {
    let mut text = String::from("CODE  NAME           WHEN\n");
    for row in TABLE {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:<4}  {:<13}  {}", row.code, row.name, row.when);
    }
    text.push_str("\nThe errors behind each code (error.code of the JSON form):\n\n");
    for row in TABLE {
        let names: Vec<_> = row.errors().map(ErrorCode::name).collect();
        if !names.is_empty() {
            let _ = writeln!(text, "{:<4}  {}", row.code, names.join(", "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_ends_with_a_code_of_the_table() {
        for error in ErrorCode::ALL {
            let count = TABLE.iter().filter(|row| row.code == error.exit_code()).count();
            assert_eq!(count, 1, "{} has exit code {}", error.name(), error.exit_code());
        }
    }

    #[test]
    fn codes_are_unique_and_in_order() {
        assert!(TABLE.windows(2).all(|pair| pair[0].code < pair[1].code));
    }

    #[test]
    fn the_text_has_a_line_for_each_code_and_each_error() {
        let text = table_text();
        for row in TABLE {
            assert!(text.lines().any(|line| line.starts_with(&row.code.to_string())));
        }
        for error in ErrorCode::ALL {
            assert!(text.contains(error.name()));
        }
    }
}
