//! `prkdb collection`: named sets of partitions.

mod settings;
mod truncate;

use prkdb_client::{Client, ClientError, CollectionChanges, Listing as Which, Ttl, wire};
use prkdb_types::{ErrorCode, SettingsError};

pub use self::settings::PartitionerArg;
use self::settings::{
    CleanupArg, DurabilityArg, RetentionArg, add_settings, check_retention, retention,
    retention_cell, retention_or_none, settings, ttl, ttl_or_none, wire_name,
};
use crate::commands::{
    complete,
    failure::{Failure, Result},
    output::{Cell, Column, Format, Kind, Listing, Object, TimeStyle, UnitStyle},
    session::{self, Session},
};

const EXAMPLES: &str = "\
Examples:
  prkdb collection create flights --partitions 3
  prkdb collection list
  prkdb collection describe flights -o json
  prkdb collection drop flights --confirm flights";

const LISTING: Listing = Listing {
    schema: "prkdb.collection-list/1",
    columns: &[
        Column::new("NAME", "name", Kind::Text),
        Column::new("PARTITIONS", "partitions", Kind::Number),
        Column::new("SHARDS", "shards", Kind::Number),
        Column::new("DURABILITY", "durability", Kind::Text),
        Column::new("KEYS", "keys", Kind::Number),
        Column::new("SIZE", "size", Kind::Size),
        Column::new("LOG-START", "log_start", Kind::Number),
        Column::new("LOG-END", "log_end", Kind::Number),
        Column::new("RETENTION", "retention", Kind::Text),
        Column::new("CREATED", "created", Kind::Time),
    ],
    empty: "(no collections)",
};

const PARTITIONS: Listing = Listing {
    schema: "prkdb.collection/1",
    columns: &[
        Column::new("PARTITION", "partition", Kind::Number),
        Column::new("SHARD", "shard", Kind::Number),
        Column::new("LEADER", "leader", Kind::Number),
        Column::new("LOG-START", "log_start", Kind::Number),
        Column::new("LOG-END", "log_end", Kind::Number),
        Column::new("SIZE", "size", Kind::Size),
    ],
    empty: "(no partitions)",
};

/// Arguments of `collection`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the collections
    List(ListArgs),
    /// Create a collection
    Create(CreateArgs),
    /// Describe a collection and its partitions
    Describe(DescribeArgs),
    /// Change how long values last, what is kept, or how many partitions there are
    Alter(AlterArgs),
    /// Let the partitions of a collection begin later
    Truncate(truncate::Args),
    /// Drop a collection with everything in it
    #[command(visible_alias = "delete")]
    Drop(DropArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  prkdb collection list\n  prkdb collection list --sort size:desc --limit 5"
)]
struct ListArgs {
    /// Also those whose name begins with two underscores
    #[arg(long)]
    internal: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  prkdb collection create flights --partitions 3\n  prkdb collection create events --no-index --retention 7d --if-not-exists\n  prkdb collection create accounts --cleanup compact"
)]
struct CreateArgs {
    /// Name: letters, digits, '.', '_' and '-', at most 249
    name: String,
    /// Number of partitions
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(super) partitions: u32,
    /// How keys find their partition [default: ring, above 1,024 partitions kafka]
    #[arg(long, value_enum)]
    pub(super) partitioner: Option<PartitionerArg>,
    /// Put all partitions into one shard
    #[arg(long)]
    pub(super) colocate: bool,
    /// What an acknowledgement promises
    #[arg(long, value_enum, default_value = "sync")]
    pub(super) durability: DurabilityArg,
    /// What happens to old records [default: keep; with --retention expire]
    #[arg(long, value_enum)]
    pub(super) cleanup: Option<CleanupArg>,
    /// What is kept of each partition: an age such as 7d, or a size such as 10GiB; both by giving it twice
    #[arg(long, value_name = "DUR|SIZE", value_parser = retention)]
    pub(super) retention: Vec<RetentionArg>,
    /// How long values last that state nothing else, such as 30s or 1h
    #[arg(long, value_name = "DUR", value_parser = ttl)]
    pub(super) ttl: Option<Ttl>,
    /// Keep no index of keys: for records that are only read in order
    #[arg(long)]
    pub(super) no_index: bool,
    /// Succeed, with any settings, if it exists
    #[arg(long)]
    if_not_exists: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  prkdb collection describe default\n  prkdb collection describe flights -o json"
)]
struct DescribeArgs {
    /// Name
    #[arg(add = complete::collections())]
    name: String,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  prkdb collection drop flights\n  prkdb collection drop flights --confirm flights --if-exists"
)]
struct DropArgs {
    /// Name
    #[arg(add = complete::collections())]
    name: String,
    /// The name again, as confirmation without a terminal
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
    /// Succeed if it does not exist
    #[arg(long)]
    if_exists: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  prkdb collection alter events --partitions 6\n  prkdb collection alter sessions --ttl 1h\n  prkdb collection alter events --retention 7d --retention 10GiB\n  prkdb collection alter sessions --ttl none"
)]
struct AlterArgs {
    /// Name
    #[arg(add = complete::collections())]
    name: String,
    /// Number of partitions it shall have: more than now, and only without a key index
    #[arg(long, value_name = "N", required_unless_present_any = ["ttl", "retention"])]
    partitions: Option<u32>,
    /// How long values last that are appended from now on, such as 1h, or none
    #[arg(long, value_name = "DUR", value_parser = ttl_or_none)]
    ttl: Option<Ttl>,
    /// What is kept of each partition, an age such as 7d, a size such as 10GiB, or none
    #[arg(long, value_name = "DUR|SIZE", value_parser = retention_or_none)]
    retention: Vec<RetentionArg>,
}

