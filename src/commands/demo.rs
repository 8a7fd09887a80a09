//! `prkdb demo`: what a node does, with real data, in a temporary directory.
//!
//! The node is a child process with data of its own; it is killed without warning on the way, and
//! started again on what it had written.

mod events;

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use prkdb_client::{Client, ClientOptions, Endpoint, Get, Put, Scan, wire};
use prkdb_types::ErrorCode;
use tokio::time::Instant;

use crate::commands::{
    batch_put,
    failure::{Failure, Result},
    output::{Object, escape_bytes, readable_size},
    run::block_on,
    session::{self, Session},
};

const EXAMPLES: &str = "\
Examples:
  prkdb demo
  prkdb demo --keep
  prkdb demo -o json";

/// All flights that left New York City in 2013 (nycflights13, CC0).
const FLIGHTS: &[u8] = include_bytes!("../../examples/data/flights.csv.zst");
const COLLECTION: &str = "flights";
const KEY_COLUMNS: &str = "year,month,day,carrier,flight,origin,sched_dep_time";
const KEY: &str = "2013|1|1|UA|1545|EWR|515";
/// Single puts that are timed.
const PUTS: u32 = 200;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Leave the node running at the end
    #[arg(long)]
    keep: bool,
}

/// Runs `demo`.
///
/// # Errors
/// As the table of exit codes says.
pub fn run(session: &mut Session, args: &Args) -> Result {
    session.output.refuse_special_formats()?;
    block_on(session, async |session| tour(session, args).await)
}

async fn tour(session: &mut Session, args: &Args) -> Result {
    let dir = tempfile::Builder::new()
        .prefix("prkdb-demo-")
        .tempdir()
        .map_err(|error| Failure::io("create a temporary directory", &error))?;
    let mut report = Object::document("prkdb.demo/1");
    let mut node = Node::start(dir.path())?;
    step(
        session,
        &format!("a node serves at {}, its data is in {}", node.address, dir.path().display()),
    )?;
    let client = connect(session, &node.address).await?;
    load(session, &client, &mut report).await?;
    single(session, &client, &mut report).await?;
    let before = count(&client).await?;
    step(session, &format!("scan --count -c {COLLECTION}: {before} keys"))?;
    report.add("keys", before);
    events::produce(session, &client, &mut report).await?;
    events::consume_from_june(session, &client, &mut report).await?;

    node.kill()?;
    let begun = Instant::now();
    let mut node = Node::start(dir.path())?;
    let recovery = begun.elapsed();
    let client = connect(session, &node.address).await?;
    let after = count(&client).await?;
    step(
        session,
        &format!("kill -9, and started again: ready after {}, {after} keys", shown(recovery)),
    )?;
    report.add("recovery_ms", milliseconds(recovery)).add("keys_after", after);
    events::consume_all(session, &client, &mut report).await?;
    if before != after {
        let message = format!("{before} keys before the kill, {after} after it");
        return Err(Failure::of(ErrorCode::Internal, message).into());
    }
    if args.keep {
        node.is_kept = true;
        let path = dir.keep();
        step(
            session,
            &format!("it stays: prkdb -s {} scan -c {COLLECTION} --limit 3", node.address),
        )?;
        step(
            session,
            &format!("end it with: kill {}; its data is in {}", node.child.id(), path.display()),
        )?;
        report.add("server", node.address.as_str()).add("pid", node.child.id());
    }
    if session.output.options.format.is_json() {
        session.output.document(&report)?;
    }
    session.output.flush()
}

/// Prints a line as soon as it is true.
fn step(session: &mut Session, text: &str) -> Result {
    if session.output.options.format.is_json() {
        session.talk.notice(text);
        return Ok(());
    }
    session.output.confirmation(text)?;
    session.output.flush()
}

async fn connect(session: &Session, address: &str) -> Result<Client> {
    let failed = |error| session::failure(&error);
    let server = Endpoint::parse(address).map_err(failed)?;
    let options = ClientOptions { servers: vec![server], ..session.options.clone() };
    Ok(Client::connect(options).await.map_err(failed)?)
}

