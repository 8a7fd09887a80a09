//! Flipped bits and cut files: what was synced is refused when it is damaged, what was not is cut.

use std::{collections::BTreeMap, fmt, io, path::Path, thread};

use prkdb::storage::{
    StorageError,
    disk::{Access, Disk, sim::SimDisk},
    log::Recovery,
};

use super::{
    decoder::{HEADER, PAGE, Segment},
    load,
    model::{History, LogModel},
    power::{clear, say},
    rig::{DIR, Rig, new_disk, open},
};

/// Returns the names and bytes of the files of a log.
pub(crate) fn files_of(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.list(Path::new(DIR)).unwrap();
    let names = names.iter().map(|name| name.to_str().unwrap().to_owned());
    names
        .map(|name| {
            let file = disk.open(&Path::new(DIR).join(&name), Access::Read).unwrap();
            let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
            file.read_at(0, &mut bytes).unwrap();
            (name, bytes)
        })
        .collect()
}

/// A log that stopped with nothing unsynced, and what the second decoder reads in it.
pub(crate) struct Specimen {
    pub(crate) disk: SimDisk,
    history: History,
    files: Vec<(String, Vec<u8>, Segment)>,
    watermark: u64,
}

impl Specimen {
    /// Returns a log that was recovered once, with two groups behind its last SYNC: the second of
    /// them is acknowledged and nothing says so.
    pub(crate) fn new() -> Self {
        let disk = new_disk();
        let mut rig = Rig::open(&disk, clear(&disk), LogModel::default()).unwrap();
        rig.full_count = 1;
        load::run(&mut rig, 2, 25).unwrap();
        let state = rig.history.last_state().clone();
        drop(rig);
        let mut rig = Rig::open(&disk, clear(&disk), state).unwrap();
        let mut source = load::Source::after(&rig, 6);
        source.new_term(&mut rig).unwrap();
        rig.drive().unwrap();
        let state = rig.history.last_state().clone();
        drop(rig);
        // Recovery copies that group, and the log goes on behind it.
        let mut rig = Rig::open(&disk, clear(&disk), state).unwrap();
        let mut source = load::Source::after(&rig, 7);
        source.new_term(&mut rig).unwrap();
        for group in 0..8 {
            for _ in 0..=group % 3 {
                source.write(&mut rig).unwrap();
            }
            rig.drive().unwrap();
        }
        let files: Vec<_> = files_of(&disk)
            .into_iter()
            .filter(|(name, _)| !name.contains("quarantine"))
            .map(|(name, bytes)| {
                let segment = Segment::decode(&name, &bytes).unwrap();
                (name, bytes, segment)
            })
            .collect();
        let watermark = evidence(&files, None).unwrap();
        assert!(
            files.iter().any(|(.., segment)| segment.page.as_ref().is_some_and(|p| p.cut_lsn > 0))
        );
        Self { disk, history: rig.history, files, watermark }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.files.iter().map(|(_, bytes, _)| bytes.len()).sum()
    }

    /// Says what lies at a byte, and the entry that it belongs to.
    fn region(&self, file: usize, position: usize) -> Region {
        let (.., segment) = &self.files[file];
        let Some(page) = &segment.page else { return Region::unused(PREPARED) };
        let above = |lsn: u64| lsn > self.watermark;
        if position < PAGE {
            return Region {
                part: "segment page",
                start: Some(0),
                is_above: above(page.first_lsn),
            };
        }
        let Some(entry) = segment
            .entries
            .iter()
            .find(|entry| (entry.position..entry.position + entry.len).contains(&position))
        else {
            return Region::unused("behind the last entry");
        };
        let part = match entry.kind {
            _ if position < entry.position + HEADER => "entry header",
            2 if entry.batches.iter().any(|(from, to)| (*from..*to).contains(&position)) => "batch",
            2 => "frame headers",
            1 | 3 => "blank, membership",
            _ => "vote, truncate, purge",
        };
        Region { part, start: Some(entry.position), is_above: above(entry.lsn) }
    }
}

/// The highest watermark that is still there when a file ends at a length.
fn evidence(files: &[(String, Vec<u8>, Segment)], cut: Option<(usize, usize)>) -> Option<u64> {
    let headers = files.iter().enumerate().flat_map(|(at, (.., segment))| {
        let len = cut.filter(|(file, _)| *file == at).map_or(usize::MAX, |(_, len)| len);
        let page = segment.page.iter().filter(move |_| len >= 512).map(|page| page.synced_lsn);
        let entries = segment.entries.iter().filter(move |e| e.position + HEADER <= len);
        page.chain(entries.map(|entry| entry.synced_lsn))
    });
    headers.max()
}