/// Runs `collection`.
///
/// # Errors
/// 3 where it does not exist, 7 where it exists with other settings, 9 where a drop is not confirmed.
pub async fn run(session: &mut Session, args: Args) -> Result {
    session.output.refuse_special_formats()?;
    match args.command {
        Command::List(args) => list(session, &args).await,
        Command::Create(args) => create(session, &args).await,
        Command::Describe(args) => describe(session, &args).await,
        Command::Alter(args) => alter(session, &args).await,
        Command::Truncate(args) => truncate::run(session, &args).await,
        Command::Drop(args) => drop(session, &args).await,
    }
}

async fn list(session: &mut Session, args: &ListArgs) -> Result {
    session.output.begin(LISTING)?;
    let client = session.client().await?;
    let which = if args.internal { Which::All } else { Which::Named };
    let mut states =
        client.list_collections(which).await.map_err(|error| session::failure(&error))?;
    states.sort_by(|a, b| name(a).cmp(name(b)));
    let rows = states.iter().map(row).collect();
    session.output.list(LISTING, rows, &session.talk)
}

fn name(state: &wire::CollectionState) -> &str {
    state.collection.as_ref().map_or("", |collection| &collection.name)
}

fn row(state: &wire::CollectionState) -> Vec<Cell> {
    let collection = state.collection.clone().unwrap_or_default();
    let settings = collection.settings.unwrap_or_default();
    let places = state.partitions.iter().filter_map(|partition| partition.place.as_ref());
    let shards: std::collections::BTreeSet<u32> = places.map(|place| place.shard).collect();
    let sum = |field: fn(&wire::PartitionState) -> u64| -> u64 {
        state.partitions.iter().map(field).sum()
    };
    vec![
        Cell::Text(collection.name),
        Cell::Number(u64::from(settings.partitions)),
        Cell::Number(u64::try_from(shards.len()).unwrap_or(u64::MAX)),
        Cell::from(wire_name(settings.durability().as_str_name())),
        match settings.key_index() {
            wire::KeyIndex::Off => Cell::Absent,
            _ => Cell::Number(state.keys),
        },
        Cell::Size(sum(|partition| partition.size_bytes)),
        Cell::Number(sum(|partition| partition.log_start)),
        Cell::Number(sum(|partition| partition.log_end)),
        retention_cell(&settings),
        Cell::Time(collection.created_ms),
    ]
}

async fn create(session: &mut Session, args: &CreateArgs) -> Result {
    if args.partitions == 0 {
        // On the wire it means as many as a collection has by default.
        let message = SettingsError::Partitions(0).to_string();
        return Err(Failure::of(ErrorCode::InvalidArgument, message).into());
    }
    check_retention(&args.retention)?;
    let client = session.client().await?;
    let created = session.writing(client.create_collection(&args.name, settings(args))).await;
    let (collection, is_changed) = match created {
        Ok(reply) => (reply.collection.unwrap_or_default(), reply.changed),
        Err(error) if args.if_not_exists && error.code() == ErrorCode::CollectionExists => {
            (existing(&client, &args.name).await?, false)
        }
        Err(error) => return Err(session::failure(&error).into()),
    };
    if session.output.options.format.is_json() {
        let mut document = Object::document("prkdb.collection-create/1");
        document.add("name", collection.name).add("id", collection.id);
        add_settings(&mut document, collection.settings.unwrap_or_default());
        document.add("changed", is_changed);
        return session.output.document(&document);
    }
    let said = if is_changed { "created" } else { "already there:" };
    session.output.confirmation(&format!("{said} collection {}", args.name))
}

