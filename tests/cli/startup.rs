//! What keeps a node from starting: configuration, addresses, limits of the machine.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use crate::{
    serve::Node,
    support::{Home, Said, said},
};

/// Runs `serve --check` with a file of this content.
fn checked(home: &Home, content: impl AsRef<[u8]>) -> Said {
    fs::write(home.dir.path().join("s.toml"), content).unwrap();
    home.run("serve --check --config s.toml --data-dir d")
}

/// Runs `serve` with arguments that are expected to end it.
fn refused(home: &Home, line: &str, code: i32, parts: &[&str]) {
    let said = home.run(&format!("serve --http none {line}"));
    assert_eq!(said.code, code, "{line}\n{}", said.stderr);
    assert!(said.stdout.is_empty(), "{line}");
    for part in parts {
        assert!(said.stderr.contains(part), "{line}: no '{part}' in\n{}", said.stderr);
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_name() {
    let said = checked(&Home::new(), "node_id = 1\ndata_dirr = \"x\"\n");
    assert_eq!(said.code, 2);
    assert_eq!(
        said.stderr,
        "prkdb: s.toml:2:1: unknown key 'data_dirr'\nhint: did you mean 'data_dir'?\n"
    );
}

#[test]
fn a_wrong_type_unit_sign_or_size_is_refused_with_its_place() {
    let home = Home::new();
    for (line, part) in [
        ("node_id = [1]", "s.toml:1:1: node_id"),
        ("heartbeat = 5", "s.toml:1:1: invalid value '5'"),
        ("heartbeat = \"-5s\"", "s.toml:1:1: invalid value '-5s'"),
        ("shards = -1", "s.toml:1:1:"),
        ("shards = 99999999999999", "s.toml:1:1: invalid value '99999999999999'"),
        ("max_value = \"1XB\"", "s.toml:1:1: invalid value '1XB'"),
        ("node_id = ", "s.toml:1:11:"),
    ] {
        let said = checked(&home, line);
        assert_eq!(said.code, 2, "{line}\n{}", said.stderr);
        assert!(said.stderr.contains(part), "{line}\n{}", said.stderr);
    }
}

#[test]
fn a_file_that_is_no_configuration_is_refused_and_an_empty_one_is_read() {
    let home = Home::new();
    fs::create_dir(home.dir.path().join("dir")).unwrap();
    for (file, part) in [
        ("nofile", "prkdb: read nofile: no such file or directory"),
        ("dir", "prkdb: read dir: is a directory"),
    ] {
        let said = home.run(&format!("serve --check --config {file}"));
        assert_eq!(said.code, 13, "{}", said.stderr);
        assert!(said.stderr.contains(part), "{}", said.stderr);
    }
    let large = vec![b'#'; 10_000_000];
    for (content, code, part) in [
        (&b"\xff\xfe"[..], 2, "not UTF-8 at byte 0"),
        (&large, 2, "10000000 bytes, limit 1048576"),
        (b"", 0, ""),
        (b"\xef\xbb\xbfnode_id = 3\n", 0, ""),
    ] {
        let said = checked(&home, content);
        assert_eq!(said.code, code, "{}", said.stderr);
        assert!(said.stderr.contains(part), "{}", said.stderr);
    }
}

#[test]
fn contradictions_are_told_all_at_once() {
    let said = checked(&Home::new(), "heartbeat = \"5s\"\nsegment_bytes = 1\nmax_key = \"1MiB\"\n");
    assert_eq!(said.code, 2);
    for part in ["segment-bytes is 1", "max-key is 1048576", "election-timeout begins at 500 ms"] {
        assert!(said.stderr.contains(part), "{}", said.stderr);
    }
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    // Each start has a directory of its own: a directory keeps its node.
    for (line, environment, expected) in [
        ("--config s.toml", None, "node=3"),
        ("--config s.toml", Some("4"), "node=4"),
        ("--config s.toml --node-id 5", Some("4"), "node=5"),
    ] {
        let home = Home::new();
        fs::write(home.dir.path().join("s.toml"), "node_id = 3\n").unwrap();
        let more: Vec<&str> = line.split(' ').collect();
        let mut command = Node::command(home.dir.path(), &more);
        if let Some(id) = environment {
            command.env("PRKDB_NODE_ID", id);
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(line.contains(expected), "{line}");
    }
}

#[test]
fn a_start_without_a_file_logs_its_configuration() {
    let node = Node::start();
    let log = node.log();
    let line = log.lines().find(|line| line.contains("\"configuration\"")).unwrap();
    for part in ["\"max_value\":1048576", "\"max_connections\":", "\"window_bytes_max\":"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn an_address_that_cannot_be_listened_on_is_named() {
    let home = Home::new();
    let open = "--advertise x:1 --allow-insecure --data-dir d";
    refused(
        &home,
        &format!("--listen 192.0.2.1:0 {open}"),
        13,
        &["listen on 192.0.2.1:0: Cannot assign", "hint: choose an address of this machine"],
    );
    refused(&home, &format!("--listen no.invalid:0 {open}"), 13, &["resolve no.invalid:0"]);
    refused(&home, "--listen 127.0.0.1 --data-dir d", 2, &["'127.0.0.1' has no port"]);
    refused(&home, "--listen 127.0.0.1:70000 --data-dir d", 2, &["'70000'"]);
    assert!(!home.dir.path().join("d").exists(), "nothing was written");
}

#[test]
fn listening_for_others_must_be_allowed() {
    let home = Home::new();
    refused(
        &home,
        "--listen 192.0.2.1:0 --data-dir d",
        2,
        &["refusing to listen off loopback", "hint: --allow-insecure"],
    );
    refused(
        &home,
        "--listen 0.0.0.0:0 --allow-insecure --data-dir d",
        2,
        &["advertise must name an address"],
    );
}

#[test]
fn too_few_files_end_the_start() {
    let home = Home::new();
    let line = format!(
        "ulimit -n 100; exec {} serve --listen 127.0.0.1:0 --http none --data-dir d",
        env!("CARGO_BIN_EXE_prkdb")
    );
    let output = Command::new("sh")
        .args(["-c", &line])
        .env_clear()
        .current_dir(home.dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(13), "{stderr}");
    assert!(stderr.contains("the limit of open files is 100, a node needs 256"), "{stderr}");
    assert!(stderr.contains("hint: raise it: ulimit -n"), "{stderr}");
    assert!(!home.dir.path().join("d").exists(), "nothing was written");
}

#[test]
fn a_secret_has_no_flag() {
    let home = Home::new();
    for line in ["put k v --password x", "serve --password x"] {
        let said = said(&mut home.command(line.split(' ')));
        assert_eq!(said.code, 2, "{}", said.stderr);
        assert!(said.stderr.contains("unexpected argument '--password'"), "{}", said.stderr);
    }
}

#[test]
fn a_directory_that_a_program_has_inside_is_refused_and_can_be_looked_at() {
    let home = Home::new();
    let path = home.dir.path().join("d");
    let db = prkdb::PrkDb::builder().with_data_dir(&path).build().unwrap();
    db.kv().put("a", "1").wait().unwrap();
    db.close().unwrap();
    let parts = ["is of kind embedded, not node", "hint: a program has it inside (PrkDb)"];
    refused(&home, "--data-dir d --listen 127.0.0.1:0", 13, &parts);
    let said = home.run("wal verify --data-dir d");
    assert_eq!(said.code, 0, "{}", said.stderr);
    let db = prkdb::PrkDb::builder().with_data_dir(&path).build().unwrap();
    assert!(db.kv().get("a").wait().unwrap().is_some());
}
