//! Stdout: closed, full, in every format.

use std::{
    fs::File,
    process::{Command, Stdio},
};

use crate::support::Home;

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let home = Home::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_prkdb"))
        .args(["help", "exit-codes"])
        .env_clear()
        .current_dir(home.dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Closed before anything can be written into it or after: both are quiet.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_full_disk_is_exit_13_for_results_and_for_help() {
    let home = Home::new();
    for args in [
        &["help", "exit-codes"][..],
        &["--help"],
        &["version", "-o", "json"],
        &["completions", "bash"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_prkdb"))
            .args(args)
            .env_clear()
            .current_dir(home.dir.path())
            .stdout(File::options().write(true).open("/dev/full").unwrap())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(13), "{args:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("prkdb: write to standard output: no space left"), "{said}");
    }
}

#[test]
fn a_document_is_valid_json() {
    let home = Home::new();
    let version: serde_json::Value =
        serde_json::from_slice(&home.run("version -o json").stdout).unwrap();
    assert_eq!(version["schema"], "prkdb.version/1");
    let line = home.run("version -o ndjson").text();
    assert_eq!(line.lines().count(), 1);
    assert!(line.starts_with("{\"schema\":\"prkdb.version/1\",\"version\":"), "{line}");
}
