//! Data commands against a node in memory.

use crate::{fake::Fake, support::said};

#[test]
fn put_get_and_delete_say_what_they_did() {
    let node = Fake::new();
    assert_eq!(node.run("put user:101 Alice").text(), "OK\n");
    assert_eq!(node.run("get user:101").text(), "Alice\n");
    assert_eq!(node.run("get user:101 --raw").text(), "Alice");
    assert_eq!(node.run("put user:101 Bob --print-prev").text(), "Alice\n");
    assert_eq!(node.run("put user:101 Bob -q").text(), "");
    assert_eq!(node.run("put user:101 x --if-absent").code, 7);
    assert_eq!(node.run("put user:101 x --if-version 999").code, 7);
    let json: serde_json::Value =
        serde_json::from_slice(&node.run("put k v -o json").stdout).unwrap();
    assert_eq!((&json["schema"], &json["applied"]), (&"prkdb.put/1".into(), &true.into()));
    assert_eq!(node.run("delete user:101").text(), "deleted 1\n");
    let again = node.run("delete user:101");
    assert_eq!((again.code, again.text().as_str()), (0, "deleted 0\n"));
    assert_eq!(node.run("delete user:101 --must-exist").code, 3);
    assert_eq!(
        node.run("rm k gone -o ndjson").text(),
        "{\"schema\":\"prkdb.delete/1\",\"deleted\":1,\"missing\":[\"gone\"]}\n"
    );
}

#[test]
fn a_missing_key_is_exit_3_and_the_others_are_printed() {
    let node = Fake::new();
    node.run("put a 1");
    let missing = node.run("get nope");
    assert_eq!(
        (missing.code, missing.stdout.is_empty(), missing.stderr.as_str()),
        (3, true, "prkdb: key not found: nope\n")
    );
    let both = node.run("get a nope");
    assert_eq!((both.code, both.text().as_str()), (3, "a\t1\n"));
    assert_eq!(node.run("get nope --default x").text(), "x\n");
    assert_eq!((node.run("get --exists a").code, node.run("get --exists nope").code), (0, 3));
    let json = node.run("get a nope -o json");
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(document["items"][1]["found"], false);
    let meta = node.run("get a --with-meta");
    assert_eq!(
        meta.text(),
        "KEY\tVALUE\tVERSION\tPARTITION\tTIMESTAMP\tTTL\n\
         a\t1\t0\t0\t1970-01-01T00:00:00.000Z\t-\n"
    );
}

#[test]
fn bytes_go_in_and_out_unchanged() {
    let node = Fake::new();
    let mut blob: Vec<u8> = (0..=255).collect();
    blob.extend_from_slice(&vec![0xfe; 1_000_000]);
    assert_eq!(said(node.command("put blob").write_stdin(blob.clone())).code, 0);
    assert_eq!(node.run("get --raw blob").stdout, blob);
    node.write("file", &blob);
    assert_eq!(node.run("put blob2 --value-file file").code, 0);
    assert_eq!(node.run("get blob2 -o raw").stdout, blob);
    assert_eq!(said(node.command("put empty -").write_stdin("")).code, 0);
    assert_eq!(node.run("get --raw empty").stdout, b"");
    assert_eq!(node.run("get empty").stdout, b"\n");
    said(node.command("put line --chomp").write_stdin("x\n\n"));
    assert_eq!(node.value("line").unwrap(), b"x\n");
    node.run("put k -5");
    assert_eq!(node.value("k").unwrap(), b"-5");
    node.run("put k -- --x");
    assert_eq!(node.value("k").unwrap(), b"--x");
}

#[test]
fn binary_keys_round_trip_through_scan_and_batch_put() {
    let node = Fake::new();
    node.run("put --key-encoding hex 00ff0a x");
    let keys = node.run("scan --keys-only -o ndjson").text();
    assert_eq!(keys, "{\"schema\":\"prkdb.scan/1\",\"key_b64\":\"AP8K\"}\n");
    node.run("put text {\"a\":[1,\"\u{e9}\"]}");
    let dump = node.run("scan -o ndjson");
    let before = node.state.lock().unwrap().keys.clone();
    let other = Fake::new();
    other.write("dump.jsonl", &dump.stdout);
    assert_eq!(other.run("batch-put dump.jsonl").code, 0);
    let after = other.state.lock().unwrap().keys.clone();
    let values = |keys: &std::collections::BTreeMap<Vec<u8>, (Vec<u8>, u64)>| {
        keys.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect::<Vec<_>>()
    };
    assert_eq!(values(&before), values(&after));
}

