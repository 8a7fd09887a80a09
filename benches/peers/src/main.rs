//! PrkDB inside of a program beside other embedded stores of keys and values.
//!
//! ```text
//! cargo build --release --locked --manifest-path benches/peers/Cargo.toml --target-dir target/peers
//! target/peers/release/peers DIR [--rounds 3] [--keys 1000000] [--seconds 3] [--only ID,ID] [--results FILE]
//! ```
//!
//! DIR is on the disk that is measured; every run has a directory of its own in it, which is removed. strace
//! must be installed. Run it on a machine that does nothing else. Each round does three kinds of work, each by
//! one engine after the other in its own new store; the next round begins with the next engine. Printed are
//! medians (smallest-largest) as tables in Markdown, and what is done meanwhile on stderr.
//!
//! - *load*: batches of 1,000 pairs without a sync for each, then gets of keys drawn at random by one thread and
//!   by two. Gets are of what the load left, in the same process. An engine that reads in transactions has one
//!   for a thousand gets; every value is copied out and its first 8 bytes compared.
//! - *puts*: one pair after the other into an empty store, each synced before the next.
//! - *batches*: batches of 1,000 into an empty store, each synced before the next.
//!
//! What the engines do differently is named in the rows: *how* has the calls and settings, and the last column
//! the calls that sync, counted by strace over a hundred commits (see `syncs`). "Without a sync" is not the same
//! promise everywhere. PrkDB (`Relaxed`), fjall, LMDB and SQLite have handed the bytes to the operating system: a
//! program that is killed loses nothing. PrkDB also syncs about ten times in a second, so that a loss of power
//! takes no more; LMDB and SQLite may then be left damaged, as their documentation says. redb with
//! `Durability::None` loses what follows the last synced commit when the program is killed.
//!
//! Rows *under way* are PrkDB alone: its calls return before the commit, so one thread has many. They are not
//! "one after the other", have no time for each, and are no row to hold the others to.
//!
//! A million pairs fit into every engine's memory: fjall, redb and SQLite have caches of 256 MiB. Everything
//! else is at its default. The allocator is the C library's, for all. The time of a row has the making of its
//! pairs in it, which is the same code for each. Before every run the disk is waited for (`sync -f`).
//!
//! What is read is what was written: a thousand keys of every store, its first and last among them, are compared
//! byte for byte, a key that was never put must be missing, and what was synced is read again from a store that
//! was closed and opened. A difference ends the program.
//!
//! The crate is a workspace of its own: nothing of PrkDB depends on it, and no test or lint builds it.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod engines;
mod measure;
mod pairs;
mod report;
mod syncs;

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    engines::{PEERS, Peer, Work},
    measure::{BATCH_PAIRS, Plan},
    report::{Counted, Results, Run},
};

const USAGE: &str =
    "usage: peers DIR [--rounds 3] [--keys 1000000] [--seconds 3] [--only ID,ID] [--results FILE]";

/// What was asked for.
struct Arguments {
    dir: PathBuf,
    rounds: usize,
    plan: Plan,
    peers: Vec<&'static Peer>,
    results: Option<PathBuf>,
}

impl Arguments {
    fn parse(words: &[String]) -> Result<Self> {
        let (mut dir, mut results) = (None, None);
        let mut rounds = 3;
        let mut plan = Plan { keys: 1_000_000, time: Duration::from_secs(3) };
        let mut peers: Vec<&Peer> = PEERS.iter().collect();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value =
                || words.next().with_context(|| format!("{word} needs a value\n{USAGE}"));
            match word.as_str() {
                "--rounds" => rounds = value()?.parse().context("--rounds")?,
                "--keys" => plan.keys = value()?.parse().context("--keys")?,
                "--seconds" => {
                    plan.time = Duration::from_secs(value()?.parse().context("--seconds")?);
                }
                "--only" => {
                    peers = value()?.split(',').map(peer).collect::<Result<_>>()?;
                }
                "--results" => results = Some(PathBuf::from(value()?)),
                option if option.starts_with('-') => bail!("{option} is not known\n{USAGE}"),
                path if dir.is_none() => dir = Some(PathBuf::from(path)),
                more => bail!("{more} is one argument too many\n{USAGE}"),
            }
        }
        let dir = dir.context(USAGE)?;
        ensure!(dir.is_dir(), "{} is not a directory", dir.display());
        let keys = plan.keys;
        ensure!(keys >= BATCH_PAIRS, "--keys {keys} is less than a batch of {BATCH_PAIRS}");
        ensure!(rounds > 0 && !plan.time.is_zero(), "--rounds and --seconds are at least 1");
        Ok(Self { dir, rounds, plan, peers, results })
    }
}

fn peer(id: &str) -> Result<&'static Peer> {
    let ids: Vec<&str> = PEERS.iter().map(|peer| peer.id).collect();
    let found = PEERS.iter().find(|peer| peer.id == id);
    found.with_context(|| format!("{id} is none of {}", ids.join(", ")))
}

/// Returns the peers in the order of a round: each begins with another.
fn order(peers: &[&'static Peer], round: usize) -> Vec<&'static Peer> {
    let mut order = peers.to_vec();
    order.rotate_left(round % peers.len().max(1));
    order
}

/// Returns who does a kind of work.
fn taking_part(peers: &[&'static Peer], work: Work) -> Vec<&'static Peer> {
    peers.iter().copied().filter(|peer| peer.calls(work).is_some()).collect()
}

fn measure_all(arguments: &Arguments) -> Result<Results> {
    let Arguments { dir, rounds, plan, peers, .. } = arguments;
    // Not locked: a reader that panics says so there.
    let mut talk = io::stderr();
    let mut results =
        Results { plan: *plan, counted: Vec::new(), runs: Vec::new(), before: Vec::new() };
    for work in Work::ALL {
        for peer in taking_part(peers, work) {
            let syncs = syncs::count(peer, work, dir)
                .with_context(|| format!("count the syncs of {}, {}", peer.id, work.name()))?;
            writeln!(talk, "syncs: {}, {}: {syncs:?}", peer.id, work.name())?;
            results.counted.push(Counted { peer, work, syncs });
        }
    }
    for round in 0..*rounds {
        results.before.push(["/proc/loadavg", "/proc/pressure/cpu"].map(first_line));
        for work in Work::ALL {
            for peer in order(&taking_part(peers, work), round) {
                let figures = measure::run(peer, work, *plan, dir)
                    .with_context(|| format!("measure {}, {}", peer.id, work.name()))?;
                writeln!(talk, "round {round}: {}, {}: {figures:.1?}", peer.id, work.name())?;
                results.runs.push(Run { round, peer, work, figures });
            }
        }
    }
    Ok(results)
}

/// Returns the first line of a file of the kernel, or nothing where it has none.
fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

fn run(words: &[String]) -> Result<()> {
    if let [word, id, work, dir] = words
        && word == syncs::CHILD
    {
        let work = Work::ALL.into_iter().find(|known| known.name() == work);
        return syncs::child(peer(id)?, work.context("a kind of work")?, Path::new(dir));
    }
    let arguments = Arguments::parse(words)?;
    syncs::need_strace()?;
    let results = measure_all(&arguments)?;
    io::stdout().write_all(results.tables().as_bytes())?;
    if let Some(path) = &arguments.results {
        let text = format!("{:#}\n", results.json());
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to hear that stderr is closed.
            let _unheard = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
