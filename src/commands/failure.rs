//! How a command ends early: with an error that is told, or quietly with an exit code.
//!
//! A [`Failure`] carries everything that both forms of an error need, the line `prkdb: what: why`
//! and the JSON object of `prkdb.error/1`. It does not write; [`crate::commands::talk`] does.

use std::{fmt, io};

use prkdb_types::{ErrorCode, ErrorKind, Retry};
use serde::Serialize;

use crate::commands::exit;

/// What is known about a write that ended with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was not and never will be applied.
    NotApplied,
    /// It may or may not be applied.
    Unknown,
    /// It is applied; what failed came after it.
    Applied,
}

/// An error of a command, ready to be told.
#[derive(Clone, Debug)]
pub struct Failure {
    code: &'static str,
    exit: u8,
    message: String,
    hint: Option<String>,
    is_retryable: bool,
    outcome: Option<Outcome>,
    node: Option<String>,
    details: Option<Box<serde_json::Value>>,
}

/// Why a command ends before its end.
#[derive(Debug)]
pub enum Stop {
    /// With an error line.
    Failed(Box<Failure>),
    /// With an exit code and no word: the output says it all, or nobody reads it.
    Quiet(u8),
}

/// What a command returns.
pub type Result<T = ()> = std::result::Result<T, Stop>;

impl Failure {
    /// An error of the table.
    pub fn of(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code: code.name(),
            exit: code.exit_code(),
            message: message.into(),
            hint: None,
            is_retryable: code.retry() == Retry::Automatic || code.kind() == ErrorKind::Unavailable,
            outcome: None,
            node: None,
            details: None,
        }
    }

    /// An error that only this program knows.
    fn local(code: &'static str, exit: u8, message: impl Into<String>) -> Self {
        Self { code, exit, is_retryable: false, ..Self::of(ErrorCode::Internal, message) }
    }

    /// A wrong flag, argument or configuration.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::local("usage", exit::USAGE, message)
    }

    /// Some items were done and some were not.
    pub fn partial(message: impl Into<String>) -> Self {
        Self::local("partial", exit::PARTIAL, message)
    }

    /// Records were refused and nothing was done.
    pub fn rejected(message: impl Into<String>) -> Self {
        Self::local("rejected", exit::FAILURE, message)
    }

    /// The measurement is not one, or misses what was expected of it.
    pub fn measurement(message: impl Into<String>) -> Self {
        Self::local("measurement", exit::FAILURE, message)
    }

    /// A confirmation was refused or not possible.
    pub fn not_confirmed(message: impl Into<String>) -> Self {
        Self::local("not_confirmed", exit::NOT_CONFIRMED, message)
    }

    /// The node does not answer as a healthy one.
    pub fn unhealthy(message: impl Into<String>) -> Self {
        Self::local("unhealthy", exit::UNHEALTHY, message)
    }

    /// A file that would be written is there.
    pub fn file_exists(message: impl Into<String>) -> Self {
        Self::local("file_exists", 7, message)
    }

    /// A checkpoint does not fit what it is used for.
    pub fn checkpoint_mismatch(message: impl Into<String>) -> Self {
        Self::local("checkpoint_mismatch", 7, message)
    }

    /// A signal stopped the command; `exit` says which.
    pub fn interrupted(exit: u8, message: impl Into<String>) -> Self {
        Self::local("interrupted", exit, message)
    }

    /// A local file failed: `what` is a verb and its object, such as `open data.txt`.
    pub fn io(what: impl fmt::Display, why: &io::Error) -> Self {
        Self::of(ErrorCode::Io, format!("{what}: {}", reason(why)))
    }

    /// Adds a command or flag that helps.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what is known about the write.
    #[must_use]
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = Some(outcome);
        self
    }

    /// Says which node it came from.
    #[must_use]
    pub fn node(mut self, node: impl Into<String>) -> Self {
        self.node = Some(node.into());
        self
    }

    /// Says whether sending it again may help.
    #[must_use]
    pub fn retryable(mut self, is_retryable: bool) -> Self {
        self.is_retryable = is_retryable;
        self
    }

    /// Adds counts or other particulars to the JSON form.
    #[must_use]
    pub fn details(mut self, details: serde_json::Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// Puts the item it is about before the message.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Makes it that of a command that had done something before; `done` says what.
    #[must_use]
    pub fn into_partial(self, done: impl fmt::Display) -> Self {
        let message = format!("{}; {done}", self.message);
        Self { code: "partial", exit: exit::PARTIAL, message, ..self }
    }

    /// Returns whether the same may succeed later without a change.
    pub fn is_transient(&self) -> bool {
        self.is_retryable
    }

    /// Returns the exit code.
    pub fn exit(&self) -> u8 {
        self.exit
    }

    /// Returns the name of the error.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Returns the message on one line.
    pub fn message(&self) -> String {
        crate::commands::output::one_line(&self.message)
    }

    /// Returns the hint on one line.
    pub fn hint_text(&self) -> Option<String> {
        self.hint.as_deref().map(crate::commands::output::one_line)
    }

    /// Returns the object of the JSON form.
    pub fn to_json(&self) -> impl Serialize {
        ErrorDocument {
            schema: "prkdb.error/1",
            error: ErrorBody {
                code: self.code,
                exit: self.exit,
                message: self.message(),
                hint: self.hint_text(),
                retryable: self.is_retryable,
                outcome: self.outcome,
                node: self.node.clone(),
                details: self.details.clone(),
            },
        }
    }
}

#[derive(Serialize)]
struct ErrorDocument {
    schema: &'static str,
    error: ErrorBody,
}

#[derive(Serialize)]
struct ErrorBody {
    code: &'static str,
    exit: u8,
    message: String,
    hint: Option<String>,
    retryable: bool,
    outcome: Option<Outcome>,
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Box<serde_json::Value>>,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

/// Removes the numbers that the standard library puts behind the words of the system.
pub fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once(')').map_or(part, |(_, rest)| rest));
    }
    plain
}

/// Returns the reason of an I/O error without the number the standard library puts behind it.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text.get(..end).unwrap_or(&text).to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_form_has_the_fields_of_its_schema_in_order() {
        let failure = Failure::of(ErrorCode::UnknownOutcome, "put a: no answer")
            .outcome(Outcome::Unknown)
            .hint("read the key");
        assert_eq!(
            serde_json::to_string(&failure.to_json()).unwrap(),
            r#"{"schema":"prkdb.error/1","error":{"code":"unknown_outcome","exit":5,"message":"put a: no answer","hint":"read the key","retryable":true,"outcome":"unknown","node":null}}"#
        );
    }

    #[test]
    fn io_reasons_have_no_number() {
        let missing = io::Error::from_raw_os_error(2);
        assert_eq!(reason(&missing), "no such file or directory");
        assert_eq!(without_numbers("a: b (os error 2)"), "a: b");
        assert_eq!(without_numbers("a (os error 2), c (os error 13): d"), "a, c: d");
    }

    #[test]
    fn a_message_with_line_breaks_stays_one_line() {
        assert_eq!(Failure::usage("a\nb\x1b[2J").message(), "a\\nb\\x1b[2J");
    }
}
