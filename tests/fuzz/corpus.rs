//! The corpora: what libFuzzer found worth keeping, and what the targets begin with.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    harness::{Target, check},
    mutate::Mutator,
    targets,
};

/// A corpus of fewer would be an accident.
const ENTRIES_MIN: usize = 8;
/// All corpora together; the repository is no place for more.
const BYTES_MAX: u64 = 2 << 20;
/// Mutations of each target, unless its time is over.
const MUTATIONS: usize = 3000;
const TIME: Duration = Duration::from_millis(450);

fn corpus_dir(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name)
}

/// Returns the corpus of a target in the order of names; empty where there is none.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let Ok(dir) = fs::read_dir(corpus_dir(target)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = dir.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Does something for every target, and fails at the end for all that failed.
fn each(run: impl Fn(&'static Target)) {
    let failed: Vec<&str> = targets::ALL
        .iter()
        .filter(|target| catch_unwind(AssertUnwindSafe(|| run(target))).is_err())
        .map(|target| target.name)
        .collect();
    assert!(failed.is_empty(), "{failed:?}: what each panicked with stands above");
}

/// Also writes them into the corpora, where a variable asks for it.
#[test]
fn seeds_are_read() {
    let writes = std::env::var_os("UPDATE").is_some();
    each(|target| {
        for (number, seed) in (target.seeds)().iter().enumerate() {
            if writes {
                fs::create_dir_all(corpus_dir(target)).unwrap();
                fs::write(corpus_dir(target).join(format!("seed-{number:02}")), seed).unwrap();
            }
            check(target, seed);
        }
    });
}

#[test]
fn every_corpus_is_replayed() {
    each(|target| corpus(target).iter().for_each(|entry| check(target, entry)));
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let mut bytes = 0;
    for target in targets::ALL {
        let corpus = corpus(target);
        let count = corpus.len();
        assert!(count >= ENTRIES_MIN, "the corpus of {} has {count} entries", target.name);
        bytes += corpus.iter().map(|entry| entry.len() as u64).sum::<u64>();
    }
    assert!(bytes <= BYTES_MAX, "the corpora have {bytes} bytes: merge them");
    let dir = corpus_dir(&targets::ALL[0]);
    for entry in fs::read_dir(dir.parent().unwrap()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(targets::named(&name).is_some(), "a corpus of no target: {name}");
    }
}

/// Gives a target mutations of its corpus until there were enough, or their time is over; returns how
/// many there were.
pub(crate) fn mutate(target: &Target, count: usize, time: Duration) -> usize {
    let mut corpus = corpus(target);
    corpus.extend((target.seeds)());
    let mut mutator = Mutator::new(1);
    let begun = Instant::now();
    for done in 0..count {
        if begun.elapsed() > time {
            return done;
        }
        check(target, &mutator.draw(&corpus));
    }
    count
}

#[test]
fn mutations_of_every_corpus_do_no_harm() {
    each(|target| {
        let done = mutate(target, MUTATIONS, TIME);
        assert!(done >= 10, "{} is too slow: {done} mutations", target.name);
    });
}
