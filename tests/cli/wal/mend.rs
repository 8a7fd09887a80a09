//! Logs that are cut: repaired where they are damaged, truncated where they are not.

use std::{fs, path::PathBuf};

use serde_json::Value;

use super::{HEADER, dumped, edit, file_of, json, name_of, number, row_of, wal};
use crate::{
    directory::{content, segments, unchanged, used},
    serve::Node,
    support::Home,
};

/// A page of a segment.
const PAGE: usize = 4096;

/// A used directory with the record of `b` damaged; what the log has before it.
fn damaged() -> (Home, PathBuf, Value) {
    let home = used();
    let row = row_of(&dumped(&home), "b");
    let path = file_of(&home, number(&row, "segment"));
    edit(&path, |bytes| bytes[number(&row, "byte") + HEADER + 10] ^= 1);
    (home, path, row)
}

#[test]
fn a_repair_asks_first_and_changes_nothing_before() {
    let (home, path, row) = damaged();
    let dir = home.dir.path().join("d");
    let before = content(&dir);
    assert_eq!(wal(&home, "repair").code, 2, "one of --to and --in-place");
    assert_eq!(wal(&home, "repair --to r --in-place").code, 2);
    for line in ["repair --to r", "repair --in-place", "repair --in-place --no-input"] {
        let said = wal(&home, line);
        assert_eq!(said.code, 9, "{line}\n{}", said.stderr);
        let last = number(&row, "index") - 1;
        for part in [
            &format!("segment {}: bad crc at byte {}", name_of(&path), row["byte"]),
            &format!("the log ends with index {last}; indexes {} to ", row["index"]),
            "is cut to ",
            "is set aside",
            "it must never vote again",
            "refusing to ",
            "hint: pass --yes",
        ] {
            assert!(said.stderr.contains(part), "{line}: no '{part}' in\n{}", said.stderr);
        }
    }
    unchanged(&before, &dir);
    assert!(!home.dir.path().join("r").exists());
}

#[test]
fn a_copy_is_not_written_into_what_it_is_made_of() {
    let (home, _, _) = damaged();
    let dir = home.dir.path().join("d");
    std::os::unix::fs::symlink(&dir, home.dir.path().join("link")).unwrap();
    let before = content(&dir);
    for to in ["d/x", "./d/x", "d/shard-0000000001/../x", "link/x"] {
        let said = wal(&home, &format!("repair --to {to} --yes"));
        let is_told = said.stderr.contains("it lies inside of the data directory");
        assert_eq!((said.code, is_told), (2, true), "{to}: {}", said.stderr);
    }
    unchanged(&before, &dir);
}

#[test]
fn a_repaired_copy_has_all_before_the_damage_and_starts() {
    let (home, _, row) = damaged();
    let dir = home.dir.path().join("d");
    let before = content(&dir);
    let said = wal(&home, "repair --to r --yes -o json");
    assert_eq!(said.code, 0, "{}", said.stderr);
    let document = json(&said);
    assert_eq!((&document["changed"], &document["data_dir"]), (&true.into(), &"r".into()));
    let shard = &document["shards"][0];
    assert_eq!(number(shard, "shard"), 1);
    assert_eq!(number(shard, "last_index"), number(&row, "index") - 1);
    assert_eq!(number(shard, "lost_records"), 1, "b cannot be read, c can");
    unchanged(&before, &dir);
    assert_eq!(home.run("wal verify --data-dir r").code, 0);
    assert_eq!(home.run("wal repair --data-dir d --to r --yes").code, 13, "it is there already");
    assert_eq!(home.run("wal repair --data-dir d --to d/r --yes").code, 2);
    let r = home.dir.path().join("r");
    fs::rename(&dir, home.dir.path().join("was")).unwrap();
    fs::rename(&r, &dir).unwrap();
    goes_on(home);
}

#[test]
fn a_log_repaired_in_place_keeps_what_was_cut_off_and_starts() {
    let (home, path, _) = damaged();
    let shard = path.parent().unwrap().to_path_buf();
    let before: Vec<Vec<u8>> = segments(&home).iter().map(|path| fs::read(path).unwrap()).collect();
    let said = wal(&home, "repair --in-place --yes");
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.text().ends_with("repaired d\n"), "{}", said.text());
    let after: Vec<Vec<u8>> = fs::read_dir(&shard)
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(before.iter().all(|bytes| after.contains(bytes)), "every file is still there");
    let info = wal(&home, "info --shard 1");
    assert!(info.text().contains("\tquarantined\n"), "{}", info.text());
    let again = wal(&home, "repair --in-place --yes -o json");
    assert_eq!((again.code, &json(&again)["changed"]), (0, &false.into()));
    goes_on(home);
}

/// The directory has `a`, and neither `b` nor `c`; a node serves it, and keeps what is written.
fn goes_on(home: Home) {
    let node = Node::start_in(home);
    let said = node.run("get a b c");
    assert_eq!((said.code, said.text().as_str()), (3, "a\t1\n"), "{}", said.stderr);
    assert_eq!(node.run("put b 22").code, 0);
    let node = node.restart("-TERM", Some(0));
    assert_eq!(node.run("get a b").text(), "a\t1\nb\t22\n");
    let home = node.killed();
    let said = wal(&home, "verify --deep");
    assert_eq!(said.code, 0, "{}", said.stderr);
}