#[test]
fn scan_prints_rows_in_every_format() {
    let node = Fake::new();
    node.run("put a 1");
    node.run("put b 2");
    assert_eq!(node.run("scan").text(), "KEY\tVALUE\tVERSION\tPARTITION\na\t1\t0\t0\nb\t2\t1\t0\n");
    assert_eq!(node.run("scan --no-headers --columns value,key").text(), "1\ta\n2\tb\n");
    assert_eq!(node.run("scan --count").text(), "2\n");
    assert_eq!(node.run("scan b -o csv").text(), "KEY,VALUE,VERSION,PARTITION\nb,2,1,0\n");
    let json: serde_json::Value = serde_json::from_slice(&node.run("scan -o json").stdout).unwrap();
    assert_eq!(json["items"].as_array().unwrap().len(), 2);
    let none: serde_json::Value =
        serde_json::from_slice(&node.run("scan zzz -o json").stdout).unwrap();
    assert_eq!(none["items"], serde_json::json!([]));
}

#[test]
fn delete_by_prefix_asks_and_sends_nothing_before() {
    let node = Fake::new();
    for key in ["a:1", "a:2", "b:1"] {
        node.run(&format!("put {key} v"));
    }
    let writes = node.state.lock().unwrap().writes;
    let refused = node.run("delete --prefix a:");
    assert_eq!(refused.code, 9);
    assert!(
        refused.stderr.contains("delete 2 keys") && refused.stderr.contains("hint: pass --yes")
    );
    let dry = node.run("delete --prefix a: --dry-run");
    assert_eq!(dry.text(), "KEY\tVERSION\tPARTITION\na:1\t0\t0\na:2\t1\t0\n");
    assert_eq!(node.state.lock().unwrap().writes, writes);
    assert_eq!(node.run("delete --prefix a: --yes").text(), "deleted 2\n");
    assert_eq!(node.run("delete --prefix zzz").text(), "deleted 0\n");
}

#[test]
fn collections_are_listed_in_order_and_dropped_by_name() {
    let node = Fake::new();
    assert_eq!(node.run("collection create zoo").text(), "created collection zoo\n");
    assert_eq!(node.run("topic create zoo").text(), "already there: collection zoo\n");
    let list = node.run("collection list --columns name --no-headers").text();
    assert_eq!(list, "default\nzoo\n");
    let described = node.run("collection describe zoo");
    assert_eq!(described.text().lines().count(), 4);
    assert_eq!(node.run("collection describe nope").code, 3);
    let writes = node.state.lock().unwrap().writes;
    assert_eq!(node.run("collection drop zoo --yes").code, 9);
    assert_eq!(node.state.lock().unwrap().writes, writes);
    assert_eq!(node.run("collection drop zoo --confirm zoo").text(), "dropped collection zoo\n");
    assert_eq!(node.run("collection drop zoo --confirm zoo").code, 3);
    assert_eq!(node.run("collection drop zoo --confirm zoo --if-exists").code, 0);
}

#[test]
fn a_collection_is_altered_once() {
    let node = Fake::new();
    let altered = node.run("collection alter default --partitions 4");
    assert_eq!(altered.text(), "altered collection default, 4 partitions\n");
    let again = node.run("collection alter default --partitions 4");
    assert_eq!(again.text(), "already so: collection default, 4 partitions\n");
    let json = node.run("topic alter default --partitions 5 -o json");
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["partition_count"], &json["changed"]), (&5.into(), &true.into()));
    assert_eq!(node.run("collection alter nope --partitions 4").code, 3);
}

#[test]
fn no_partitions_are_refused_by_their_bounds() {
    let said = Fake::new().run("collection create none --partitions 0");
    let is_told = said.stderr.contains("0 partitions: a collection has from 1 to ");
    assert_eq!((said.code, is_told), (1, true), "{}", said.stderr);
}

