//! Every example of the help, and so of the manual pages, is run against a node.

use std::{
    fs,
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

use crate::{directory::used, help::examples, serve::Node};

/// Puts there what the examples speak of.
fn prepare(node: &Node) {
    for (name, content) in [
        ("data.txt", "k,v\n"),
        ("data.csv", "id,name\n1,a\n2,b\n"),
        ("events.jsonl", "{\"key\":\"k\",\"value\":1}\n"),
        ("readings.jsonl", "{\"sensor\":7,\"at\":\"2013-06-01T10:00:00Z\"}\n"),
        ("lines.log", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n"),
        ("blob.bin", "\0\u{1}"),
        ("server.toml", "node_id = 1\n"),
    ] {
        fs::write(node.home.dir.path().join(name), content).unwrap();
    }
    let _absent = fs::remove_file(node.home.dir.path().join("new.prkdb"));
    let _absent = fs::remove_dir_all(node.home.dir.path().join("restored"));
    if !node.home.dir.path().join("nightly.backup").exists() {
        assert_eq!(node.run("backup create nightly.backup").code, 0);
    }
    for line in [
        "snapshot create",
        "collection create flights --if-not-exists",
        "collection create copy --if-not-exists",
        "collection create events --no-index --if-not-exists",
        "produce events lines.log",
        "put user:101 a",
        "put user:102 b",
        "put session:1 c",
        "put session:123 c --ttl 1h",
        "collection create sessions --if-not-exists",
        "put blob d",
        "delete lock",
    ] {
        let said = node.run(line);
        assert_eq!(said.code, 0, "{line}\n{}", said.stderr);
    }
}

/// The example as it can be run here: on the test's node, in its directory, and not for long.
fn here(example: &str, node: &Node) -> String {
    let mut line = example
        .replace("127.0.0.1:9090 -o", &format!("{} -o", node.address))
        .replace("/etc/prkdb/", "./")
        .replace("/var/lib/prkdb", "./data")
        .replace("| man -l -", "| cat")
        .replace("create nightly.backup", "create new.prkdb")
        .replace("| ssh vault 'cat > nightly.backup'", "| cat > new.prkdb")
        .replace("inspect ./data/shard", "inspect ./d/shard")
        .replace("--duration 10s", "")
        .replace("--duration 5s", "")
        // It would never end; it is a test of its own.
        .replace(" --watch 5s", "");
    if line.starts_with("prkdb serve") && !line.ends_with("--check") {
        line.push_str(" --check");
    }
    if line.starts_with("prkdb consume ") && !line.contains("--exit-at-end") {
        // It would follow.
        line.push_str(" --exit-at-end");
    }
    if line.starts_with("prkdb bench ") {
        line.push_str(" --duration 50ms");
    }
    line
}

#[test]
fn every_example_runs() {
    let node = Node::start();
    let dir = node.home.dir.path();
    fs::create_dir_all(dir.join("bin")).unwrap();
    // What the examples say of a stopped node's directory.
    fs::rename(used().dir.path().join("d"), dir.join("data")).unwrap();
    fs::create_dir_all(dir.join(".config/fish/completions")).unwrap();
    symlink(env!("CARGO_BIN_EXE_prkdb"), dir.join("bin/prkdb")).unwrap();
    let mut failed = Vec::new();
    let mut all = examples();
    all.sort();
    all.dedup();
    // A demo starts nodes of its own and is a test of its own.
    for example in all.iter().filter(|example| !example.starts_with("prkdb demo")) {
        prepare(&node);
        let output = Command::new("bash")
            .args(["-o", "pipefail", "-c", &here(example, &node)])
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", dir.join("bin").display()))
            .env("HOME", dir)
            .env("PRKDB_SERVER", &node.address)
            .current_dir(dir)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        // Refusing to measure on a busy machine, or missing a rate, is an answer.
        if example.starts_with("prkdb bench ") && output.status.code() == Some(1) {
            continue;
        }
        // So is what is wrong with the machine.
        if example.starts_with("prkdb doctor") && matches!(output.status.code(), Some(10 | 11)) {
            continue;
        }
        let expected = match example.as_str() {
            // It asks for a name, and nobody can type it.
            "prkdb collection drop flights" => 9,
            // Nothing was left half done.
            example if example.ends_with("--resume") => 13,
            _ => 0,
        };
        if output.status.code() != Some(expected) {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            failed.push(format!("{example}: {:?}\n{stderr}", output.status.code()));
        }
    }
    assert!(all.len() > 40, "{}", all.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