const PREPARED: &str = "prepared segment";

#[derive(Clone, Copy, Debug)]
struct Region {
    part: &'static str,
    /// Where the damaged entry or page starts.
    start: Option<usize>,
    is_above: bool,
}

impl Region {
    fn unused(part: &'static str) -> Self {
        Self { part, start: None, is_above: true }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Refused,
    Cut,
    Whole,
}

/// Counts of region and outcome.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table(BTreeMap<(&'static str, &'static str), BTreeMap<Outcome, usize>>);

impl Table {
    fn count(&mut self, region: Region, outcome: Outcome) {
        let side = match (region.start, region.is_above) {
            (None, _) => "unused",
            (_, true) => "above the mark",
            (_, false) => "synced",
        };
        *self.0.entry((region.part, side)).or_default().entry(outcome).or_default() += 1;
    }

    fn add(&mut self, other: &Self) {
        for (row, outcomes) in &other.0 {
            for (outcome, count) in outcomes {
                *self.0.entry(*row).or_default().entry(*outcome).or_default() += count;
            }
        }
    }

    pub(crate) fn sum(&self) -> usize {
        self.0.values().flat_map(BTreeMap::values).sum()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<22} {:<15} {:>8} {:>8} {:>8}", "region", "", "refused", "cut", "whole")?;
        for ((part, side), outcomes) in &self.0 {
            let of = |outcome| outcomes.get(&outcome).copied().unwrap_or_default();
            let counts = [Outcome::Refused, Outcome::Cut, Outcome::Whole].map(of);
            writeln!(
                f,
                "{part:<22} {side:<15} {:>8} {:>8} {:>8}",
                counts[0], counts[1], counts[2]
            )?;
        }
        Ok(())
    }
}

/// What opening a damaged log did.
enum Opened {
    Refused { path: String, position: u64 },
    Read(Box<LogModel>, Recovery),
}

/// Opens a damaged log: it is refused as corrupt and left as it is, or read.
fn open_damaged(disk: &SimDisk) -> Result<Opened, String> {
    let before = disk.hash();
    match open(disk) {
        Ok((log, recovery)) => Ok(Opened::Read(Box::new(LogModel::of(&log)?), recovery)),
        Err(StorageError::Corrupt { path, position, expected, found }) => {
            if disk.hash() != before {
                return Err("refused and changed".to_owned());
            }
            if expected.is_empty() || found.is_empty() || expected == found {
                return Err("refused without a reason".to_owned());
            }
            let path = path.file_name().unwrap().to_str().unwrap().to_owned();
            Ok(Opened::Refused { path, position })
        }
        Err(other) => Err(format!("another error than damage: {other}")),
    }
}

fn check_flip(
    specimen: &Specimen,
    file: usize,
    position: usize,
    bit: u8,
) -> Result<Outcome, String> {
    let (name, ..) = &specimen.files[file];
    let disk = specimen.disk.clone_image();
    disk.flip_bit(&Path::new(DIR).join(name), u64::try_from(position).unwrap(), bit)
        .map_err(|error| error.to_string())?;
    let region = specimen.region(file, position);
    match open_damaged(&disk)? {
        Opened::Refused { path, position } => {
            let start = region
                .start
                .filter(|_| !region.is_above)
                .ok_or("refused, and nothing synced is damaged")?;
            if path != *name || position != u64::try_from(start).unwrap() {
                return Err(format!(
                    "names byte {position} of {path} instead of {start} of {name}"
                ));
            }
            Ok(Outcome::Refused)
        }
        Opened::Read(..) if !region.is_above => {
            Err("damage of what was synced is not refused".to_owned())
        }
        Opened::Read(read, recovery) => {
            let all = specimen.history.ops().count();
            let synced = specimen.history.count_up_to(specimen.watermark);
            let count = specimen.history.explain(&read, (synced, all))?;
            if recovery.cut_bytes == 0 {
                return Err("something was cut and not said".to_owned());
            }
            let is_whole = *specimen.history.state(count) == *specimen.history.last_state();
            if region.start.is_none() && !is_whole {
                return Err("damage where nothing is lost something".to_owned());
            }
            Ok(if is_whole { Outcome::Whole } else { Outcome::Cut })
        }
    }
}

/// Flips one bit of every `step`-th byte, and all bits of headers and pages.
pub(crate) fn check_flips(step: usize) -> Result<Table, String> {
    let specimen = Specimen::new();
    check_flips_of(&specimen, 0, step)
}

