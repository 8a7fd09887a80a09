//! The logs of a stopped node: `verify`, and what all verbs share. `dump` and the verbs that mend have
//! files of their own.

mod dump;
mod mend;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use crc_fast::{CrcAlgorithm, checksum};
use serde_json::Value;

use crate::{
    directory::{check, content, segments, unchanged, used},
    serve::Node,
    support::{Home, Said},
};

/// The header of an entry.
const HEADER: usize = 72;

fn wal(home: &Home, line: &str) -> Said {
    home.run(&format!("wal {line} --data-dir d"))
}

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.text()).unwrap_or_else(|error| panic!("{error}\n{}", said.text()))
}

/// The lines of an ndjson result.
fn rows(said: &Said) -> Vec<Value> {
    said.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(row: &Value, name: &str) -> usize {
    usize::try_from(row[name].as_u64().unwrap_or_else(|| panic!("{name} of {row}"))).unwrap()
}

/// The entries of the data shard, a row for each record.
fn dumped(home: &Home) -> Vec<Value> {
    let said = wal(home, "dump --shard 1 -o ndjson");
    assert_eq!(said.code, 0, "{}", said.stderr);
    rows(&said)
}

/// The file of a segment of the data shard.
fn file_of(home: &Home, segment: usize) -> PathBuf {
    let ending = format!("-{segment:010}.log");
    let found = segments(home).into_iter().find(|path| path.to_str().unwrap().ends_with(&ending));
    found.unwrap()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Changes bytes of a file.
fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// The row of the record with this key.
fn row_of(rows: &[Value], key: &str) -> Value {
    rows.iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("no {key}")).clone()
}

/// Runs `wal verify` and a check of a start: they agree, and nothing is changed.
fn verified(home: &Home) -> Said {
    let dir = home.dir.path().join("d");
    let before = content(&dir);
    let said = wal(home, "verify");
    unchanged(&before, &dir);
    let start = check(home, "d");
    assert_eq!(said.code, start.code, "{}\n{}", said.stderr, start.stderr);
    unchanged(&before, &dir);
    for line in ["verify --deep", "info", "info -o json", "dump --shard 1", "dump --shard 0"] {
        assert!([0, said.code].contains(&wal(home, line).code), "{line}");
        unchanged(&before, &dir);
    }
    said
}

/// The log is refused where `path` is damaged, and `parts` are said.
fn refused(home: &Home, path: &Path, parts: &[&str]) {
    let said = verified(home);
    assert_eq!(said.code, 12, "{}", said.stderr);
    let line = said.stderr.lines().find(|line| line.starts_with("prkdb: shard 1: ")).unwrap();
    assert!(line.contains(&name_of(path)), "{line}");
    for part in parts {
        assert!(line.contains(part), "no '{part}' in {line}");
    }
    assert!(said.stderr.contains("hint: restore a copy"), "{}", said.stderr);
    let row = said.text().lines().find(|line| line.starts_with("1\t")).unwrap().to_owned();
    assert!(row.contains("damaged") && row.contains(&name_of(path)), "{row}");
}

#[test]
fn a_log_that_was_not_touched_is_sound() {
    let home = used();
    let said = verified(&home);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let text = said.text();
    assert!(text.starts_with("SHARD\tSTATE\tSEGMENTS\tENTRIES\tRECORDS\tLAST-INDEX\t"), "{text}");
    assert!(text.lines().skip(1).all(|line| line.contains("\tok\t") || line.contains("\ttorn\t")));
    assert_eq!(text.lines().count(), 3, "{text}");
    let one = wal(&home, "verify --shard 1 -o json");
    assert_eq!(json(&one)["items"][0]["records"], 6, "three puts, three partitions");
    let none = wal(&home, "verify --shard 7");
    assert_eq!(none.code, 2);
    assert!(none.stderr.contains("hint: it has: 0, 1"), "{}", none.stderr);
}

#[test]
fn flipped_bits_are_told_with_byte_and_index() {
    let home = used();
    let rows = dumped(&home);
    let row = row_of(&rows, "a");
    let (byte, index) = (number(&row, "byte"), number(&row, "index"));
    let path = file_of(&home, number(&row, "segment"));
    let sound = fs::read(&path).unwrap();
    let at = format!("at byte {byte} (index {index}), ");
    for (name, position) in [
        ("header", byte + 20),
        ("sequence", byte + HEADER + 8),
        ("frame", byte + HEADER + 24 + 5),
        ("head of the batch", byte + HEADER + 48 + 9),
        ("records", byte + HEADER + 48 + 70),
    ] {
        edit(&path, |bytes| bytes[position] ^= 0x10);
        refused(&home, &path, &[&at, "bad crc", "records follow: expected "]);
        fs::write(&path, &sound).unwrap();
        assert_eq!(wal(&home, "verify").code, 0, "{name} is mended");
    }
    edit(&path, |bytes| bytes[byte] ^= 1);
    refused(&home, &path, &[&at, "no entry"]);
    fs::write(&path, &sound).unwrap();
    edit(&path, |bytes| bytes[100] ^= 1);
    refused(&home, &path, &["at byte 0", "bad crc", "segment header checksum"]);
}

#[test]
fn a_file_that_is_cut_gone_or_empty_is_told() {
    let home = used();
    let rows = dumped(&home);
    let row = row_of(&rows, "b");
    let (byte, index) = (number(&row, "byte"), number(&row, "index"));
    let path = file_of(&home, number(&row, "segment"));
    let sound = fs::read(&path).unwrap();
    fs::write(&path, &sound[..byte + 30]).unwrap();
    refused(&home, &path, &[&format!("cut short at byte {byte} (index {index})")]);
    fs::write(&path, &sound[..byte + HEADER + 10]).unwrap();
    refused(&home, &path, &[&format!("cut short at byte {byte} (index {index})")]);
    fs::write(&path, &sound[..byte]).unwrap();
    refused(&home, &path, &[&format!("at byte {byte} (index {index})")]);
    fs::write(&path, b"").unwrap();
    refused(&home, &path, &["at byte 0"]);
    fs::remove_file(&path).unwrap();
    refused(&home, &path, &["missing at byte 0", "found no such file"]);
    let following = json(&wal(&home, "verify --shard 1 -o json"))["items"][0]["following"].clone();
    assert!(following.as_u64().unwrap() >= 1, "{following}");
}

/// Makes the checksum of an entry's header right again.
fn reseal(path: &Path, byte: usize) {
    let name = name_of(path);
    let (log_id, number) = name.strip_suffix(".log").unwrap().split_once('-').unwrap();
    let mut covered = u64::from_str_radix(log_id, 16).unwrap().to_le_bytes().to_vec();
    covered.extend(number.parse::<u64>().unwrap().to_le_bytes());
    edit(path, |bytes| {
        covered.extend(&bytes[byte..byte + 68]);
        let crc = u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, &covered)).unwrap();
        bytes[byte + 68..byte + 72].copy_from_slice(&crc.to_le_bytes());
    });
}

