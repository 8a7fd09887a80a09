//! What comes out: tables in Markdown of medians (smallest-largest), and the raw figures as JSON.

use std::fs;

use serde_json::{Value, json};

use crate::{
    engines::{PEERS, Peer, Work},
    measure::{BATCH_PAIRS, Figures, Plan, precise},
    syncs::{COMMITS, Syncs},
};

/// One run: its round from 0 on, who, what, and the figures.
pub(crate) struct Run {
    pub(crate) round: usize,
    pub(crate) peer: &'static Peer,
    pub(crate) work: Work,
    pub(crate) figures: Figures,
}

/// The syncs of one kind of work of one peer.
pub(crate) struct Counted {
    pub(crate) peer: &'static Peer,
    pub(crate) work: Work,
    pub(crate) syncs: Syncs,
}

/// All that was found.
pub(crate) struct Results {
    pub(crate) plan: Plan,
    pub(crate) counted: Vec<Counted>,
    pub(crate) runs: Vec<Run>,
    /// What `/proc/loadavg` and `/proc/pressure/cpu` said before each round.
    pub(crate) before: Vec<[String; 2]>,
}

/// A column: what stands above it, the figure, what it is divided by, and the digits behind the point.
type Column = (&'static str, &'static str, f64, usize);

const LOAD: &[Column] = &[
    ("puts/s", "puts_s", 1.0, 0),
    ("CPU s per million puts", "cpu_s_per_million", 1.0, 2),
    ("on disk, MB", "disk_bytes", 1e6, 0),
    ("gets/s, 1 thread", "gets_s_1", 1.0, 0),
    ("gets/s, 2 threads", "gets_s_2", 1.0, 0),
];
const PUTS: &[Column] =
    &[("puts/s", "puts_s", 1.0, 0), ("p50 us", "p50_us", 1.0, 0), ("p99 us", "p99_us", 1.0, 0)];
const BATCHES: &[Column] = &[
    ("puts/s", "puts_s", 1.0, 0),
    ("a batch, p50 ms", "p50_us", 1e3, 2),
    ("p99 ms", "p99_us", 1e3, 2),
    ("CPU s per million puts", "cpu_s_per_million", 1.0, 2),
];

impl Results {
    /// Returns a table for each kind of work, and how busy the machine was.
    pub(crate) fn tables(&self) -> String {
        let mut lines = Vec::new();
        for work in Work::ALL {
            let (title, columns) = self.layout(work);
            let mut names = vec!["engine".to_owned(), "how".to_owned()];
            names.extend(columns.iter().map(|(name, ..)| (*name).to_owned()));
            names.push(format!("syncs / {COMMITS} commits"));
            lines.extend([title, String::new(), joined(&names), "|---".repeat(names.len()) + "|"]);
            lines.extend(PEERS.iter().filter_map(|peer| self.row(peer, work, columns)));
            lines.push(String::new());
        }
        lines.push("Load and pressure on the processors before each round:".to_owned());
        lines.push(String::new());
        lines.extend(self.before.iter().map(|[load, pressure]| format!("- {load}; {pressure}")));
        lines.join("\n") + "\n"
    }

    fn layout(&self, work: Work) -> (String, &'static [Column]) {
        let Plan { keys, time } = self.plan;
        let (seconds, batch) = (time.as_secs(), number(precise(BATCH_PAIRS), 0));
        match work {
            Work::Load => {
                let title = format!(
                    "{} keys of 16 bytes, scattered, with values of 100 random bytes, in batches of \
                     {batch} without a sync for each; then gets of keys drawn at random, {seconds} s each:",
                    number(precise(keys), 0)
                );
                (title, LOAD)
            }
            Work::Puts => (format!("Single puts, each synced, {seconds} s:"), PUTS),
            Work::Batches => {
                let count = (keys / 2 / BATCH_PAIRS).max(1);
                (format!("{count} batches of {batch}, each synced:"), BATCHES)
            }
        }
    }

    /// Returns a row; `None` for a peer that took no part.
    fn row(&self, peer: &Peer, work: Work, columns: &[Column]) -> Option<String> {
        let runs: Vec<&Run> =
            self.runs.iter().filter(|run| run.peer.id == peer.id && run.work == work).collect();
        if runs.is_empty() {
            return None;
        }
        let mut cells = vec![named(peer), peer.calls(work)?.to_owned()];
        for &(_, name, divisor, digits) in columns {
            let values = runs.iter().filter_map(|run| run.figures.get(name));
            cells.push(spread(values.map(|value| value / divisor).collect(), digits));
        }
        let counted =
            self.counted.iter().find(|counted| counted.peer.id == peer.id && counted.work == work);
        cells.push(counted.map(|counted| shown(&counted.syncs)).unwrap_or_default());
        Some(joined(&cells))
    }

