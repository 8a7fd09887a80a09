//! How long keys last, at the command line.

use std::fs;

use serde_json::Value;

use crate::serve::Node;

fn json(node: &Node, line: &str) -> Value {
    let said = node.run(line);
    assert_eq!(said.code, 0, "{line}\n{}", said.stderr);
    serde_json::from_slice(&said.stdout).unwrap()
}

#[test]
fn ttl_expire_and_persist_go_together() {
    let node = Node::start();
    assert_eq!(node.run("put k v --ttl 1h").text(), "OK\n");
    let left = node.run("ttl k --units raw").text();
    let left: u64 = left.trim().parse().unwrap();
    assert!((3_000_000..=3_600_000).contains(&left), "{left}");
    let document = json(&node, "ttl k -o json");
    assert!(document["ttl_ms"].as_u64().unwrap() <= left);
    assert!(document["expires_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(node.run("persist k").text(), "OK\n");
    assert_eq!(node.run("ttl k").text(), "-\n");
    assert_eq!(json(&node, "ttl k -o json")["ttl_ms"], Value::Null);
    assert_eq!(json(&node, "persist k -o json")["changed"], false);
    assert_eq!(json(&node, "expire k --in 30m -o json")["changed"], true);
    assert!(json(&node, "get k --with-meta -o json")["ttl_ms"].as_u64().unwrap() <= 1_800_000);
    assert_eq!(json(&node, "expire k -o json")["version"], Value::Null);
    for line in ["get k", "ttl k", "expire k", "persist k"] {
        let said = node.run(line);
        assert_eq!((said.code, said.stderr.as_str()), (3, "prkdb: key not found: k\n"), "{line}");
    }
}

#[test]
fn a_time_to_live_is_a_duration() {
    let node = Node::start();
    for line in ["put k v --ttl 5", "put k v --ttl -5s", "expire k --in soon"] {
        assert_eq!(node.run(line).code, 2, "{line}");
    }
    assert_eq!(node.run("collection create c --ttl 0").code, 2);
    assert_eq!(node.run("collection create c --ttl 1h --no-index").code, 1);
    // Over when it is applied.
    assert_eq!(node.run("put k v --ttl 0").code, 0);
    assert_eq!(node.run("get k").code, 3);
}

#[test]
fn records_of_a_file_and_of_a_collection_have_one() {
    let node = Node::start();
    let dir = node.home.dir.path();
    fs::write(dir.join("d.txt"), "a,1\nb,2\n").unwrap();
    let lines = "{\"key\":\"c\",\"value\":1,\"ttl_ms\":60000}\n{\"key\":\"d\",\"value\":2}\n\
                 {\"key\":\"a\",\"op\":\"delete\"}\n";
    fs::write(dir.join("d.jsonl"), lines).unwrap();
    let ttl = |line: &str| {
        let left = node.run(&format!("ttl {line} --units raw")).text();
        left.trim().parse::<u64>().ok()
    };
    assert_eq!(node.run("batch-put d.txt --ttl 1h").code, 0);
    assert!(ttl("a").unwrap() > 3_000_000);
    fs::write(dir.join("e.txt"), "e,1\n").unwrap();
    assert_eq!(node.run("batch-put e.txt --if-absent --ttl 1h").code, 0);
    assert!(ttl("e").unwrap() > 3_000_000);
    assert_eq!(node.run("batch-put d.jsonl --ttl 2h").code, 0);
    assert!(ttl("c").unwrap() <= 60_000, "its own counts");
    assert!(ttl("d").unwrap() > 3_600_000);
    assert_eq!(node.run("get a").code, 3);
    fs::write(dir.join("bad.jsonl"), "{\"key\":\"c\",\"value\":1,\"ttl_ms\":-1}\n").unwrap();
    assert_eq!(node.run("batch-put bad.jsonl").code, 1);

    assert_eq!(node.run("collection create s --ttl 1h").code, 0);
    assert_eq!(node.run("put k v -c s").code, 0);
    assert!(ttl("k -c s").unwrap() > 3_000_000);
    assert_eq!(json(&node, "collection describe s -o json")["ttl_ms"], 3_600_000);
    let altered = node.run("collection alter s --ttl none");
    assert_eq!(altered.text(), "altered collection s, 3 partitions\n");
    assert_eq!(node.run("put l v -c s").code, 0);
    assert_eq!(ttl("l -c s"), None);
    assert_eq!(node.run("collection alter s").code, 2);
}
