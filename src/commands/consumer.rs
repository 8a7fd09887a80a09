//! `prkdb consumer`: groups that read together.

use prkdb_client::wire;

use crate::commands::{
    failure::Result,
    output::{Cell, Column, Kind, Listing},
    session::{self, Session},
};

const EXAMPLES: &str = "\
Examples:
  prkdb consumer list
  prkdb consumer list -o json";

const GROUPS: Listing = Listing {
    schema: "prkdb.consumer-list/1",
    columns: &[
        Column::new("GROUP", "group", Kind::Text),
        Column::new("STATE", "state", Kind::Text),
        Column::new("MEMBERS", "members", Kind::Number),
        Column::new("COLLECTIONS", "collections", Kind::Text),
        Column::new("LAG", "lag", Kind::Number),
        Column::new("COORDINATOR", "coordinator", Kind::Number),
        Column::new("LAST-COMMIT", "last_commit", Kind::Time),
    ],
    empty: "(no consumer groups)",
};

/// Arguments of `consumer`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the consumer groups
    List(ListArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  prkdb consumer list\n  prkdb consumer list --sort lag:desc --limit 5"
)]
struct ListArgs {}

/// Runs `consumer`.
///
/// # Errors
/// Those of the connection.
pub async fn run(session: &mut Session, args: Args) -> Result {
    session.output.refuse_special_formats()?;
    let Command::List(ListArgs {}) = args.command;
    session.output.begin(GROUPS)?;
    let client = session.client().await?;
    let mut groups = client.list_groups().await.map_err(|error| session::failure(&error))?;
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    let rows = groups.into_iter().map(row).collect();
    session.output.list(GROUPS, rows, &session.talk)
}

fn row(group: wire::Group) -> Vec<Cell> {
    let wire::Group { name, state, members, collections, lag, coordinator, last_commit_ms } = group;
    vec![
        Cell::Text(name),
        Cell::Text(state),
        Cell::Number(u64::from(members)),
        Cell::List(collections),
        Cell::Number(lag),
        match coordinator {
            0 => Cell::Absent,
            node => Cell::Number(node),
        },
        last_commit_ms.map_or(Cell::Absent, Cell::Time),
    ]
}