#[test]
fn a_log_whose_first_entry_is_damaged_is_set_aside_whole() {
    let home = used();
    let path = segments(&home).remove(0);
    edit(&path, |bytes| bytes[PAGE + 20] ^= 1);
    let said = wal(&home, "repair --in-place");
    assert_eq!(said.code, 9);
    assert!(said.stderr.contains("ends before its first entry"), "{}", said.stderr);
    let said = wal(&home, "repair --in-place --yes");
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(wal(&home, "verify").code, 0);
    assert!(wal(&home, "dump --shard 1").text().lines().count() == 1);
    let node = Node::start_in(home);
    assert_eq!(node.run("get a").code, 3);
    assert_eq!(node.run("put a 11").code, 0);
    let node = node.restart("-TERM", Some(0));
    assert_eq!(node.run("get a").text(), "11\n");
}

#[test]
fn a_missing_segment_is_repaired_up_to_it() {
    let home = used();
    let row = row_of(&dumped(&home), "b");
    fs::remove_file(file_of(&home, number(&row, "segment"))).unwrap();
    let said = wal(&home, "repair --in-place --yes");
    assert_eq!(said.code, 0, "{}", said.stderr);
    goes_on(home);
}

#[test]
fn a_truncation_cuts_behind_the_entry_it_names() {
    let home = used();
    let rows = dumped(&home);
    let after = number(&row_of(&rows, "b"), "index") - 1;
    let dir = home.dir.path().join("d");
    let before = content(&dir);
    let line = format!("truncate --shard 1 --after {after}");
    assert_eq!(wal(&home, &line).code, 2, "--in-place has no other choice and is still typed");
    let said = wal(&home, &format!("{line} --in-place"));
    assert_eq!(said.code, 9);
    assert!(said.stderr.contains("with 2 records, "), "{}", said.stderr);
    assert!(said.stderr.contains("it must never vote again"), "{}", said.stderr);
    for (index, code) in [("999999", 0), ("x", 2)] {
        let said = wal(&home, &format!("truncate --shard 1 --after {index} --in-place --yes"));
        assert_eq!(said.code, code, "{index}\n{}", said.stderr);
    }
    unchanged(&before, &dir);
    let said = wal(&home, &format!("{line} --in-place --yes -o json"));
    assert_eq!(said.code, 0, "{}", said.stderr);
    let document = json(&said);
    assert_eq!((number(&document, "last_index"), number(&document, "lost_records")), (after, 2));
    let again = wal(&home, &format!("{line} --in-place --yes -o json"));
    assert_eq!((again.code, &json(&again)["changed"]), (0, &false.into()));
    goes_on(home);
}

#[test]
fn a_damaged_log_is_not_truncated() {
    let (home, _, _) = damaged();
    let before = content(&home.dir.path().join("d"));
    assert_eq!(wal(&home, "truncate --shard 1 --after 1 --in-place --yes").code, 12);
    unchanged(&before, &home.dir.path().join("d"));
}

/// The rows of the metadata shard that hold records.
fn catalogue(home: &Home) -> Vec<Value> {
    let said = wal(home, "dump --shard 0 --kind entry -o ndjson");
    said.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn metadata_file(home: &Home, row: &Value) -> PathBuf {
    let ending = format!("-{:010}.log", number(row, "segment"));
    let dir = home.dir.path().join("d/shard-0000000000");
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| path.to_str().unwrap().ends_with(&ending)).unwrap()
}

#[test]
fn a_catalogue_is_not_cut_where_partitions_would_lose_their_collection() {
    let node = Node::start();
    assert_eq!(node.run("put a 1").code, 0);
    assert_eq!(node.run("collection create orders").code, 0);
    // Behind the entry of `orders` there is more to be read.
    let home = node.restart("-TERM", Some(0)).killed();
    let row = catalogue(&home).pop().unwrap();
    let path = metadata_file(&home, &row);
    let last = number(&row, "index") - 1;
    let dir = home.dir.path().join("d");
    let refusal = "shard 0 cannot be cut there: partitions 4, 5, 6 of shard 1 would belong to no";
    let before = content(&dir);
    let said = wal(&home, &format!("truncate --shard 0 --after {last} --in-place --yes"));
    assert_eq!(said.code, 12, "{}", said.stderr);
    assert!(said.stderr.contains(refusal), "{}", said.stderr);
    unchanged(&before, &dir);
    edit(&path, |bytes| bytes[number(&row, "byte") + HEADER + 10] ^= 1);
    let before = content(&dir);
    for line in ["repair --to r --yes", "repair --in-place --yes"] {
        let said = wal(&home, line);
        assert_eq!(said.code, 12, "{line}\n{}", said.stderr);
        assert!(said.stderr.contains(refusal), "{line}\n{}", said.stderr);
        assert!(said.stderr.contains("hint: restore its segments"), "{line}\n{}", said.stderr);
    }
    unchanged(&before, &dir);
    assert!(!home.dir.path().join("r").exists());
}

#[test]
fn a_catalogue_is_cut_behind_its_last_collection() {
    let home = used();
    let row = catalogue(&home).pop().unwrap();
    let index = number(&row, "index");
    let said = wal(&home, &format!("truncate --shard 0 --after {index} --in-place --yes"));
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.text().ends_with(&format!("the log of shard 0 ends with index {index}\n")));
    let node = Node::start_in(home);
    assert_eq!(node.run("get a b c").text(), "a\t1\nb\t2\nc\t3\n");
    assert_eq!(node.run("collection create more").code, 0);
    assert_eq!(node.run("put -c more k v").code, 0);
    let node = node.restart("-TERM", Some(0));
    assert_eq!(node.run("get -c more k").text(), "v\n");
}
