//! What is said about a command line that cannot be understood, or that asks for help.
//!
//! The parser's text of several lines becomes the one line and the hint that every error has.

use std::{ffi::OsString, io::IsTerminal as _};

use clap::error::ErrorKind;

use crate::commands::{
    exit,
    failure::Failure,
    run,
    talk::{self, Talk},
    tree::ColorChoice,
};

/// Prints what the parser has to say and returns the exit code.
pub(crate) fn unparsed(error: &clap::Error, args: &[OsString]) -> u8 {
    let choice = color_choice(args);
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let is_coloured = talk::is_coloured(choice, std::io::stdout().is_terminal());
            run::print(&text(error, is_coloured))
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let is_coloured = talk::is_coloured(choice, talk::stderr_is_terminal());
            Talk::plain().text(&text(error, is_coloured));
            exit::USAGE
        }
        _ => {
            let talk = Talk {
                is_json: has_json_output(args),
                is_coloured: talk::is_coloured(choice, talk::stderr_is_terminal()),
                ..Talk::plain()
            };
            talk.failure(&failure(error));
            exit::USAGE
        }
    }
}

fn text(error: &clap::Error, is_coloured: bool) -> String {
    let rendered = error.render();
    if is_coloured { rendered.ansi().to_string() } else { rendered.to_string() }
}

/// The parser's first paragraph is the message; its tip, or else its usage line, is the hint.
fn failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n");
    let first: Vec<&str> = paragraphs.next().unwrap_or_default().lines().map(str::trim).collect();
    let message = first.join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
    let mut hint = None;
    for line in text.lines().map(str::trim) {
        if let Some(tip) = line.strip_prefix("tip: ") {
            hint = Some(tip.to_owned());
            break;
        }
        if let Some(usage) = line.strip_prefix("Usage: ") {
            hint = Some(format!("usage: {usage}"));
        }
    }
    match hint {
        Some(hint) => Failure::usage(message).hint(hint),
        None => Failure::usage(message),
    }
}

/// The flag counts even where the rest of the line cannot be understood.
fn color_choice(args: &[OsString]) -> ColorChoice {
    match value_of(args, &["--color"]) {
        Some("always") => ColorChoice::Always,
        Some("never") => ColorChoice::Never,
        _ => ColorChoice::Auto,
    }
}

fn has_json_output(args: &[OsString]) -> bool {
    let asked = value_of(args, &["-o", "--output"]).map(str::to_owned);
    let asked = asked.or_else(|| std::env::var("PRKDB_OUTPUT").ok());
    matches!(asked.as_deref(), Some("json" | "ndjson"))
}

fn value_of<'a>(args: &'a [OsString], names: &[&str]) -> Option<&'a str> {
    let mut found = None;
    let mut args = args.iter().skip(1).map(|arg| arg.to_str().unwrap_or_default());
    while let Some(arg) = args.next() {
        if arg == "--" {
            break;
        }
        for name in names {
            if arg == *name {
                found = args.next();
                break;
            }
            let joined = arg.strip_prefix(name);
            let value = joined.map(|rest| rest.strip_prefix('=').unwrap_or(rest));
            if value.is_some() {
                found = value;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_format_is_found_in_each_of_its_forms() {
        for line in ["p put -o json", "p put --output=ndjson", "p --output json put", "p -ojson"] {
            assert!(has_json_output(&args(line)), "{line}");
        }
        assert!(!has_json_output(&args("p put -- -o json")));
        assert!(!has_json_output(&args("p put")));
    }

    #[test]
    fn a_typing_error_gets_the_nearest_name_on_one_line() {
        let error =
            crate::commands::tree::cli().try_get_matches_from(["prkdb", "gett"]).unwrap_err();
        let failure = failure(&error);
        assert_eq!(failure.message(), "unrecognized subcommand 'gett'");
        assert_eq!(failure.hint_text().unwrap(), "a similar subcommand exists: 'get'");
    }

    #[test]
    fn a_missing_argument_is_named() {
        let error =
            crate::commands::tree::cli().try_get_matches_from(["prkdb", "put"]).unwrap_err();
        assert!(failure(&error).message().contains("<KEY>"), "{error}");
    }
}
