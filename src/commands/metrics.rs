//! `prkdb metrics`: the numbers of a node.

use prkdb_client::{Client, Endpoint};
use regex_lite::Regex;

use crate::commands::{
    failure::Result,
    output::{Cell, Column, Format, Kind, Listing},
    session::{self, Session},
    watch::{WatchArgs, repeat},
};

const EXAMPLES: &str = "\
Examples:
  prkdb metrics
  prkdb metrics --match '^prkdb_.*_bytes$' -o ndjson
  prkdb metrics -o prometheus
  prkdb metrics --match '_connections' --watch 5s
  prkdb metrics names";

const SAMPLES: Listing = Listing {
    schema: "prkdb.metrics/1",
    columns: &[
        Column::new("METRIC", "metric", Kind::Text),
        Column::new("LABELS", "labels", Kind::Text),
        Column::new("VALUE", "value", Kind::Number),
    ],
    empty: "(no metrics)",
};

const NAMES: Listing = Listing {
    schema: "prkdb.metric-names/1",
    columns: &[
        Column::new("NAME", "name", Kind::Text),
        Column::new("TYPE", "type", Kind::Text),
        Column::new("HELP", "help", Kind::Text),
    ],
    empty: "(no metrics)",
};

/// Arguments of `metrics`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Ask this node: HOST:PORT
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Only metrics in whose name this regular expression is found
    #[arg(long = "match", value_name = "RE", value_parser = pattern)]
    pattern: Option<Regex>,
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List names, types and meanings
    Names(NamesArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  prkdb metrics names\n  prkdb metrics names -o json")]
struct NamesArgs {}

/// Runs `metrics`.
///
/// # Errors
/// 4 where the node does not answer.
pub async fn run(session: &mut Session, args: Args) -> Result {
    repeat(session, args.watch, async |session| show(session, &args).await).await
}

async fn show(session: &mut Session, args: &Args) -> Result {
    let is_text = session.output.options.format == Format::Prometheus;
    let listing = if args.command.is_some() { NAMES } else { SAMPLES };
    if !is_text {
        session.output.begin(listing)?;
    }
    let client = match &args.node {
        None => session.client().await?,
        Some(node) => {
            let mut options = session.options.clone();
            options.servers =
                vec![Endpoint::parse(node).map_err(|error| session::failure(&error))?];
            Client::connect(options).await.map_err(|error| session::failure(&error))?
        }
    };
    let exposition = client.metrics().await.map_err(|error| session::failure(&error))?;
    if is_text {
        return session.output.bytes(exposition.as_bytes());
    }
    let rows = match &args.command {
        Some(Command::Names(NamesArgs {})) => names(&exposition),
        None => samples(&exposition, args.pattern.as_ref()),
    };
    session.output.list(listing, rows, &session.talk)
}

fn pattern(text: &str) -> std::result::Result<Regex, String> {
    Regex::new(text).map_err(|error| format!("not a regular expression: {error}"))
}

pub(super) fn samples(exposition: &str, pattern: Option<&Regex>) -> Vec<Vec<Cell>> {
    let lines = exposition.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let mut rows = Vec::new();
    for line in lines {
        let Some((series, value)) = split_value(line) else { continue };
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or(labels)),
            None => (series, ""),
        };
        if pattern.is_none_or(|pattern| pattern.is_match(name)) {
            rows.push(vec![Cell::from(name), Cell::from(labels), number(value)]);
        }
    }
    rows
}

/// Separates a series from its value; label values may hold spaces, a timestamp or exemplar may follow.
fn split_value(line: &str) -> Option<(&str, &str)> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    let mut depth = 0_u32;
    for (at, c) in line.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '{' if !is_quoted => depth += 1,
            '}' if !is_quoted => depth = depth.saturating_sub(1),
            ' ' if !is_quoted && depth == 0 => {
                let (series, rest) = line.split_at_checked(at)?;
                return Some((series, rest.split_whitespace().next()?));
            }
            _ => {}
        }
    }
    None
}

fn number(text: &str) -> Cell {
    match (text.parse::<u64>(), text.parse::<f64>()) {
        (Ok(number), _) => Cell::Number(number),
        (_, Ok(number)) if number.is_finite() => Cell::Float(number),
        _ => Cell::from(text),
    }
}

/// Returns name, type and meaning of each metric.
pub(super) fn described(exposition: &str) -> Vec<(String, String, String)> {
    let mut rows: Vec<(String, String, String)> = Vec::new();
    for line in exposition.lines() {
        let mut words = line.splitn(4, ' ');
        let (Some("#"), Some(what), Some(name), text) =
            (words.next(), words.next(), words.next(), words.next().unwrap_or_default())
        else {
            continue;
        };
        let known = rows.iter().position(|(known, ..)| known == name);
        let index = known.unwrap_or(rows.len());
        if known.is_none() {
            rows.push((name.to_owned(), String::new(), String::new()));
        }
        let Some(row) = rows.get_mut(index) else { continue };
        match what {
            "TYPE" => text.clone_into(&mut row.1),
            "HELP" => text.clone_into(&mut row.2),
            _ => {}
        }
    }
    rows
}

fn names(exposition: &str) -> Vec<Vec<Cell>> {
    described(exposition)
        .into_iter()
        .map(|(name, kind, help)| vec![Cell::Text(name), Cell::Text(kind), Cell::Text(help)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP prkdb_keys Keys.\n# TYPE prkdb_keys gauge\nprkdb_keys 7\n\
        prkdb_rpc_seconds_bucket{le=\"0.5\",method=\"a } b\"} 3 # {} 0.1\nprkdb_x_total 1.5\n# EOF\n";

    #[test]
    fn samples_have_a_name_labels_and_a_number() {
        let rows = samples(TEXT, None);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0], [Cell::from("prkdb_keys"), Cell::from(""), Cell::Number(7)]);
        assert_eq!(rows[2][2], Cell::Float(1.5));
    }

    #[test]
    fn names_have_a_type_and_a_meaning() {
        assert_eq!(
            names(TEXT)[0],
            [Cell::from("prkdb_keys"), Cell::from("gauge"), Cell::from("Keys.")]
        );
    }

    #[test]
    fn a_pattern_is_found_anywhere_in_a_name() {
        let found = |text: &str| samples(TEXT, Some(&pattern(text).unwrap())).len();
        for (text, expected) in [("", 3), ("keys", 1), ("^keys", 0), ("_(keys|x)(_|$)", 2)] {
            assert_eq!(found(text), expected, "{text}");
        }
        assert!(pattern("(").is_err());
    }
}
