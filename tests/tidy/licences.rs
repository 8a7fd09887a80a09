//! Licences and bans over the whole tree of dependencies.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use super::root;

/// A package's licence must offer one of these.
const ALLOWED: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Unmaintained, or a second way to do what another crate of the tree does.
const BANNED: &[&str] = &[
    "atty",
    "bincode",
    "failure",
    "fs4",
    "openssl",
    "openssl-sys",
    "serde_yaml",
    "serde_yml",
    "time",
    "openraft-multi",
];

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// Returns whether an SPDX expression offers a licence of the list: `AND` needs both sides.
fn is_allowed(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    plain
        .split(" AND ")
        .all(|part| part.split(" OR ").any(|licence| ALLOWED.contains(&licence.trim())))
}

#[test]
fn every_licence_is_on_the_list() {
    let refused: Vec<String> = packages()
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(is_allowed))
        .map(|package| format!("{}: {}", package["name"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn no_banned_crate_is_in_the_tree() {
    let names: BTreeSet<String> =
        packages().iter().map(|package| package["name"].as_str().unwrap().to_owned()).collect();
    let found: Vec<&&str> = BANNED.iter().filter(|banned| names.contains(**banned)).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn everything_comes_from_the_registry_or_from_here() {
    let foreign: Vec<String> = packages()
        .iter()
        .filter(|package| {
            let source = package["source"].as_str();
            source.is_some_and(|source| !source.starts_with("registry+"))
        })
        .map(|package| package["id"].to_string())
        .collect();
    assert!(foreign.is_empty(), "{foreign:#?}");
}