async fn alter(session: &mut Session, args: &AlterArgs) -> Result {
    check_retention(&args.retention)?;
    let client = session.client().await?;
    let mut changes =
        CollectionChanges { partitions: args.partitions, ttl: args.ttl, ..Default::default() };
    for retention in &args.retention {
        match *retention {
            RetentionArg::None => {
                (changes.retention_ms, changes.retention_bytes) = (Some(0), Some(0));
            }
            RetentionArg::Age(ms) => changes.retention_ms = Some(ms),
            RetentionArg::Size(bytes) => changes.retention_bytes = Some(bytes),
        }
    }
    let altered = session.writing(client.alter_collection(&args.name, changes)).await;
    let reply = altered.map_err(|error| session::failure(&error))?;
    let collection = reply.collection.unwrap_or_default();
    if session.output.options.format.is_json() {
        let mut document = Object::document("prkdb.collection-alter/1");
        document.add("name", collection.name).add("id", collection.id);
        add_settings(&mut document, collection.settings.unwrap_or_default());
        document.add("changed", reply.changed);
        return session.output.document(&document);
    }
    let said = if reply.changed { "altered" } else { "already so:" };
    let settings = collection.settings.unwrap_or_default();
    let ttl = match settings.ttl_ms {
        0 => String::new(),
        ttl_ms => format!(
            ", values last {}",
            Cell::Duration(ttl_ms).text(UnitStyle::Readable, TimeStyle::Utc)
        ),
    };
    let (name, partitions) = (&args.name, settings.partitions);
    session.output.confirmation(&format!("{said} collection {name}, {partitions} partitions{ttl}"))
}

async fn existing(client: &Client, name: &str) -> Result<wire::Collection> {
    let described = client.describe_collection(name).await;
    Ok(described.map_err(|error| session::failure(&error))?.collection.unwrap_or_default())
}

async fn describe(session: &mut Session, args: &DescribeArgs) -> Result {
    session.output.begin(PARTITIONS)?;
    let client = session.client().await?;
    let state =
        client.describe_collection(&args.name).await.map_err(|error| session::failure(&error))?;
    let rows: Vec<Vec<Cell>> = state.partitions.iter().map(partition_row).collect();
    let collection = state.collection.clone().unwrap_or_default();
    let settings = collection.settings.unwrap_or_default();
    let time = session.output.options.time;
    let created = Column::new("CREATED", "created", Kind::Time);
    let mut document = Object::document("prkdb.collection/1");
    document.add("name", collection.name).add("id", collection.id);
    add_settings(&mut document, settings);
    Cell::Time(collection.created_ms).add_to(&mut document, &created, time);
    document.add("keys", state.keys);
    match session.output.options.format {
        Format::Json => {
            let items: Vec<_> = rows.iter().map(|row| partition_object(row, time)).collect();
            document.add("partitions", items);
            session.output.document(&document)
        }
        Format::Table => {
            for (name, value) in document.members().skip(1) {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let label = name.to_uppercase().replace('_', "-");
                session.output.line(&format!("{label:<16} {value}"))?;
            }
            session.output.line("")?;
            session.output.list(PARTITIONS, rows, &session.talk)
        }
        _ => session.output.list(PARTITIONS, rows, &session.talk),
    }
}

fn partition_row(partition: &wire::PartitionState) -> Vec<Cell> {
    let place = partition.place.clone().unwrap_or_default();
    vec![
        Cell::Number(u64::from(place.number)),
        Cell::Number(u64::from(place.shard)),
        match partition.leader_node {
            0 => Cell::Absent,
            node => Cell::Number(node),
        },
        Cell::Number(partition.log_start),
        Cell::Number(partition.log_end),
        Cell::Size(partition.size_bytes),
    ]
}

fn partition_object(row: &[Cell], time: TimeStyle) -> Object {
    let mut object = Object::default();
    for (cell, column) in row.iter().zip(PARTITIONS.columns) {
        cell.add_to(&mut object, column, time);
    }
    object
}

async fn drop(session: &mut Session, args: &DropArgs) -> Result {
    let what = format!("drop collection '{}'", args.name);
    session.confirmation.severe(&what, &args.name, args.confirm.as_deref())?;
    let client = session.client().await?;
    let is_changed = match session.writing(client.drop_collection(&args.name)).await {
        Ok(()) => true,
        Err(error) if args.if_exists && is_missing(&error) => false,
        Err(error) => return Err(session::failure(&error).into()),
    };
    if session.output.options.format.is_json() {
        let mut document = Object::document("prkdb.collection-drop/1");
        document.add("name", args.name.as_str()).add("changed", is_changed);
        return session.output.document(&document);
    }
    let said = if is_changed { "dropped" } else { "there is no" };
    session.output.confirmation(&format!("{said} collection {}", args.name))
}

fn is_missing(error: &ClientError) -> bool {
    error.code() == ErrorCode::CollectionNotFound
}
