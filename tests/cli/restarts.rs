//! What a start reads: the state at the last checkpoint, and the log behind it.

use std::fs;

use serde_json::Value;

use crate::{
    serve::Node,
    support::{Home, lines},
};

const SHARD: &str = "d/shard-0000000001";
const KEYS: u32 = 200_000;

fn start(home: Home) -> Node {
    Node::start_with(home, &["--checkpoint-bytes", "8MiB", "--segment-bytes", "4MiB"])
}

/// A figure of the data shard.
fn figure(node: &Node, name: &str) -> u64 {
    let said = node.run(&format!("metrics --match ^{name}$ -o json"));
    let document: Value = serde_json::from_str(&said.text()).unwrap();
    let items = document["items"].as_array().unwrap();
    let of_shard = items.iter().find(|item| item["labels"] == "shard=\"1\"");
    of_shard.unwrap_or(&items[0])["value"].as_u64().unwrap()
}

fn count(node: &Node) -> String {
    node.run("scan --count").text().trim().to_owned()
}

#[test]
fn a_start_reads_what_is_behind_the_last_checkpoint_and_all_without_one() {
    let node = start(Home::new());
    let value = "v".repeat(100);
    // Scattered over all there are: what neighbours have in common is little.
    let key = |number: u64| format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let keys = lines(KEYS, |number| format!("{},{value}", key(number.into())));
    fs::write(node.home.dir.path().join("k.csv"), keys).unwrap();
    let said = node.run("batch-put k.csv --key-column 1 --value-column 2 --batch-size 1000");
    assert_eq!(said.code, 0, "{}", said.stderr);
    let written = figure(&node, "prkdb_append_bytes_total");
    assert!(written > 24_000_000, "{written} bytes of log");
    let per_key = figure(&node, "prkdb_index_bytes") / u64::from(KEYS);
    assert!((16..=100).contains(&per_key), "{per_key} bytes of index for each key");
    let node = start(node.killed());
    assert!(node.home.dir.path().join(SHARD).join("MANIFEST").exists());
    let read = figure(&node, "prkdb_recovery_bytes");
    assert!(read < written / 2, "{read} of {written} bytes");
    assert_eq!(count(&node), KEYS.to_string());
    assert_eq!(node.run(&format!("get {}", key(17))).text().trim(), value);

    let home = node.killed();
    let manifest = home.dir.path().join(SHARD).join("MANIFEST");
    let mut bytes = fs::read(&manifest).unwrap();
    bytes[20] ^= 1;
    fs::write(&manifest, bytes).unwrap();
    let node = start(home);
    let read = figure(&node, "prkdb_recovery_bytes");
    // What was counted as written has the metadata shard's too.
    assert!(read > written / 10 * 9, "{read} of {written} bytes");
    assert_eq!(count(&node), KEYS.to_string());
    assert!(node.log().contains("no checkpoint that can be used"), "{}", node.log());
}
