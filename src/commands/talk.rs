//! What a command says on stderr: errors, hints, warnings, notices.
//!
//! Owns stderr. It never writes results, and it never fails: where stderr is gone there is nobody
//! left to tell.

use std::io::{self, IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};

use crate::commands::{failure::Failure, output::one_line, tree::ColorChoice};

/// How much, and in which form, a command talks.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, each with a flag")]
pub struct Talk {
    /// No notices, hints or progress.
    pub is_quiet: bool,
    /// Errors also as one JSON line.
    pub is_json: bool,
    /// Escape sequences for colours.
    pub is_coloured: bool,
    /// Progress may be drawn.
    pub has_progress: bool,
}

impl Talk {
    /// What is used before the command line is understood.
    pub fn plain() -> Self {
        Self { is_quiet: false, is_json: false, is_coloured: false, has_progress: false }
    }

    /// Tells how a command ended.
    pub fn failure(&self, failure: &Failure) {
        self.line("prkdb:", AnsiColor::Red, &failure.message());
        if let Some(hint) = failure.hint_text()
            && !self.is_quiet
        {
            self.line("hint:", AnsiColor::Cyan, &hint);
        }
        if self.is_json
            && let Ok(mut json) = serde_json::to_vec(&failure.to_json())
        {
            json.push(b'\n');
            write(&json);
        }
    }

    /// Says what went wrong with one item while the command goes on.
    pub fn item_failed(&self, message: &str) {
        self.line("prkdb:", AnsiColor::Red, &one_line(message));
    }

    /// Warns; also with `--quiet`.
    pub fn warning(&self, message: &str) {
        self.line("warning:", AnsiColor::Yellow, &one_line(message));
    }

    /// Adds a hint to what was said.
    pub fn hint(&self, message: &str) {
        if !self.is_quiet {
            self.line("hint:", AnsiColor::Cyan, &one_line(message));
        }
    }

    /// Says something that is neither result nor error.
    pub fn notice(&self, message: &str) {
        if !self.is_quiet {
            write(format!("{}\n", one_line(message)).as_bytes());
        }
    }

    /// Writes text of several lines, such as the help for an empty command line.
    pub fn text(&self, text: &str) {
        write(text.as_bytes());
    }

    fn line(self, label: &str, color: AnsiColor, message: &str) {
        let line = if self.is_coloured {
            let style = Style::new().bold().fg_color(Some(color.into()));
            format!("{style}{label}{style:#} {message}\n")
        } else {
            format!("{label} {message}\n")
        };
        write(line.as_bytes());
    }
}

/// One `write` for each message, so that lines of several processes do not mix.
fn write(bytes: &[u8]) {
    let _written = io::stderr().lock().write_all(bytes);
}

/// Decides about colour for one of the two outputs: the flag wins over the environment.
pub fn is_coloured(choice: ColorChoice, is_terminal: bool) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if is_set("NO_COLOR") => false,
        ColorChoice::Auto
            if std::env::var_os("CLICOLOR_FORCE").is_some_and(|v| !v.is_empty() && v != "0") =>
        {
            true
        }
        ColorChoice::Auto => {
            is_terminal && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
        }
    }
}

/// Returns whether stderr is a terminal.
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}
