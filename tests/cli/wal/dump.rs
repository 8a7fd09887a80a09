//! What a log holds, printed and written.

use std::fs;

use bytes::Bytes;
use prkdb_types::batch::{Batch, DecompressLimit};
use serde_json::Value;

use super::{HEADER, dumped, edit, file_of, json, name_of, number, row_of, rows, wal};
use crate::{directory::used, serve::Node, support::Said};

#[test]
fn a_dump_holds_every_byte_and_can_be_produced_again() {
    let node = Node::start();
    let home = node.home.dir.path();
    fs::write(home.join("value.bin"), b"\0\xff\n").unwrap();
    let put = "put --key-encoding hex 00ff0a --value-file value.bin";
    assert_eq!(node.run(put).code, 0);
    fs::write(
        home.join("e.jsonl"),
        concat!(
            r#"{"key":"k","value":"v\t1","headers":[["h","x"]],"timestamp":1369303200123}"#,
            "\n",
            r#"{"key":"gone","value":null,"timestamp":1369303200124}"#,
            "\n"
        ),
    )
    .unwrap();
    assert_eq!(node.run("produce c e.jsonl --create --compression zstd").code, 0);
    let home = node.killed();
    let rows = dumped(&home);
    let binary = rows.iter().find(|row| row["key_b64"] == "AP8K").unwrap();
    assert_eq!((binary["value_b64"].as_str(), number(binary, "size_bytes")), (Some("AP8K"), 6));
    assert_eq!((&binary["schema"], &binary["type"]), (&"prkdb.wal-dump/1".into(), &"entry".into()));
    assert_eq!(binary["collection"], "default");
    let event = row_of(&rows, "k");
    assert_eq!(event["value"], "v\t1");
    assert_eq!(event["headers"], serde_json::json!([["h", "x"]]));
    assert_eq!(event["timestamp"], "2013-05-23T10:00:00.123Z");
    assert_eq!(event["collection"], "c");
    assert_eq!(row_of(&rows, "gone")["value"], Value::Null);
    // The catalogue is records too.
    let catalogue = wal(&home, "dump --shard 0 -o ndjson --kind entry");
    assert!(rows_have(&catalogue, |row| row["stream"] == 0 && row["partition"].is_null()));
    // What is printed is what `produce` reads.
    let columns = "--columns key,value,headers,timestamp,collection -o ndjson --kind entry";
    let said = wal(&home, &format!("dump --shard 1 {columns}"));
    let events: Vec<String> = said
        .text()
        .lines()
        .filter(|line| line.contains("\"collection\":\"c\""))
        .map(str::to_owned)
        .collect();
    assert_eq!(events.len(), 2, "{}", said.text());
    fs::write(home.dir.path().join("again.jsonl"), events.join("\n")).unwrap();
    let node = Node::start_in(home);
    let again = node.run("produce copy again.jsonl --create");
    assert_eq!(again.code, 0, "{}", again.stderr);
    let read = |collection: &str| {
        let said = node.run(&format!(
            "consume {collection} --exit-at-end -o ndjson --columns key,value,headers,timestamp"
        ));
        let mut lines: Vec<String> = said.text().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(read("copy"), read("c"));
}

fn rows_have(said: &Said, holds: impl Fn(&Value) -> bool) -> bool {
    rows(said).iter().any(holds)
}

#[test]
fn a_dump_can_be_narrowed() {
    let home = used();
    let all = dumped(&home);
    let is_of = |row: &Value, kind: &str| row["type"] == kind;
    for kind in ["entry", "blank", "membership", "vote"] {
        let said = wal(&home, &format!("dump --shard 1 -o ndjson --kind {kind}"));
        let expected: Vec<Value> = all.iter().filter(|row| is_of(row, kind)).cloned().collect();
        assert!(!expected.is_empty(), "{kind}");
        assert_eq!(rows(&said), expected, "{kind}");
    }
    let index = number(&row_of(&all, "b"), "index");
    let said = wal(&home, &format!("dump --shard 1 -o ndjson --from {index} --to {index}"));
    assert_eq!(rows(&said), [row_of(&all, "b")]);
    let segment = number(&row_of(&all, "b"), "segment");
    let said = wal(&home, &format!("dump --shard 1 -o ndjson --segment {segment}"));
    assert!(rows(&said).iter().all(|row| number(row, "segment") == segment));
    let said = wal(&home, "dump --shard 1 -o ndjson --keys-only --kind entry");
    let row = row_of(&rows(&said), "b");
    assert!(row.get("value").is_none() && row.get("headers").is_none(), "{row}");
    let few = wal(&home, "dump --shard 1 -o ndjson --limit 3");
    assert_eq!((rows(&few).as_slice(), few.stderr.as_str()), (&all[..3], ""));
    let plain = wal(&home, "dump --shard 1 --kind entry --columns offset,key,value");
    assert!(plain.text().contains("0\ta\t1\n"), "{}", plain.text());
    let header = wal(&home, "dump --shard 1").text();
    let header = header.lines().next().unwrap();
    assert_eq!(header, "OFFSET\tINDEX\tTERM\tTYPE\tCOLLECTION\tPARTITION\tKEY\tSIZE\tCRC");
    for (line, code) in [
        ("dump", 2),
        ("dump --shard 9", 2),
        ("dump --shard 1 --kind nope", 2),
        ("dump --shard 1 --sort key", 2),
        ("dump --shard 1 --columns nope", 2),
        ("dump --shard 1 -o raw", 2),
    ] {
        assert_eq!(wal(&home, line).code, code, "{line}");
    }
}

#[test]
fn a_dump_of_a_damaged_log_prints_what_is_before_the_damage() {
    let home = used();
    let all = dumped(&home);
    let row = row_of(&all, "b");
    let path = file_of(&home, number(&row, "segment"));
    edit(&path, |bytes| bytes[number(&row, "byte") + HEADER + 10] ^= 1);
    let said = wal(&home, "dump --shard 1 -o ndjson");
    assert_eq!(said.code, 12);
    assert!(said.stderr.contains(&name_of(&path)), "{}", said.stderr);
    let before = all.iter().position(|other| *other == row).unwrap();
    assert_eq!(rows(&said), all[..before]);
}

#[test]
fn raw_batches_are_whole_record_batches_end_to_end() {
    let home = used();
    let said = wal(&home, "dump --shard 1 --raw-batches out.bin");
    assert_eq!(said.code, 0, "{}", said.stderr);
    let stored = fs::read(home.dir.path().join("out.bin")).unwrap();
    let mut rest = Bytes::from(stored.clone());
    let mut keys = Vec::new();
    while !rest.is_empty() {
        let (batch, len) = Batch::split_first(&rest).unwrap();
        batch.verify_crc().unwrap();
        let records = batch.records(DecompressLimit::new(1 << 20)).unwrap();
        keys.extend(records.iter().map(|record| record.unwrap().key.map(<[u8]>::to_vec)));
        rest = rest.slice(len..);
    }
    for key in [b"a", b"b", b"c"] {
        assert!(keys.contains(&Some(key.to_vec())));
    }
    let text = format!("4 batches, 6 records, {} bytes in out.bin\n", stored.len());
    assert_eq!(said.text(), text);
    let again = wal(&home, "dump --shard 1 --raw-batches out.bin");
    assert_eq!(again.code, 13, "what is there is not written over");
    assert_eq!(fs::read(home.dir.path().join("out.bin")).unwrap(), stored);
    let inside = wal(&home, "dump --shard 1 --raw-batches d/shard-0000000001/out.bin");
    assert_eq!(inside.code, 2, "{}", inside.stderr);
    assert_eq!(wal(&home, "dump --shard 1 --raw-batches -").stdout, stored);
    let index = number(&row_of(&dumped(&home), "b"), "index");
    let one = wal(&home, &format!("dump --shard 1 --raw-batches - --from {index} --to {index}"));
    assert!(one.stdout.len() < stored.len() && Batch::parse(Bytes::from(one.stdout)).is_ok());
    let document = json(&wal(&home, "dump --shard 1 --raw-batches other.bin -o json"));
    assert_eq!((number(&document, "batches"), number(&document, "records")), (4, 6));
}
