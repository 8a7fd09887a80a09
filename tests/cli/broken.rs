//! Commands and nodes that are cut off: no answer, no room, signals in the middle of work.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{fake::Fake, serve::Node};

/// Looks again and again, without a pause, until it is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::yield_now();
    }
}

/// Starts a put that is never answered, and returns once the node has it.
fn unanswered(node: &Fake, more: &[&str]) -> Child {
    node.state.lock().unwrap().is_silent = true;
    let child = Command::new(env!("CARGO_BIN_EXE_prkdb"))
        .args(["put", "k", "v", "--retries", "0"])
        .args(more)
        .env_clear()
        .env("HOME", node.home.dir.path())
        .env("PRKDB_SERVER", node.address.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the node has the write", || node.state.lock().unwrap().writes > 0);
    child
}

#[test]
fn an_interrupted_write_says_that_its_outcome_is_unknown() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let node = Fake::new();
        let child = unanswered(&node, &["-o", "json"]);
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(
            stderr
                .starts_with("prkdb: interrupted: the write under way may or may not be applied\n"),
            "{stderr}"
        );
        assert!(stderr.contains("\"outcome\":\"unknown\""), "{stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_write_without_an_answer_ends_at_its_deadline_with_an_unknown_outcome() {
    let node = Fake::new();
    let output = unanswered(&node, &["--timeout", "300ms"]).wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("the write may or may not be applied"), "{stderr}");
    assert!(stderr.contains("hint: read the key to see whether it was applied"), "{stderr}");
}

#[test]
fn results_that_find_no_room_are_exit_13() {
    let node = Node::start();
    assert_eq!(node.run("put k v").code, 0);
    for line in [
        "scan",
        "get k",
        "status",
        "metrics -o json",
        "collection list -o ndjson",
        "consumer list",
        "consume default --exit-at-end",
        "consume default --exit-at-end -o ndjson",
        "consume default -n 1 -f %k%v",
        "collection alter default --partitions 3",
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_prkdb"))
            .args(line.split(' '))
            .env_clear()
            .env("PRKDB_SERVER", &node.address)
            .current_dir(node.home.dir.path())
            .stdin(Stdio::null())
            .stdout(File::options().write(true).open("/dev/full").unwrap())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(13), "{line}\n{stderr}");
        assert!(stderr.starts_with("prkdb: write to standard output: no space left"), "{stderr}");
    }
}

#[test]
fn a_limit_beyond_counting_means_all_and_says_so() {
    let node = Node::start();
    assert_eq!(node.run("put k v").code, 0);
    for line in ["scan --no-headers --keys-only", "collection list --no-headers --columns name"] {
        let said = node.run(&format!("{line} --limit 99999999999999999999999"));
        assert_eq!(said.code, 0, "{}", said.stderr);
        assert_eq!(said.text().lines().count(), 1, "{}", said.text());
        assert!(said.stderr.starts_with("--limit is more than can be counted"), "{}", said.stderr);
    }
}

#[test]
fn metrics_are_chosen_by_a_regular_expression() {
    let node = Node::start();
    let said = node.run("metrics --match ^prkdb_.*_bytes$ --columns metric --no-headers");
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.text().lines().count() > 0);
    assert!(said.text().lines().all(|name| name.ends_with("_bytes")), "{}", said.text());
    let said = node.run("metrics --match (");
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("not a regular expression"), "{}", said.stderr);
}

/// A request whose body never comes: preface, settings, and the headers of a put.
fn half_a_request() -> Vec<u8> {
    let mut headers = vec![0x83, 0x86];
    for (index, value) in
        [(&[0x04][..], "/prkdb.v1.Kv/Put"), (&[0x01], "node"), (&[0x0f, 0x10], "application/grpc")]
    {
        headers.extend_from_slice(index);
        headers.push(u8::try_from(value.len()).unwrap());
        headers.extend_from_slice(value.as_bytes());
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0, 0, u8::try_from(headers.len()).unwrap(), 1, 4, 0, 0, 0, 1]);
    bytes.extend_from_slice(&headers);
    bytes
}

#[test]
fn a_second_signal_ends_a_node_that_waits_and_loses_nothing() {
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let mut node = Node::start();
        assert_eq!(node.run("put k v").code, 0);
        let mut stream = TcpStream::connect(&node.address).unwrap();
        stream.write_all(&half_a_request()).unwrap();
        // The settings of the node come when it has ours.
        stream.read_exact(&mut [0; 9]).unwrap();
        node.signal(signal);
        until("it stops", || node.log().contains("\"stopping\""));
        node.signal(signal);
        assert_eq!(node.ended(), Some(code), "{}", node.log());
        let home = std::mem::replace(&mut node.home, crate::support::Home::new());
        assert_eq!(Node::start_in(home).run("get k").text(), "v\n");
    }
}
