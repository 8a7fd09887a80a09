//! The reference pages of `docs/`, made from the same tables as help.

use std::fmt::Write as _;

use prkdb_types::{ErrorCode, Retry};

use crate::commands::{exit, help, metrics, tree::cli};

/// Says at the head of a page where it comes from.
const MADE: &str = "<!-- Made from the program: UPDATE=1 cargo test --test cli -->\n";

/// Returns `docs/reference/cli.md`.
pub fn cli_page() -> String {
    let mut root = cli().term_width(100);
    root.build();
    let mut text = format!(
        "{MADE}# Command line\n\nWhat `prkdb COMMAND --help` prints, for every command. Global options are told once, at the root.\n"
    );
    add_command(&mut root, true, &mut text);
    let _ = write!(text, "\n## Environment\n\n```text\n{}```\n", help::environment());
    let _ = write!(text, "\n## Output formats\n\n```text\n{}```\n", help::FORMATS);
    let _ = write!(text, "\n## Exit codes\n\n```text\n{}```\n", exit::table_text());
    text
}

fn add_command(command: &mut clap::Command, is_root: bool, text: &mut String) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    let help = command.render_long_help().to_string();
    let help = if is_root { help } else { without_global_options(&help) };
    // Writing to a String cannot fail.
    let _ = write!(text, "\n## `{name}`\n\n```text\n{}\n```\n", help.trim_end());
    let names: Vec<String> = command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .map(|sub| sub.get_name().to_owned())
        .collect();
    for name in names {
        if let Some(sub) = command.find_subcommand_mut(&name) {
            add_command(sub, false, text);
        }
    }
}

/// Leaves out the section of the options that the root's page tells.
fn without_global_options(help: &str) -> String {
    let mut out = String::new();
    let mut is_inside = false;
    for line in help.lines() {
        if line == "Global options:" {
            is_inside = true;
        } else if !line.starts_with(' ') && !line.is_empty() {
            is_inside = false;
        }
        if !is_inside {
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    out
}

/// Returns `docs/reference/errors.md`.
pub fn errors_page() -> String {
    let mut text = format!(
        "{MADE}# Errors\n\nThe name is `error.code` of the JSON form and `code` on the wire; the kind says what to do. \
         *Repeated* errors are sent again by the client itself, within its deadline and under the same sequence.\n\n\
         | code | gRPC | kind | exit | repeated | what happened |\n|---|---|---|---|---|---|\n"
    );
    for code in ErrorCode::ALL {
        let grpc = code.grpc_code().map_or("-".to_owned(), |number| number.to_string());
        let repeated = if code.retry() == Retry::Automatic { "yes" } else { "no" };
        let (name, kind, exit, summary) =
            (code.name(), code.kind(), code.exit_code(), code.summary());
        let _ = writeln!(text, "| {name} | {grpc} | {kind:?} | {exit} | {repeated} | {summary} |");
    }
    text.push_str("\n## Exit codes\n\n| code | name | when |\n|---|---|---|\n");
    for row in exit::TABLE {
        let _ = writeln!(text, "| {} | {} | {} |", row.code, row.name, row.when);
    }
    text
}

/// Returns `docs/reference/metrics.md`, from what a node shows under `/metrics`.
pub fn metrics_page(exposition: &str) -> String {
    let mut text = format!(
        "{MADE}# Metrics\n\nServed as OpenMetrics text under `/metrics` of the HTTP address, and by `prkdb \
         metrics`. Names and labels are stable; labels have few values: methods, codes, limits, shards. A \
         counter's samples end in `_total`, a histogram's in `_bucket`, `_sum` and `_count`; seconds and bytes \
         are what the names say.\n\n| name | type | what |\n|---|---|---|\n"
    );
    for (name, kind, help) in metrics::described(exposition) {
        let _ = writeln!(text, "| {name} | {kind} | {help} |");
    }
    text
}
