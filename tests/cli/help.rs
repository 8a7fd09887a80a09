//! Help: short, on stdout, with examples that can be typed.

use crate::{cases::commands, support::Home};

#[test]
fn help_of_every_command_is_on_stdout_and_has_two_examples() {
    let home = Home::new();
    for command in commands() {
        for line in [format!("{command} -h"), format!("{command} --help")] {
            let said = home.run(&line);
            assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{line}");
            let text = said.text();
            let count = text.lines().filter(|line| line.trim_start().contains("prkdb ")).count();
            assert!(text.contains("Examples:") && count >= 2, "{line}\n{text}");
            let first = text.lines().next().unwrap();
            assert!(!first.ends_with('.'), "{line}: {first}");
        }
        let by_help = home.run(&format!("help {command}"));
        assert_eq!(by_help.stdout, home.run(&format!("{command} --help")).stdout, "{command}");
    }
}

/// The examples of every command.
pub(crate) fn examples() -> Vec<String> {
    fn collect(command: &clap::Command, all: &mut Vec<String>) {
        let after = command.get_after_help().or(command.get_after_long_help());
        let after = after.map(ToString::to_string).unwrap_or_default();
        let lines = after.lines().filter(|line| line.starts_with("  "));
        all.extend(lines.map(|line| line.trim().to_owned()));
        command.get_subcommands().for_each(|sub| collect(sub, all));
    }
    let mut all = Vec::new();
    collect(&prkdb::cli(), &mut all);
    all
}

#[test]
fn every_example_can_be_parsed() {
    let mut parsed = 0;
    for example in examples() {
        for part in example.split([';', '|', '<', '>', '(', ')']) {
            let Some(at) = part.find("prkdb ") else { continue };
            let words = words(&part[at..]);
            if let Err(error) = prkdb::cli().try_get_matches_from(&words) {
                panic!("{example}: {words:?}\n{error}");
            }
            parsed += 1;
        }
    }
    assert!(parsed > 50, "{parsed}");
}

/// Splits a line at spaces, but not inside single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for c in line.trim().chars() {
        match c {
            '\'' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn short_help_of_the_root_fits_a_screen() {
    let home = Home::new();
    let said = crate::support::said(home.command(["-h"]).env("COLUMNS", "80"));
    let text = said.text();
    assert!(text.lines().count() <= 40, "{text}");
}

#[test]
fn without_arguments_short_help_is_on_stderr() {
    let said = Home::new().run("");
    assert_eq!((said.code, said.stdout.is_empty()), (2, true));
    assert!(said.stderr.contains("Usage: prkdb"));
}

#[test]
fn a_typing_error_gets_a_suggestion() {
    let home = Home::new();
    for (line, suggestion) in [
        ("gett", "'get'"),
        ("collection crate c", "'create'"),
        ("get k --quite", "'--quiet'"),
        ("help exit-code", "'exit-codes'"),
    ] {
        let said = home.run(line);
        assert_eq!(said.code, 2, "{line}");
        assert!(said.stderr.contains(suggestion), "{line}\n{}", said.stderr);
    }
}

#[test]
fn version_names_program_version_and_target() {
    let home = Home::new();
    let line = home.run("--version").text();
    assert!(line.starts_with(&format!("prkdb {} (", env!("CARGO_PKG_VERSION"))), "{line}");
    assert_eq!(home.run("version").text(), line);
}

#[test]
fn exit_codes_are_those_of_the_table() {
    let text = Home::new().run("help exit-codes").text();
    for row in prkdb::commands::exit::TABLE {
        let has = |line: &str| {
            let mut words = line.split_whitespace();
            words.next() == Some(&row.code.to_string()) && words.next() == Some(row.name)
        };
        assert!(text.lines().any(has), "{}", row.code);
    }
}

#[test]
fn every_variable_of_a_flag_is_in_its_help_and_in_help_environment() {
    fn walk(command: &clap::Command, all: &mut Vec<String>) {
        all.extend(
            command
                .get_arguments()
                .filter_map(|arg| arg.get_env().map(|name| name.to_string_lossy().into_owned())),
        );
        command.get_subcommands().for_each(|sub| walk(sub, all));
    }
    let mut names = Vec::new();
    walk(&prkdb::cli(), &mut names);
    assert!(names.len() > 10);
    let text = Home::new().run("help environment").text();
    for name in names {
        assert!(text.lines().any(|line| line.starts_with(&name)), "{name}");
    }
}

#[test]
fn completions_are_there_for_five_shells() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = home.run(&format!("completions {shell}"));
        assert_eq!(said.code, 0);
        assert!(said.text().contains("batch-put"), "{shell}");
    }
}

#[test]
fn completions_that_ask_are_there_for_five_shells() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = home.run(&format!("completions {shell} --dynamic"));
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{shell}");
        assert!(said.text().contains("COMPLETE"), "{shell}\n{}", said.text());
    }
}