#[test]
fn a_newer_format_is_exit_14() {
    let home = used();
    let row = row_of(&dumped(&home), "c");
    let (byte, path) = (number(&row, "byte"), file_of(&home, number(&row, "segment")));
    edit(&path, |bytes| bytes[byte + 4] = 2);
    reseal(&path, byte);
    let said = verified(&home);
    assert_eq!(said.code, 14, "{}", said.stderr);
    assert!(said.stderr.contains("has format 2: it needs a newer prkdb"), "{}", said.stderr);
    for line in ["repair --to r --yes", "repair --in-place --yes"] {
        assert_eq!(wal(&home, line).code, 14, "{line}");
    }
    assert!(!home.dir.path().join("r").exists());
}

/// Where the entries of the newest segment end.
fn newest_end(home: &Home) -> (PathBuf, usize) {
    let said = wal(home, "info --shard 1 -o ndjson");
    let active = rows(&said).into_iter().find(|row| row["state"] == "active").unwrap();
    (file_of(home, number(&active, "segment")), number(&active, "used_bytes"))
}

#[test]
fn a_torn_tail_is_no_damage_and_is_told() {
    let home = used();
    let (path, end) = newest_end(&home);
    edit(&path, |bytes| bytes[end..end + 30].copy_from_slice(&[0x5a; 30]));
    let said = verified(&home);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let note = format!(
        "note: shard 1: segment {}: a torn tail of 30 bytes (0 entries) from byte {end} on: normal after a crash",
        name_of(&path)
    );
    assert!(said.stderr.starts_with(&note), "{}", said.stderr);
    assert!(said.text().contains("1\ttorn\t"), "{}", said.text());
    assert_eq!(wal(&home, "verify -q").stderr, "");
    assert!(wal(&home, "info").text().contains("\ttorn\tactive"));
    let nothing = wal(&home, "repair --in-place --yes");
    assert_eq!(
        (nothing.code, nothing.text().as_str()),
        (0, "no log is damaged: nothing to repair\n")
    );
    assert_eq!(Node::start_in(home).run("get a b c").text(), "a\t1\nb\t2\nc\t3\n");
}

#[test]
fn a_missing_shard_is_told() {
    for shard in [0, 1] {
        let home = used();
        let dir = home.dir.path().join(format!("d/shard-{shard:010}"));
        fs::remove_dir_all(&dir).unwrap();
        let said = wal(&home, "verify");
        assert_eq!(said.code, 12, "{}", said.stderr);
        assert!(said.stderr.contains(&format!("shard {shard}: missing: ")), "{}", said.stderr);
    }
}

#[test]
fn a_directory_that_is_none_is_refused() {
    let home = Home::new();
    assert_eq!(wal(&home, "verify").code, 13);
    fs::create_dir(home.dir.path().join("d")).unwrap();
    let said = wal(&home, "verify");
    assert_eq!(said.code, 13);
    assert!(said.stderr.contains("d/IDENTITY: No such file"), "{}", said.stderr);
    fs::write(home.dir.path().join("d/x"), "").unwrap();
    assert!(wal(&home, "info").stderr.contains("is not a data directory"));
    assert!(!home.dir.path().join("d/LOCK").exists());
    let home = used();
    let without = home.run("wal verify");
    assert_eq!(without.code, 2);
    let by_variable =
        crate::support::said(home.command(["wal", "verify"]).env("PRKDB_DATA_DIR", "d"));
    assert_eq!(by_variable.code, 0, "{}", by_variable.stderr);
    edit(&home.dir.path().join("d/IDENTITY"), |bytes| bytes[12] ^= 1);
    assert_eq!(wal(&home, "verify").code, 12);
}

