//! `snapshot`: what a shard is as files, with a server and without.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::{
    serve::Node,
    support::{Home, Said},
};

fn json(said: &Said) -> Value {
    assert_eq!(said.code, 0, "{}", said.stderr);
    serde_json::from_slice(&said.stdout).unwrap()
}

fn of_shard(listed: &Value, shard: u64) -> Value {
    let rows = listed["items"].as_array().unwrap();
    rows.iter().find(|row| row["shard"] == shard).unwrap().clone()
}

fn shard_dir(home: &Home) -> PathBuf {
    home.dir.path().join("d/shard-0000000001")
}

#[test]
fn a_snapshot_has_what_was_acknowledged_and_is_listed() {
    let node = Node::start();
    assert_eq!(json(&node.run("snapshot list -o json"))["items"], serde_json::json!([]));
    assert_eq!(node.run("put a 1").code, 0);
    let first = of_shard(&json(&node.run("snapshot create -o json")), 1);
    assert_eq!(first["id"], "1-1");
    assert_eq!(first["voters"], serde_json::json!(["1"]));
    assert_eq!(first["node"], 1);
    assert_eq!(of_shard(&json(&node.run("snapshot list -o json")), 1), first);
    // Nothing has happened since.
    assert_eq!(of_shard(&json(&node.run("snapshot create -o json")), 1), first);
    assert_eq!(node.run("put b 2").code, 0);
    let second = of_shard(&json(&node.run("snapshot create --node 1 -o json")), 1);
    assert_eq!(second["id"], "1-2");
    assert!(second["index"].as_u64() > first["index"].as_u64(), "{second} after {first}");
    let listed = json(&node.run("snapshot list -o json"));
    assert_eq!(of_shard(&listed, 1), second);
    assert_eq!(listed["items"].as_array().unwrap().len(), 2, "one of each shard: {listed}");
    let said = node.run("snapshot create --node 9");
    assert_eq!((said.code, said.stdout.as_slice()), (3, b"".as_slice()), "{}", said.stderr);
    assert!(said.stderr.contains("no node 9: this is node 1"), "{}", said.stderr);
}

#[test]
fn a_snapshot_is_inspected_while_its_node_runs_and_after_it_was_killed() {
    let node = Node::start();
    assert_eq!(node.run("put a 1").code, 0);
    let made = of_shard(&json(&node.run("snapshot create -o json")), 1);
    let check = |home: &Home| {
        let found = json(&home.run("snapshot inspect d/shard-0000000001 -o json"));
        for field in ["id", "sha256", "index", "term", "voters", "learners", "size_bytes"] {
            assert_eq!(found[field], made[field], "{field}");
        }
        let files = found["files"].as_array().unwrap();
        assert_eq!(files[0]["file"], "MANIFEST");
        assert_eq!(files[0]["sha256"], made["sha256"]);
        let bytes: u64 = files.iter().map(|file| file["size_bytes"].as_u64().unwrap()).sum();
        assert_eq!(bytes, made["size_bytes"].as_u64().unwrap());
    };
    check(&node.home);
    let home = node.killed();
    check(&home);
    let said = home.run("snapshot inspect d/shard-0000000001/MANIFEST");
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("snapshot 1-1 of cluster"), "{}", said.stderr);
    assert!(said.stdout.starts_with(b"FILE"));
}

#[test]
fn a_damaged_snapshot_is_told_and_left_as_it_is() {
    let node = Node::start();
    assert_eq!(node.run("put a 1").code, 0);
    assert_eq!(node.run("snapshot create").code, 0);
    let home = node.killed();
    let inspect = || home.run("snapshot inspect d/shard-0000000001");
    assert_eq!(inspect().code, 0);
    let names = fs::read_dir(shard_dir(&home)).unwrap();
    let paths: Vec<PathBuf> = names.map(|entry| entry.unwrap().path()).collect();
    let with = |end: &str| paths.iter().find(|path| path.to_string_lossy().ends_with(end)).unwrap();
    for (path, code) in [(with("MANIFEST"), 12), (with(".checkpoint"), 12)] {
        let before = fs::read(path).unwrap();
        // The format's number is not of this damage.
        for at in (0..before.len()).step_by(before.len() / 12).filter(|at| *at != 4) {
            let mut bytes = before.clone();
            bytes[at] ^= 1;
            fs::write(path, &bytes).unwrap();
            let said = inspect();
            assert_eq!(said.code, code, "{}, byte {at}: {}", path.display(), said.stderr);
            assert_eq!(fs::read(path).unwrap(), bytes, "nothing is mended");
        }
        fs::write(path, &before[..before.len() - 1]).unwrap();
        assert_eq!(inspect().code, 12);
        fs::write(path, &before).unwrap();
    }
    let log = with(".log");
    let before = fs::read(log).unwrap();
    fs::write(log, &before[..4100]).unwrap();
    let said = inspect();
    assert_eq!(said.code, 12, "{}", said.stderr);
    assert!(said.stderr.contains(".log"), "{}", said.stderr);
    fs::remove_file(log).unwrap();
    assert_eq!(inspect().code, 13);
    let said = home.run("snapshot inspect nowhere");
    assert_eq!(said.code, 13, "{}", said.stderr);
    assert!(said.stderr.contains("nowhere"), "{}", said.stderr);
}