#[test]
fn two_retentions_of_one_kind_are_refused() {
    let node = Fake::new();
    for line in [
        "create c --no-index --retention 7d --retention 8d",
        "create c --no-index --retention 1GiB --retention 2GiB",
        "alter default --retention none --retention 7d",
    ] {
        let said = node.run(&format!("collection {line}"));
        let is_told = said.stderr.contains("one age and one size at most");
        assert_eq!((said.code, is_told), (2, true), "{line}: {}", said.stderr);
    }
}

#[test]
fn consumer_groups_are_listed_by_name() {
    let node = Fake::new();
    let empty = node.run("consumer list -o table");
    assert_eq!(empty.stderr, "(no consumer groups)\n");
    assert!(empty.text().starts_with("GROUP  STATE  MEMBERS  COLLECTIONS"), "{}", empty.text());
    let group = |name: &str, collections: &[&str]| prkdb_proto::v1::Group {
        name: name.to_owned(),
        state: "empty".to_owned(),
        collections: collections.iter().map(|name| String::from(*name)).collect(),
        lag: 7,
        last_commit_ms: collections.first().map(|_| 1_356_998_400_000),
        ..prkdb_proto::v1::Group::default()
    };
    node.state.lock().unwrap().groups = vec![group("b", &["x", "y"]), group("a", &[])];
    assert_eq!(
        node.run("group list").text(),
        "GROUP\tSTATE\tMEMBERS\tCOLLECTIONS\tLAG\tCOORDINATOR\tLAST-COMMIT\n\
         a\tempty\t0\t-\t7\t-\t-\n\
         b\tempty\t0\tx,y\t7\t-\t2013-01-01T00:00:00.000Z\n"
    );
    let json = node.run("consumer list -o json --sort group:desc");
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["items"][0]["collections"], serde_json::json!(["x", "y"]));
}

#[test]
fn status_and_metrics_and_health_answer() {
    let node = Fake::new();
    let status = node.run("status");
    assert_eq!((status.code, status.text().lines().count()), (0, 2));
    let json: serde_json::Value =
        serde_json::from_slice(&node.run("status -o json").stdout).unwrap();
    assert_eq!(json["nodes"][0]["disk_used_bytes"], 1 << 30);
    assert_eq!(json["cluster"]["state"], "healthy");
    node.state.lock().unwrap().fails_after = Some(0);
    let critical = node.run("status");
    assert_eq!(
        (critical.code, critical.stderr.as_str()),
        (10, "critical: disk_full: the disk has no room\n")
    );
    assert_eq!(node.run("status --fail-on never").code, 0);
    assert_eq!(node.run("metrics").text(), "METRIC\tLABELS\tVALUE\nprkdb_keys\tshard=\"1\"\t7\n");
    assert!(node.run("metrics -o prometheus").text().ends_with("# EOF\n"));
    assert_eq!(node.run("metrics names").text(), "NAME\tTYPE\tHELP\nprkdb_keys\tgauge\tKeys.\n");
    let version =
        node.command("version").args(["--server", &node.address.to_string()]).output().unwrap();
    assert!(String::from_utf8(version.stdout).unwrap().contains("server 0.1.0"));
}

#[test]
fn a_delete_that_fails_midway_says_how_many_are_gone() {
    let node = Fake::new();
    let put = || {
        for key in ["a:1", "a:2", "a:3"] {
            node.run(&format!("put {key} v"));
        }
    };
    put();
    node.state.lock().unwrap().kept = Some(b"a:2".to_vec());
    for line in ["delete a:1 a:2 a:3 -o json", "delete --prefix a: --yes -o json"] {
        put();
        let midway = node.run(line);
        assert_eq!(midway.code, 8, "{line}\n{}", midway.stderr);
        let (said, json) = midway.stderr.trim_end().rsplit_once('\n').unwrap();
        assert!(said.starts_with("prkdb: delete a:2: no room; 1 deleted before it"), "{said}");
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(json["error"]["details"], serde_json::json!({"deleted": 1}), "{json}");
        assert!(midway.stdout.is_empty());
        let left: Vec<_> = node.state.lock().unwrap().keys.keys().cloned().collect();
        assert_eq!(left, [b"a:2", b"a:3"]);
    }
    let none = node.run("delete a:2 a:3");
    assert_eq!((none.code, none.stderr.as_str()), (1, "prkdb: delete a:2: no room\n"));
}
