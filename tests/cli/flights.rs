//! Real events through a node that dies in the middle: every flight once, each aircraft's in order.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{generated::root, serve::Node};

/// Rows of the file that are produced: the days of January, October and November that come first.
const ROWS: usize = 30_000;

/// The first rows with the one that names the columns.
fn slice() -> String {
    let packed = fs::read(root().join("examples/data/flights.csv.zst")).unwrap();
    let text = String::from_utf8(zstd::decode_all(packed.as_slice()).unwrap()).unwrap();
    text.split_inclusive('\n').take(ROWS + 1).collect()
}

/// The records that should come, by key: time and value, in the order of the file.
fn expected(text: &str) -> BTreeMap<String, Vec<(String, String)>> {
    let mut rows = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = rows.next().unwrap();
    let column = |name: &str| names.iter().position(|found| *found == name).unwrap();
    let (key, time) = (column("tailnum"), column("time_hour"));
    let mut records: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for row in rows {
        let fields = names.iter().zip(&row).map(|(name, field)| format!("\"{name}\":\"{field}\""));
        let value = format!("{{{}}}", fields.collect::<Vec<_>>().join(","));
        let time = row[time].replace('Z', ".000Z");
        records.entry(row[key].to_owned()).or_default().push((time, value));
    }
    records
}

#[test]
fn flights_are_there_once_and_in_order_after_the_node_was_killed() {
    let node = Node::start();
    let text = slice();
    fs::write(node.home.dir.path().join("flights.csv"), &text).unwrap();
    let line = "produce flights flights.csv --key-column tailnum --timestamp-column time_hour \
                --create=3 --checkpoint c.json --batch-size 50 --retries 0 --timeout 5s";
    let mut load = Command::new(env!("CARGO_BIN_EXE_prkdb"))
        .args(line.split_whitespace())
        .env_clear()
        .env("PRKDB_SERVER", &node.address)
        .current_dir(node.home.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let checkpoint = node.home.dir.path().join("c.json");
    let begun = Instant::now();
    while !checkpoint.exists() {
        assert!(begun.elapsed() < Duration::from_secs(30), "no checkpoint");
        std::thread::yield_now();
    }
    let node = node.restart("-KILL", None);
    let code = load.wait().unwrap().code().unwrap();
    assert!([4, 5].contains(&code), "{code}");
    let resumed = node.run(&format!("{line} --resume"));
    assert_eq!(resumed.code, 0, "{}", resumed.stderr);
    let said = resumed.text();
    assert!(said.starts_with(&format!("{ROWS} records in 3 partitions, ")), "{said}");
    let consumed = node.run("consume flights --exit-at-end -o ndjson");
    assert_eq!(consumed.code, 0, "{}", consumed.stderr);
    let mut found: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for line in consumed.text().lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| record[name].as_str().unwrap().to_owned();
        let offset = next.entry(record["partition"].as_u64().unwrap()).or_default();
        assert_eq!(record["offset"], *offset, "{line}");
        *offset += 1;
        found.entry(text("key")).or_default().push((text("timestamp"), text("value")));
    }
    assert_eq!(next.len(), 3);
    assert!(found == expected(&text), "each flight once, each aircraft's in order");
    from_a_time(&node, &text);
}

/// Reading from a time begins at the first record that has reached it and takes all that follow.
fn from_a_time(node: &Node, text: &str) {
    let line = "consume flights --exit-at-end --no-headers --columns partition,timestamp";
    let all = node.run(line).text();
    let mut expected = 0;
    for partition in ["0", "1", "2"] {
        let of_it = |line: &&str| line.split('\t').next() == Some(partition);
        let times = all.lines().filter(of_it).map(|line| line.split('\t').nth(1).unwrap());
        expected += times.skip_while(|time| *time < "2013-06-01").count();
    }
    assert!(expected > 0 && expected < text.lines().count(), "{expected}");
    let found = node.run(&format!("{line} --from @2013-06-01T00:00:00Z")).text();
    assert_eq!(found.lines().count(), expected);
}
