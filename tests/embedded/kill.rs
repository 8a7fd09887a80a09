//! A program that is killed in the middle of its writes: what it was told is there, and no part of a
//! transaction alone.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
    thread,
};

use prkdb::db::PrkDb;
use tempfile::TempDir;

use super::{open, open_relaxed};

/// Set for the process that is killed: the directory, and whether it is relaxed.
const DIR: &str = "EMBEDDED_KILL_DIR";
const RELAXED: &str = "EMBEDDED_KILL_RELAXED";
const WRITERS: u8 = 4;

/// Not a test of its own: what the killed process runs. It says each number that is acknowledged.
#[test]
fn writes_until_it_is_killed() {
    let Some(dir) = env::var_os(DIR) else { return };
    let builder = PrkDb::builder().with_data_dir(dir);
    let db = if env::var_os(RELAXED).is_some() {
        builder.with_durability(prkdb::db::Durability::Relaxed).build().unwrap()
    } else {
        builder.build().unwrap()
    };
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let db = &db;
            scope.spawn(move || {
                let begin =
                    db.kv().get(vec![writer, b'n']).wait().unwrap().map_or(0, |found| {
                        u32::from_be_bytes(found.value[..].try_into().unwrap()) + 1
                    });
                for number in begin.. {
                    let mut tx = db.begin();
                    let value = number.to_be_bytes().to_vec();
                    tx.put(vec![writer, b'n'], value.clone()).unwrap();
                    tx.put(vec![writer, b'm'], value.clone()).unwrap();
                    tx.commit().wait().unwrap();
                    let single = db.kv().put([&[writer, b's'], &value[..]].concat(), value);
                    single.wait().unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "acknowledged {writer} {number}").unwrap();
                    out.flush().unwrap();
                }
            });
        }
    });
}

fn start(dir: &TempDir, relaxed: bool) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "kill::writes_until_it_is_killed", "--nocapture"]);
    command.env(DIR, dir.path().join("data")).stdout(Stdio::piped()).stderr(Stdio::null());
    if relaxed {
        command.env(RELAXED, "1");
    }
    command.spawn().unwrap()
}

/// Kills a process after so many acknowledgements; returns them: writer and number.
fn kill_after(mut child: Child, lines: usize) -> Vec<(u8, u32)> {
    let mut told = Vec::new();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut take = |line: String| {
        // The first may come behind what the test harness says.
        let Some(at) = line.find("acknowledged ") else { return false };
        let mut words = line[at..].split(' ').skip(1);
        let (writer, number) = (words.next().unwrap(), words.next().unwrap());
        let (Ok(writer), Ok(number)) = (writer.parse(), number.parse()) else {
            return false;
        };
        told.push((writer, number));
        true
    };
    let mut count = 0;
    while count < lines {
        count += usize::from(take(said.next().expect("the process writes on")));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What was said before the kill counts; a line that was cut has no number to believe.
    let rest: Vec<String> = said.collect();
    for line in rest.iter().take(rest.len().saturating_sub(1)) {
        take(line.clone());
    }
    told
}

fn check(db: &PrkDb, told: &[(u8, u32)]) {
    let number = |key: Vec<u8>| {
        let found = db.kv().get(key).wait().unwrap();
        found.map(|found| u32::from_be_bytes(found.value[..].try_into().unwrap()))
    };
    for writer in 0..WRITERS {
        let (one, other) = (number(vec![writer, b'n']), number(vec![writer, b'm']));
        assert_eq!(one, other, "writer {writer}: half of a transaction");
        let last = told.iter().filter(|(by, _)| *by == writer).map(|(_, number)| *number).max();
        assert!(one >= last, "writer {writer}: told {last:?}, found {one:?}");
    }
    for (writer, told) in told {
        let key = [&[*writer, b's'], &told.to_be_bytes()[..]].concat();
        assert_eq!(number(key), Some(*told), "writer {writer}");
    }
}

#[test]
fn kills_lose_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut told = Vec::new();
    for lines in [1, 40, 17, 90, 3] {
        told.extend(kill_after(start(&dir, false), lines));
        check(&open(&dir), &told);
    }
}

#[test]
fn kills_lose_nothing_that_is_relaxed_either() {
    let dir = tempfile::tempdir().unwrap();
    let mut told = Vec::new();
    for lines in [1, 300, 57] {
        told.extend(kill_after(start(&dir, true), lines));
        check(&open_relaxed(&dir), &told);
    }
}
