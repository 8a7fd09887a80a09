//! Reads the repository and holds it to its own rules: layers, file sizes, `unsafe`, licences.
#![expect(clippy::unwrap_used, reason = "a failed set-up should stop the test")]
#![expect(clippy::indexing_slicing, reason = "an index out of bounds should stop the test")]

mod layers;
mod licences;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Returns the root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every Rust file of ours below `dir`, generated ones left out, in order.
fn rust_files(dir: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![root().join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "gen" && name != "target" {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Returns a path as it stands in the repository.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

fn all_files() -> Vec<PathBuf> {
    ["src", "crates", "tests"].into_iter().flat_map(rust_files).collect()
}

const LINES_MAX: usize = 500;

#[test]
fn no_file_is_longer_than_it_can_be_read() {
    let long: Vec<String> = all_files()
        .iter()
        .filter_map(|path| {
            let lines = fs::read_to_string(path).unwrap().lines().count();
            (lines > LINES_MAX).then(|| format!("{} has {lines} lines", shown(path)))
        })
        .collect();
    assert!(long.is_empty(), "split by path (write, read, recover): {long:#?}");
}

#[test]
fn every_file_of_the_sources_says_what_it_owns() {
    let silent: Vec<String> = ["src", "crates"]
        .into_iter()
        .flat_map(rust_files)
        .filter(|path| !fs::read_to_string(path).unwrap().starts_with("//!"))
        .map(|path| shown(&path))
        .collect();
    assert!(silent.is_empty(), "begin with //!: {silent:#?}");
}

/// The one file with `unsafe`.
const UNSAFE_FILE: &str = "src/storage/log/mmap.rs";

#[test]
fn unsafe_stands_in_one_file() {
    let keyword = concat!("un", "safe ");
    let found: Vec<String> = all_files()
        .iter()
        .filter(|path| {
            fs::read_to_string(path).unwrap().lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains(&format!("{keyword}{{")) || code.contains(&format!("{keyword}fn"))
            })
        })
        .map(|path| shown(path))
        .collect();
    assert_eq!(found, [UNSAFE_FILE]);
}

#[test]
fn openraft_is_named_in_one_folder() {
    let elsewhere: Vec<String> = rust_files("src")
        .iter()
        .filter(|path| {
            fs::read_to_string(path).unwrap().lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains("openraft")
            })
        })
        .map(|path| shown(path))
        .filter(|path| !path.starts_with("src/node/raft/"))
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
}

#[test]
fn the_tests_do_not_sleep() {
    let sleep = concat!("thread::", "sleep");
    let sleepers: Vec<String> = rust_files("tests")
        .iter()
        .filter(|path| fs::read_to_string(path).unwrap().contains(sleep))
        .map(|path| shown(path))
        .collect();
    assert!(sleepers.is_empty(), "wait for what should happen: {sleepers:#?}");
}