#[test]
fn a_running_node_keeps_the_lock_and_can_be_looked_at() {
    let node = Node::start();
    assert_eq!(node.run("put a 1").code, 0);
    for line in [
        "verify",
        "info",
        "dump --shard 1",
        "repair --to r --yes",
        "repair --in-place --yes",
        "truncate --shard 1 --after 1 --in-place --yes",
    ] {
        let said = wal(&node.home, line);
        assert_eq!(said.code, 15, "{line}\n{}", said.stderr);
        assert!(said.stderr.contains("is in use by process "), "{line}\n{}", said.stderr);
        assert!(said.stderr.contains("hint: stop the node"), "{line}\n{}", said.stderr);
    }
    for line in ["verify", "info", "dump --shard 1"] {
        let said = wal(&node.home, &format!("{line} --allow-live"));
        assert_eq!(said.code, 0, "{line}\n{}", said.stderr);
        assert!(said.stderr.starts_with("warning: a node runs on the directory"), "{line}");
    }
    for line in ["repair --to r", "truncate --shard 1 --after 1 --in-place"] {
        assert_eq!(wal(&node.home, &format!("{line} --allow-live")).code, 2, "{line}");
    }
    // Nobody's lock is in the way afterwards.
    let node = node.restart("-TERM", Some(0));
    assert_eq!(node.run("get a").text(), "1\n");
}

#[test]
fn a_log_that_is_written_to_is_never_called_damaged() {
    let node = Node::start();
    let home = node.home.dir.path();
    fs::write(home.join("e.txt"), crate::support::lines(20_000, |n| format!("event {n}"))).unwrap();
    let mut writing = std::process::Command::new(env!("CARGO_BIN_EXE_prkdb"))
        .args(["produce", "events", "e.txt", "--create", "--format", "lines", "--batch-size", "10"])
        .env_clear()
        .env("PRKDB_SERVER", &node.address)
        .current_dir(home)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut looks = 0;
    while writing.try_wait().unwrap().is_none() || looks < 3 {
        let said = wal(&node.home, "verify --allow-live");
        assert_eq!(said.code, 0, "{}", said.stderr);
        looks += 1;
    }
}

/// What differs from run to run, by name: ids, times, checksums.
fn plain(home: &Home, text: &str) -> String {
    let mut text = text.to_owned();
    for shard in ["d/shard-0000000000", "d/shard-0000000001"] {
        for entry in fs::read_dir(home.dir.path().join(shard)).unwrap() {
            let name = name_of(&entry.unwrap().path());
            if let Some((id, _)) = name.split_once('-') {
                text = text.replace(id, "LOGID");
            }
        }
    }
    let mut out = String::new();
    for line in text.lines() {
        let words = line.split_inclusive([' ', '\t', ',']);
        for word in words {
            let bare = word.trim_end_matches([' ', '\t', ',']);
            let is_hex = bare.len() == 8 && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_hex { out.push_str(&word.replace(bare, "CHECKSUM")) } else { out.push_str(word) }
        }
        out.push('\n');
    }
    out
}

#[test]
fn what_is_printed_is_the_golden_text() {
    let home = used();
    let mut text = "What the verbs of `prkdb wal` print of a log of three lives, and of the same log with a bit\n\
                    flipped. LOGID and CHECKSUM stand for what is drawn or computed.\n"
        .to_owned();
    let mut add = |home: &Home, line: &str| {
        let said = wal(home, line);
        writeln!(text, "\n$ prkdb wal {line}; echo $?").unwrap();
        text.push_str(&plain(home, &said.text()));
        text.push_str(&plain(home, &said.stderr));
        writeln!(text, "{}", said.code).unwrap();
    };
    let dump = "dump --shard 1 --kind entry,blank,membership --columns offset,index,type,collection,partition,key,value,crc";
    add(&home, dump);
    add(&home, "info --shard 1 --columns shard,segment,first-index,last-index,records,crc,state");
    add(&home, "verify --columns shard,state,records,last-index,problem");
    let row = row_of(&dumped(&home), "b");
    let path = file_of(&home, number(&row, "segment"));
    edit(&path, |bytes| bytes[number(&row, "byte") + HEADER + 10] ^= 1);
    add(&home, "verify --columns shard,state,file,byte,index,following,problem");
    add(&home, "info --shard 1 --columns shard,segment,first-index,last-index,records,crc,state");
    add(&home, "repair --to r");
    add(&home, "repair --to r --yes");
    let golden = crate::generated::root().join("tests/cli/golden/wal.txt");
    crate::generated::check(&golden, text.as_bytes());
}
