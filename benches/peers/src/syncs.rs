//! The calls that sync, counted by strace: what a row says of its durability is what the kernel saw.
//!
//! The program runs itself under strace with one engine, which commits a hundred times between two lines on
//! stderr. Counted is what begins between these. A write to a file that was opened with `O_DSYNC` or `O_SYNC`
//! is a sync too and counts as one; an `msync` counts where it waits (`MS_SYNC`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write as _},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    engines::{Peer, Store, Work},
    measure::BATCH_PAIRS,
    pairs::Pair,
};

/// Commits that are counted.
pub(crate) const COMMITS: u64 = 100;
/// Commits before those, so that files exist and have grown.
const COMMITS_BEFORE: u64 = 10;
/// The word that has the program be what is traced.
pub(crate) const CHILD: &str = "--commit-for-strace";

const BEGIN: &str = "peers: begin\n";
const END: &str = "peers: end\n";
/// What strace looks at. A name that a machine has not is left out with `?`.
const TRACED: &str = "?fsync,?fdatasync,?sync,?syncfs,?msync,?sync_file_range,?pwritev2,?io_uring_enter,\
                      ?open,?openat,?close,?write,?writev,?pwrite64,?pwritev";

/// How often each call was made for [`COMMITS`] commits.
pub(crate) type Syncs = BTreeMap<String, u64>;

/// Fails where strace is missing.
pub(crate) fn need_strace() -> Result<()> {
    match Command::new("strace").arg("-V").output() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!(
                "strace is missing, which counts the syncs of each engine: apt-get install strace"
            )
        }
        Err(error) => Err(error).context("run strace"),
    }
}

/// Counts the syncs of one kind of work of one peer.
pub(crate) fn count(peer: &Peer, work: Work, parent: &Path) -> Result<Syncs> {
    let dir = tempfile::Builder::new().prefix("peers-").tempdir_in(parent)?;
    let trace = dir.path().join("trace");
    let store = dir.path().join("store");
    fs::create_dir(&store).with_context(|| format!("create {}", store.display()))?;
    let program = std::env::current_exe().context("path of this program")?;
    let output = Command::new("strace")
        .args(["-f", "-qq", "-e", "signal=none", "-e"])
        .arg(format!("trace={TRACED}"))
        .arg("-o")
        .arg(&trace)
        .arg(program)
        .args([CHILD, peer.id, work.name()])
        .arg(&store)
        .output()
        .context("run strace")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "strace of {} ended with {}: {said}", peer.id, output.status);
    let text = fs::read(&trace).context("read what strace wrote")?;
    let (syncs, is_whole) = counted(&String::from_utf8_lossy(&text));
    ensure!(is_whole, "strace of {} did not see both marks", peer.id);
    let total: u64 = syncs.values().sum();
    let promised = if peer.is_pipelined || work == Work::Load { 0 } else { COMMITS };
    let (id, name) = (peer.id, work.name());
    ensure!(total >= promised, "{id} synced {total} times in {COMMITS} commits of {name}");
    Ok(syncs)
}

/// Commits as the counting wants it: what the traced program does.
pub(crate) fn child(peer: &Peer, work: Work, dir: &Path) -> Result<()> {
    peer.open(dir, work.durability(), &mut |store| {
        commit(store, work, 0..COMMITS_BEFORE)?;
        store.settle()?;
        io::stderr().write_all(BEGIN.as_bytes())?;
        commit(store, work, COMMITS_BEFORE..COMMITS_BEFORE + COMMITS)?;
        store.settle()?;
        io::stderr().write_all(END.as_bytes())?;
        Ok(())
    })
}

fn commit(store: &mut dyn Store, work: Work, numbers: std::ops::Range<u64>) -> Result<()> {
    for number in numbers {
        if work == Work::Puts {
            store.put(&Pair::of(number))?;
        } else {
            let batch = number * BATCH_PAIRS..(number + 1) * BATCH_PAIRS;
            store.put_batch(&batch.map(Pair::of).collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

/// Counts in the lines of a trace; returns also whether both marks were seen.
fn counted(trace: &str) -> (Syncs, bool) {
    let mut syncs = Syncs::new();
    // Descriptors whose writes sync, and the threads whose opening of one has not returned.
    let (mut syncing, mut opening) = (BTreeSet::new(), BTreeSet::new());
    let (mut has_begun, mut has_ended) = (false, false);
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').unwrap_or(("", line));
        let call = call.trim_start();
        if let Some(resumed) = call.strip_prefix("<... open") {
            if opening.remove(thread) {
                syncing.extend(returned(resumed));
            }
            continue;
        }
        let Some((name, arguments)) = call.split_once('(') else { continue };
        let descriptor = arguments.split([',', ')', ' ']).next().unwrap_or_default();
        let does_sync = match name {
            "open" | "openat" => {
                if arguments.contains("O_DSYNC") || arguments.contains("O_SYNC") {
                    if call.contains("<unfinished") {
                        opening.insert(thread);
                    } else {
                        syncing.extend(returned(arguments));
                    }
                }
                false
            }
            "close" => {
                syncing.remove(descriptor);
                false
            }
            "write" if descriptor == "2" && arguments.contains("peers: ") => {
                has_begun |= arguments.contains("peers: begin");
                has_ended |= arguments.contains("peers: end");
                false
            }
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" => {
                syncing.contains(descriptor) || arguments.contains("RWF_DSYNC")
            }
            "msync" => arguments.contains("MS_SYNC"),
            "fsync" | "fdatasync" | "sync" | "syncfs" | "sync_file_range" | "io_uring_enter" => {
                true
            }
            _ => false,
        };
        if does_sync && has_begun && !has_ended {
            let name = if name.contains("write") { "O_DSYNC write" } else { name };
            *syncs.entry(name.to_owned()).or_default() += 1;
        }
    }
    (syncs, has_begun && has_ended)
}

/// Returns the descriptor that a call returned.
fn returned(call: &str) -> Option<&str> {
    let (_, result) = call.rsplit_once("= ")?;
    result
        .split_whitespace()
        .next()
        .filter(|result| result.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_syncs_between_the_marks_is_counted_once() {
        let trace = r#"7 openat(AT_FDCWD, "data", O_RDWR|O_CREAT, 0600) = 3
7 openat(AT_FDCWD, "data", O_WRONLY|O_DSYNC|O_CLOEXEC) = 4
8 openat(AT_FDCWD, "other", O_WRONLY|O_DSYNC <unfinished ...>
7 fdatasync(3) = 0
8 <... openat resumed>) = 5
7 write(2, "peers: begin\n", 13) = 13
7 pwrite64(3, "x", 1, 0) = 1
7 fdatasync(3 <unfinished ...>
8 pwrite64(5, "x", 1, 0) = 1
7 <... fdatasync resumed>) = 0
7 pwrite64(4, "x", 1, 0) = 1
7 msync(0x7f0000000000, 4096, MS_ASYNC) = 0
7 msync(0x7f0000000000, 4096, MS_SYNC) = 0
7 close(4) = 0
7 openat(AT_FDCWD, "plain", O_WRONLY) = 4
7 write(4, "x", 1) = 1
7 write(2, "peers: end\n", 11) = 11
7 fsync(3) = 0
"#;
        let (syncs, is_whole) = counted(trace);
        let expected = [("O_DSYNC write", 2), ("fdatasync", 1), ("msync", 1)];
        assert_eq!(syncs, expected.map(|(name, count)| (name.to_owned(), count)).into());
        assert!(is_whole);
        assert!(!counted(trace.split("peers: end").next().unwrap()).1);
    }
}