fn check_flips_of(specimen: &Specimen, first: usize, step: usize) -> Result<Table, String> {
    let mut table = Table::default();
    for (file, (name, bytes, _)) in specimen.files.iter().enumerate() {
        for position in (first..bytes.len()).step_by(step) {
            let region = specimen.region(file, position);
            // A prepared segment is the same zeros all over.
            if region.part == PREPARED && position % 32 >= step {
                continue;
            }
            let own = u8::try_from(position % 8).unwrap();
            let is_header =
                region.part == "entry header" || (region.part == "segment page" && position < 512);
            for bit in if is_header { 0..8 } else { own..own + 1 } {
                let outcome = check_flip(specimen, file, position, bit).map_err(|error| {
                    format!("bit {bit} of byte {position} of {name} ({region:?}): {error}")
                })?;
                table.count(region, outcome);
            }
        }
    }
    Ok(table)
}

/// Ends a file at a length.
fn cut(disk: &SimDisk, name: &str, len: usize) -> io::Result<()> {
    let file = disk.open(&Path::new(DIR).join(name), Access::ReadWrite)?;
    file.truncate(u64::try_from(len).unwrap())?;
    file.sync_all()
}

/// Cuts a file to a length: exactly what a reader of headers would expect is refused or left.
fn check_cut(specimen: &Specimen, file: usize, len: usize) -> Result<(Region, Outcome), String> {
    let (name, _, segment) = &specimen.files[file];
    let disk = specimen.disk.clone_image();
    cut(&disk, name, len).map_err(|error| error.to_string())?;
    let watermark = evidence(&specimen.files, Some((file, len))).unwrap();
    let lost = segment.entries.iter().find(|entry| len < 512 || entry.position + entry.len > len);
    let last = match lost {
        Some(entry) => entry.lsn - 1,
        None => u64::MAX,
    };
    // The position of a byte of what is lost says which region was cut.
    let region = match lost {
        Some(entry) if len >= 512 => {
            Region { part: "file cut", start: Some(entry.position), is_above: watermark <= last }
        }
        Some(_) => Region { part: "file cut", start: Some(0), is_above: watermark <= last },
        None => Region::unused("file cut"),
    };
    match open_damaged(&disk)? {
        Opened::Refused { path, position } if !region.is_above => {
            let start = u64::try_from(region.start.unwrap()).unwrap();
            if path != *name || position != start {
                return Err(format!(
                    "names byte {position} of {path} instead of {start} of {name}"
                ));
            }
            Ok((region, Outcome::Refused))
        }
        Opened::Refused { .. } => Err("refused, and all that is known synced is there".to_owned()),
        Opened::Read(..) if !region.is_above => {
            Err("cut below the mark and not refused".to_owned())
        }
        Opened::Read(read, _) => {
            let exact = specimen.history.count_up_to(last);
            specimen.history.explain(&read, (exact, exact))?;
            Ok((region, if lost.is_some() { Outcome::Cut } else { Outcome::Whole }))
        }
    }
}

fn on_two_threads(run: impl Fn(usize) -> Result<Table, String> + Sync) -> Table {
    thread::scope(|scope| {
        let run = &run;
        let threads = [0, 1].map(|half| scope.spawn(move || run(half)));
        let mut table = Table::default();
        for thread in threads {
            table.add(&thread.join().unwrap().unwrap_or_else(|error| panic!("{error}")));
        }
        table
    })
}

#[test]
fn a_flipped_bit_is_refused_where_it_was_synced_and_cut_above() {
    let specimen = Specimen::new();
    assert!(specimen.bytes() >= 64 << 10, "{} bytes", specimen.bytes());
    let table = on_two_threads(|half| check_flips_of(&specimen, half, 2));
    say(&format!("{} flips in {} bytes\n{table}", table.sum(), specimen.bytes()));
    assert!(table.sum() > 64 << 10, "{} flips", table.sum());
}

#[test]
fn a_cut_file_is_refused_where_it_was_synced_and_cut_above() {
    let specimen = Specimen::new();
    let table = on_two_threads(|half| {
        let mut table = Table::default();
        for (file, (name, bytes, _)) in specimen.files.iter().enumerate() {
            for len in (half..bytes.len()).step_by(2) {
                if specimen.region(file, len).part == PREPARED && len % 32 > 1 {
                    continue;
                }
                let (region, outcome) = check_cut(&specimen, file, len)
                    .map_err(|error| format!("{name} cut to {len}: {error}"))?;
                table.count(region, outcome);
            }
        }
        Ok(table)
    });
    say(&format!("{} cuts\n{table}", table.sum()));
    assert!(table.sum() > 64 << 10, "{} cuts", table.sum());
}
