//! `prkdb help`: for a command, or for a topic that belongs to all of them.

use std::fmt::Write as _;

use crate::commands::{
    config::nearest,
    exit,
    failure::{Failure, Result},
    session::Session,
    tree::cli,
};

const EXAMPLES: &str = "\
Examples:
  prkdb help put
  prkdb help collection create
  prkdb help exit-codes";

/// Topics that are no command.
pub const TOPICS: [&str; 3] = ["exit-codes", "environment", "formats"];

/// Arguments of `help`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Command, or one of the topics exit-codes, environment, formats
    #[arg(value_name = "COMMAND|TOPIC")]
    words: Vec<String>,
}

/// Runs `help`.
///
/// # Errors
/// 2 where there is no such command or topic.
pub fn run(session: &mut Session, args: &Args) -> Result {
    session.output.refuse_special_formats()?;
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    let text = match words.as_slice() {
        ["exit-codes"] => exit::table_text(),
        ["environment"] => environment(),
        ["formats"] => FORMATS.to_owned(),
        words => return command_help(session, words),
    };
    session.output.bytes(text.as_bytes())
}

fn command_help(session: &mut Session, words: &[&str]) -> Result {
    let mut root = cli();
    root.build();
    let mut command = &mut root;
    for word in words {
        let names: Vec<String> =
            command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        let Some(found) = command.find_subcommand_mut(word) else {
            let failure = Failure::usage(format!("no command or topic '{}'", words.join(" ")));
            let known = names.iter().map(String::as_str).chain(TOPICS);
            return Err(match nearest(word, known) {
                Some(name) => failure.hint(format!("a similar one exists: '{name}'")),
                None => failure,
            }
            .into());
        };
        command = found;
    }
    let help = command.render_long_help();
    let text =
        if session.output.options.is_coloured { help.ansi().to_string() } else { help.to_string() };
    session.output.bytes(text.as_bytes())
}

/// Variables that belong to no flag.
pub const OTHER_VARIABLES: &[(&str, &str)] = &[
    ("PRKDB_LOG", "filter of the logs on stderr, such as info or prkdb_client=debug"),
    ("PRKDB_SERVER_CONFIG", "serve: as --config"),
    ("COMPLETE", "a shell: print what completes a line of it, as completions --dynamic sets it up"),
    ("NO_COLOR", "no colours, if not empty"),
    ("CLICOLOR_FORCE", "colours also where there is no terminal, if not 0"),
    ("TERM", "'dumb' turns colours and progress off"),
    ("CI", "turns progress off, if set"),
    ("COLUMNS", "width of tables"),
    ("TZ", "time zone of --time local"),
    ("XDG_CONFIG_HOME", "where prkdb/config.toml is looked for; else ~/.config"),
    ("NOTIFY_SOCKET", "serve: where the service manager is told of ready and stopping"),
];

/// Returns every variable, with the flag it stands for.
pub fn environment() -> String {
    let mut rows = Vec::new();
    collect_variables(&cli(), &mut rows);
    rows.sort();
    rows.dedup();
    let mut text =
        String::from("A flag wins over its variable, a variable over the configuration file.\n\n");
    let others =
        OTHER_VARIABLES.iter().map(|(name, what)| ((*name).to_owned(), (*what).to_owned()));
    for (name, what) in rows.into_iter().chain(others) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<22}  {what}");
    }
    text
}

fn collect_variables(command: &clap::Command, rows: &mut Vec<(String, String)>) {
    for arg in command.get_arguments() {
        if let (Some(name), Some(long)) = (arg.get_env(), arg.get_long()) {
            let name = name.to_string_lossy().into_owned();
            let is_global = arg.is_global_set();
            let scope = if is_global { String::new() } else { format!("{}: ", command.get_name()) };
            // A flag that several commands have is told once.
            if is_global || !rows.iter().any(|(known, _)| *known == name) {
                let scope = if ["PRKDB_COLLECTION", "PRKDB_DATA_DIR"].contains(&name.as_str()) {
                    String::new()
                } else {
                    scope
                };
                rows.push((name, format!("{scope}as --{long}")));
            }
        }
    }
    for sub in command.get_subcommands() {
        collect_variables(sub, rows);
    }
}

/// What `help formats` prints.
pub const FORMATS: &str = "\
table       aligned, with units; the default on a terminal. Control characters of stored data are
            printed as escapes.
plain       tab-separated lines with a header; the default elsewhere. Integers without units. In
            cells, tab, line breaks, backslash, control characters and bytes that are not UTF-8 are
            written as \\t \\n \\r \\\\ \\xNN (read back with --encoding escape); an empty cell is -.
json        one document: {\"schema\": \"prkdb.<command>/1\", ...}, lists under \"items\".
ndjson      one object on each line; the first member is \"schema\".
csv         RFC 4180, bytes as they are stored.
raw         get: the exact bytes of one value, without a line break.
prometheus  metrics: the text that /metrics serves.

JSON names are in snake_case; sizes end in _bytes, durations in _ms, times are RFC 3339. Bytes that
are UTF-8 stand under their name, others as base64 under name_b64. Integers are JSON numbers of up to
64 bits: a reader that keeps numbers as doubles is exact up to 2^53.

Results are on stdout, everything else on stderr. An error is one line 'prkdb: what: why', then
perhaps 'hint: ...'; with json and ndjson there is also one line with the schema prkdb.error/1.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_variable_stands_once() {
        let text = environment();
        for name in
            ["PRKDB_SERVER ", "PRKDB_COLLECTION ", "PRKDB_YES ", "NO_COLOR ", "PRKDB_DATA_DIR "]
        {
            assert_eq!(text.matches(name).count(), 1, "{name}\n{text}");
        }
    }
}
