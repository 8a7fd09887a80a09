//! `prkdb snapshot`: what a shard is as files.

mod inspect;

use prkdb_client::wire::Snapshot;

use crate::commands::{
    failure::Result,
    output::{Cell, Column, Kind, Listing},
    run::runtime,
    session::{self, Session},
};

const EXAMPLES: &str = "\
Examples:
  prkdb snapshot create
  prkdb snapshot list";

const SNAPSHOTS: Listing = Listing {
    schema: "prkdb.snapshots/1",
    columns: &[
        Column::new("ID", "id", Kind::Text),
        Column::new("NODE", "node", Kind::Number),
        Column::new("SHARD", "shard", Kind::Number),
        Column::new("TERM", "term", Kind::Number),
        Column::new("INDEX", "index", Kind::Number),
        Column::new("VOTERS", "voters", Kind::Text),
        Column::new("LEARNERS", "learners", Kind::Text),
        Column::new("SIZE", "size", Kind::Size),
        Column::new("READERS", "readers", Kind::Number),
        Column::new("SHA256", "sha256", Kind::Text),
    ],
    empty: "(no snapshots)",
};

/// Arguments of `snapshot`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Take a snapshot of every shard of a node as it is now
    Create(CreateArgs),
    /// List the snapshots of a node: the last of each shard, and older ones that are still read
    List(ListArgs),
    /// Check a snapshot by its manifest, without a server, and list its files
    Inspect(inspect::InspectArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  prkdb snapshot create\n  prkdb snapshot create --node 1 -o json"
)]
struct CreateArgs {
    /// Id of the node that takes them [default: the node that is asked]
    #[arg(long, value_name = "ID")]
    node: Option<u64>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  prkdb snapshot list\n  prkdb snapshot list -o json")]
struct ListArgs {}

/// Runs `snapshot`.
///
/// # Errors
/// 3 where there is no such node, 12 for a snapshot that is damaged, 13 for a file that cannot be read, 14 for
/// one of a later version.
pub fn run(session: &mut Session, args: Args) -> Result {
    match args.command {
        Command::Create(args) => runtime()?.block_on(create(session, args.node)),
        Command::List(ListArgs {}) => runtime()?.block_on(list(session)),
        Command::Inspect(args) => inspect::run(session, &args),
    }
}

async fn create(session: &mut Session, node: Option<u64>) -> Result {
    session.output.begin(SNAPSHOTS)?;
    let client = session.client().await?;
    let reply = client.create_snapshot(node).await.map_err(|error| session::failure(&error))?;
    show(session, reply.node_id, reply.snapshots)
}

async fn list(session: &mut Session) -> Result {
    session.output.begin(SNAPSHOTS)?;
    let client = session.client().await?;
    let reply = client.list_snapshots().await.map_err(|error| session::failure(&error))?;
    show(session, reply.node_id, reply.snapshots)
}

fn show(session: &mut Session, node: u64, snapshots: Vec<Snapshot>) -> Result {
    let rows = snapshots.into_iter().map(|found| row(node, found)).collect();
    session.output.list(SNAPSHOTS, rows, &session.talk)
}

/// Returns the name of a snapshot: the shard, and the number of its manifest.
fn id(shard: u32, generation: u64) -> String {
    format!("{shard}-{generation}")
}

fn row(node: u64, found: Snapshot) -> Vec<Cell> {
    let numbers = |ids: Vec<u64>| Cell::List(ids.iter().map(u64::to_string).collect());
    vec![
        Cell::Text(id(found.shard, found.generation)),
        Cell::Number(node),
        Cell::Number(found.shard.into()),
        Cell::Number(found.term),
        Cell::Number(found.index),
        numbers(found.voters),
        numbers(found.learners),
        Cell::Size(found.bytes),
        Cell::Number(found.readers.into()),
        Cell::Text(hex::encode(&found.sha256)),
    ]
}