async fn load(session: &mut Session, client: &Client, report: &mut Object) -> Result {
    let settings = wire::CollectionSettings { partitions: 3, ..Default::default() };
    client
        .create_collection(COLLECTION, settings)
        .await
        .map_err(|error| session::failure(&error))?;
    let csv = flights()?;
    let parsed = <batch_put::Args as clap::Args>::augment_args(clap::Command::new("batch-put"))
        .try_get_matches_from(["batch-put", "flights.csv", "--key-column", KEY_COLUMNS])
        .and_then(|matches| <batch_put::Args as clap::FromArgMatches>::from_arg_matches(&matches));
    let load = parsed.map_err(|error| Failure::of(ErrorCode::Internal, error.to_string()))?;
    let begun = Instant::now();
    let tally = batch_put::from_memory(session, client, COLLECTION, csv, &load).await?;
    let taken = begun.elapsed();
    let rate = per_second(tally.written, taken);
    step(
        session,
        &format!(
            "batch-put of all flights from New York City in 2013: {} records, {} in {}: {rate} records/s, each on the disk before its answer (sync)",
            tally.written,
            readable_size(tally.bytes),
            shown(taken)
        ),
    )?;
    report
        .add("durability", "sync")
        .add("records", tally.written)
        .add("bytes", tally.bytes)
        .add("load_ms", milliseconds(taken))
        .add("records_per_second", rate);
    Ok(())
}

/// Returns the flights as CSV.
fn flights() -> Result<Vec<u8>> {
    zstd::decode_all(FLIGHTS).map_err(|error| Failure::io("unpack the flights", &error).into())
}

async fn single(session: &mut Session, client: &Client, report: &mut Object) -> Result {
    let read =
        client.get(Get::new(COLLECTION, KEY)).await.map_err(|error| session::failure(&error))?;
    let value = read.value.map(|found| escape_bytes(&found.value));
    step(session, &format!("get '{KEY}' -c {COLLECTION}: {}", value.unwrap_or_default()))?;
    let begun = Instant::now();
    for number in 0..PUTS {
        let put = Put::new("default", format!("user:{number}"), "{\"name\": \"Alice\"}");
        client.put(put).await.map_err(|error| session::failure(&error))?;
    }
    let taken = begun.elapsed() / PUTS;
    step(
        session,
        &format!(
            "put user:101 '{{\"name\": \"Alice\"}}': {} µs each, one after the other, on the disk (sync)",
            taken.as_micros()
        ),
    )?;
    report.add("put_us", u64::try_from(taken.as_micros()).unwrap_or(u64::MAX));
    Ok(())
}

async fn count(client: &Client) -> Result<u64> {
    let failed = |error| session::failure(&error);
    let mut scan = client.scan(Scan::new(COLLECTION).count_only()).await.map_err(failed)?;
    Ok(scan.finish().await.map_err(failed)?)
}

fn per_second(count: u64, taken: Duration) -> u64 {
    let micros = taken.as_micros().max(1);
    u64::try_from(u128::from(count) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn shown(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// A node as a child process; killed when dropped, unless it is kept.
struct Node {
    child: Child,
    address: String,
    is_kept: bool,
}

impl Node {
    fn start(dir: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| Failure::io("start the node", &error);
        let log: PathBuf = dir.join("node.log");
        let log_file = File::options().create(true).append(true).open(&log).map_err(failed)?;
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--http", "none", "--data-dir"])
            .arg(dir.join("data"))
            .env_remove("PRKDB_SERVER_CONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .map_err(failed)?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
        }
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("grpc="));
        let node = Self { child, address: address.unwrap_or_default().to_owned(), is_kept: false };
        if node.address.is_empty() {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let last = said.lines().last().unwrap_or("it said nothing").to_owned();
            return Err(Failure::of(
                ErrorCode::Internal,
                format!("the node did not start: {last}"),
            )
            .into());
        }
        Ok(node)
    }

    /// Ends it without warning, as a power cut would end the process.
    fn kill(&mut self) -> Result {
        let failed = |error: std::io::Error| Failure::io("kill the node", &error);
        self.child.kill().map_err(failed)?;
        self.child.wait().map_err(failed)?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !self.is_kept {
            // It may have ended by itself.
            let _killed = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}
