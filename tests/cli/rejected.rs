//! Records that only the server rejects: where a run stops, and how it goes on.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::{serve::Node, support::lines};

const RECORDS: u32 = 6000;
/// The record that is wrong at first.
const WRONG: u32 = 3000;

/// Records with a time to live; that of one is this text, which is as long as a right one.
fn events(wrong: &str) -> String {
    lines(RECORDS, |n| {
        let ttl = if n == WRONG { wrong } else { "86400000" };
        format!(
            "{{\"key\":\"k{n}\",\"value\":\"v{n}\",\"headers\":[[\"prkdb.ttl-ms\",\"{ttl}\"]]}}"
        )
    })
}

#[test]
fn a_run_that_the_server_stopped_leaves_nothing_out_when_it_goes_on() {
    let node = Node::start();
    let dir = node.home.dir.path();
    let (wrong, right) = (events("tomorrow"), events("86400000"));
    fs::write(dir.join("e.jsonl"), &wrong).unwrap();
    let line = "produce c e.jsonl --batch-size 20 --checkpoint c.json";
    let stopped = node.run(&format!("{line} --create=3"));
    assert_eq!(stopped.code, 8, "{}", stopped.stderr);
    let checkpoint: Value = serde_json::from_slice(&fs::read(dir.join("c.json")).unwrap()).unwrap();
    let at = checkpoint["record"].as_u64().unwrap();
    assert!(at <= u64::from(WRONG), "{at}: a later run must read the record again");
    fs::write(dir.join("e.jsonl"), &right).unwrap();
    let resumed = node.run(&format!("{line} --resume"));
    assert_eq!(resumed.code, 0, "{}", resumed.stderr);
    let said = node.run("consume c --exit-at-end -o ndjson");
    let values: Vec<String> = said
        .text()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["value"].to_string())
        .collect();
    let distinct: BTreeSet<&String> = values.iter().collect();
    let count = usize::try_from(RECORDS).unwrap();
    assert_eq!((values.len(), distinct.len()), (count, count));
}
