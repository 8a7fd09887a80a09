//! Views that are shown again and again, and integers as strings.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use crate::serve::Node;

#[test]
fn a_view_is_shown_again_until_it_is_interrupted() {
    let node = Node::start();
    for (args, field) in [
        (["status", "--watch", "10ms", "--fail-on", "never"], "\"node\":1"),
        (["metrics", "-w", "10ms", "--match", "connections"], "\"metric\":"),
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_prkdb"))
            .args(args)
            .env_clear()
            .env("HOME", node.home.dir.path())
            .env("PRKDB_SERVER", &node.address)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..5 {
            let line = lines.next().unwrap().unwrap();
            assert!(line.contains(field), "{line}");
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
}

#[test]
fn a_view_waits_for_a_node_that_went_away() {
    let node = Node::start();
    let mut child = Command::new(env!("CARGO_BIN_EXE_prkdb"))
        .args(["status", "--watch", "10ms", "--retries", "0", "--server", &node.address])
        .env_clear()
        .env("HOME", node.home.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"health\":"));
    let mut warnings = BufReader::new(child.stderr.take().unwrap()).lines();
    let home = node.killed();
    // What was under way may have broken before.
    assert!(warnings.any(|line| line.unwrap().contains("could be reached")), "it gave up");
    assert_eq!(child.try_wait().unwrap(), None, "it asks again");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(home);
}

#[test]
fn integers_of_json_are_strings_where_that_is_asked_for() {
    let node = Node::start();
    assert_eq!(node.run("put k v").code, 0);
    for (format, number, text) in [
        ("ndjson", "\"version\":0", "\"version\":\"0\""),
        ("json", "\"version\": 0", "\"version\": \"0\""),
    ] {
        let line = format!("scan -o {format}");
        assert!(node.run(&line).text().contains(number));
        let said = node.run(&format!("{line} --json-int-strings"));
        assert!(said.text().contains(text), "{}", said.text());
    }
}