    /// Returns everything as JSON.
    pub(crate) fn json(&self) -> Value {
        let syncs: Vec<Value> = self
            .counted
            .iter()
            .map(|Counted { peer, work, syncs }| {
                json!({"peer": peer.id, "work": work.name(), "commits": COMMITS, "calls": syncs})
            })
            .collect();
        let runs: Vec<Value> = self
            .runs
            .iter()
            .map(|Run { round, peer, work, figures }| {
                json!({"round": round, "peer": peer.id, "work": work.name(), "figures": figures})
            })
            .collect();
        let packages: Vec<Value> = ["prkdb", "fjall", "heed", "redb", "rusqlite"]
            .iter()
            .map(|package| json!({"name": package, "version": version_of(package)}))
            .collect();
        json!({
            "schema": "prkdb.peers/1",
            "keys": self.plan.keys,
            "batch": BATCH_PAIRS,
            "seconds": self.plan.time.as_secs_f64(),
            "packages": packages,
            "libraries": {"lmdb": heed::lmdb_version().string, "sqlite": rusqlite::version()},
            "processor": processor(),
            "before_rounds": self.before,
            "syncs": syncs,
            "runs": runs,
        })
    }
}

/// Returns cells as a row.
fn joined(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}

/// Returns the name of an engine with its version, and that of the crate it is used through.
fn named(peer: &Peer) -> String {
    let version = version_of(peer.package);
    match peer.package {
        "heed" => {
            let heed::LmdbVersion { major, minor, patch, .. } = heed::lmdb_version();
            format!("LMDB {major}.{minor}.{patch} (heed {version})")
        }
        "rusqlite" => format!("SQLite {} (rusqlite {version})", rusqlite::version()),
        _ => format!("{} {version}", peer.engine),
    }
}

/// Returns counts as `100 fdatasync, 3 fsync`.
fn shown(syncs: &Syncs) -> String {
    if syncs.is_empty() {
        return "none".to_owned();
    }
    let parts: Vec<String> = syncs.iter().map(|(name, count)| format!("{count} {name}")).collect();
    parts.join(", ")
}

/// Returns the median, with the smallest and the largest where there are more than one.
fn spread(mut values: Vec<f64>, digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let (Some(&smallest), Some(&largest)) = (values.first(), values.last()) else {
        return String::new();
    };
    let middle = values.len() / 2;
    let upper = values.get(middle).copied().unwrap_or(largest);
    let is_even = values.len().is_multiple_of(2);
    let lower = middle.checked_sub(1).filter(|_| is_even).and_then(|at| values.get(at).copied());
    let median = number(f64::midpoint(lower.unwrap_or(upper), upper), digits);
    if values.len() == 1 {
        return median;
    }
    format!("{median} ({}-{})", number(smallest, digits), number(largest, digits))
}

/// Returns a number with commas between its thousands.
fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let whole = text.split('.').next().unwrap_or_default().len();
    let mut grouped = String::new();
    for (at, character) in text.chars().enumerate() {
        if at > 0 && at < whole && (whole - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(character);
    }
    grouped
}

/// Returns the version of a package in the lock file.
fn version_of(package: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let (_, rest) =
        lock.split_once(&format!("name = \"{package}\"\nversion = \"")).unwrap_or_default();
    rest.split('"').next().unwrap_or_default()
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map(|(_, name)| name.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_the_median_and_what_is_around_it() {
        assert_eq!(spread(vec![3.0, 1_234_567.0, 12.4], 0), "12 (3-1,234,567)");
        assert_eq!(spread(vec![4.0, 1.0, 2.0, 3.0], 1), "2.5 (1.0-4.0)");
        assert_eq!(spread(vec![1000.25], 2), "1,000.25");
        assert_eq!(spread(Vec::new(), 0), "");
    }

    #[test]
    fn every_peer_has_a_version() {
        assert!(PEERS.iter().all(|peer| !version_of(peer.package).is_empty()));
    }
}
