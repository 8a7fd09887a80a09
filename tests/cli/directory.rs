//! The data directory as a start meets it: missing, foreign, in use, newer, damaged.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crc_fast::{CrcAlgorithm, checksum};

use crate::{
    serve::Node,
    support::{Home, Said},
};

/// Starts a node that is expected to end, on a directory.
fn start(home: &Home, dir: &str) -> Said {
    crate::support::said(&mut home.command([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--http",
        "none",
        "--data-dir",
        dir,
    ]))
}

pub(crate) fn check(home: &Home, dir: &str) -> Said {
    crate::support::said(&mut home.command(["serve", "--check", "--data-dir", dir]))
}

/// Everything in a directory: names, modes, contents. The lock names who had it last.
pub(crate) fn content(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode();
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            all.insert(path, (mode, Vec::new()));
        } else if !path.ends_with("LOCK") {
            let bytes = fs::read(&path).unwrap();
            all.insert(path, (mode, bytes));
        }
    }
    all
}

/// A start and a check of `d` are refused alike, and neither changes anything below `kept`.
fn refused(home: &Home, kept: &str, code: i32, part: &str) {
    let before = content(&home.dir.path().join(kept));
    for said in [check(home, "d"), start(home, "d")] {
        assert_eq!(said.code, code, "{}", said.stderr);
        let error = said.stderr.lines().find(|line| line.starts_with("prkdb: ")).unwrap();
        assert!(error.contains(part), "no '{part}' in {error}");
        assert!(said.stdout.is_empty());
    }
    unchanged(&before, &home.dir.path().join(kept));
}

/// Nothing was added, removed or changed; names what was.
pub(crate) fn unchanged(before: &BTreeMap<PathBuf, (u32, Vec<u8>)>, dir: &Path) {
    let after = content(dir);
    let all = before.keys().chain(after.keys());
    let changed: Vec<_> = all.filter(|path| before.get(*path) != after.get(*path)).collect();
    assert!(changed.is_empty(), "changed: {changed:?}");
}

/// A home with a directory `d` that was written to in three lives.
pub(crate) fn used() -> Home {
    let node = Node::start();
    assert_eq!(node.run("put a 1").code, 0);
    let node = node.restart("-TERM", Some(0));
    assert_eq!(node.run("put b 2").code, 0);
    let node = node.restart("-TERM", Some(0));
    assert_eq!(node.run("put c 3").code, 0);
    node.killed()
}

/// The segments of the data shard, oldest first.
pub(crate) fn segments(home: &Home) -> Vec<PathBuf> {
    let dir = home.dir.path().join("d/shard-0000000001");
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    logs.sort();
    logs
}

#[test]
fn a_new_directory_is_private_and_an_open_one_is_made_so() {
    let home = Home::new();
    assert_eq!(check(&home, "d").code, 0);
    assert!(!home.dir.path().join("d").exists(), "a check creates nothing");
    let node = Node::start_in(home);
    let dir = node.home.dir.path().join("d");
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let home = node.killed();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let node = Node::start_in(home);
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(node.log().contains("directory was open to others: made private"));
}

#[test]
fn what_is_no_directory_is_refused_with_the_reason() {
    let home = Home::new();
    fs::write(home.dir.path().join("file"), "").unwrap();
    symlink("loop", home.dir.path().join("loop")).unwrap();
    let long = "x".repeat(300);
    let longer = "x/".repeat(3000);
    for (dir, reason) in [
        ("no/such/parent", "create no/such/parent: no such file or directory"),
        ("file", "not a directory"),
        ("loop", "too many levels of symbolic links"),
        (&long, "file name too long"),
        (&longer, "file name too long"),
    ] {
        for said in [start(&home, dir), check(&home, dir)] {
            assert_eq!(said.code, 13, "{}", said.stderr);
            assert!(said.stderr.to_lowercase().contains(reason), "{reason}: {}", said.stderr);
        }
    }
}

#[test]
fn a_directory_of_others_is_left_alone() {
    let home = Home::new();
    let dir = home.dir.path().join("d");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("letter.txt"), "dear").unwrap();
    refused(&home, "d", 13, "d is not a data directory: it has no IDENTITY and holds letter.txt");
}

#[test]
fn a_name_of_any_bytes_is_a_directory() {
    for name in [&b"with space"[..], b"with\nbreak", b"\xfc\xff"] {
        let home = Home::new();
        let mut command = Command::new(env!("CARGO_BIN_EXE_prkdb"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--http", "none", "--data-dir"])
            .arg(OsStr::from_bytes(name))
            .env_clear()
            .current_dir(home.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(line.starts_with("prkdb ready"), "{line}");
        assert!(home.dir.path().join(OsStr::from_bytes(name)).join("IDENTITY").exists());
    }
}

#[test]
fn a_directory_in_use_is_refused_and_its_check_passes() {
    let node = Node::start();
    let said = start(&node.home, "d");
    assert_eq!(said.code, 15, "{}", said.stderr);
    assert!(said.stderr.contains("data directory d is in use by process "), "{}", said.stderr);
    let said = check(&node.home, "d");
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("the data directory is in use"), "{}", said.stderr);
}

#[test]
fn the_lock_of_a_process_that_was_killed_is_taken_over() {
    let home = used();
    let lock = fs::read_to_string(home.dir.path().join("d/LOCK")).unwrap();
    assert!(lock.starts_with("pid "), "{lock}");
    let mut node = Node::start_in(home);
    // Started while the one before it is still being killed.
    for _ in 0..5 {
        let address = node.address.clone();
        node.signal("-KILL");
        let home = std::mem::replace(&mut node.home, Home::new());
        let next = Node::start_in(home);
        assert_ne!(next.address, address);
        node = next;
    }
    assert_eq!(node.run("get a b c").text(), "a\t1\nb\t2\nc\t3\n");
}

#[test]
fn a_newer_directory_is_refused_and_left_as_it_is() {
    let home = used();
    let path = home.dir.path().join("d/IDENTITY");
    let line = fs::read_to_string(&path).unwrap();
    let object = line.rsplit_once(' ').unwrap().0.replace("\"format\":1", "\"format\":2");
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, object.as_bytes());
    fs::write(&path, format!("{object} {crc:08x}\n")).unwrap();
    refused(&home, "d", 14, "d/IDENTITY has format 2: it needs a newer prkdb");
}

#[test]
fn an_identity_that_is_damaged_or_of_another_node_is_refused() {
    let home = used();
    let said = home.run("serve --check --data-dir d --node-id 4");
    assert_eq!(said.code, 7, "{}", said.stderr);
    assert!(said.stderr.contains("data directory d belongs to node 1, not node 4"));
    let path = home.dir.path().join("d/IDENTITY");
    let mut bytes = fs::read(&path).unwrap();
    bytes[12] ^= 1;
    fs::write(&path, bytes).unwrap();
    refused(&home, "d", 12, "d/IDENTITY is damaged at");
}

#[test]
fn a_missing_segment_in_the_middle_is_refused() {
    let home = used();
    let logs = segments(&home);
    assert!(logs.len() >= 3, "{logs:?}");
    fs::remove_file(&logs[1]).unwrap();
    refused(&home, "d", 12, "shard 1: corrupt ");
}

#[test]
fn a_missing_shard_is_refused() {
    for shard in ["shard-0000000000", "shard-0000000001"] {
        let home = used();
        fs::remove_dir_all(home.dir.path().join("d").join(shard)).unwrap();
        let before = content(&home.dir.path().join("d"));
        let said = start(&home, "d");
        assert_eq!(said.code, 12, "{}", said.stderr);
        assert!(said.stderr.contains(shard), "{}", said.stderr);
        if shard == "shard-0000000000" {
            unchanged(&before, &home.dir.path().join("d"));
        }
    }
}

#[test]
fn damage_is_found_by_a_check_and_nothing_is_cut() {
    let home = used();
    let path = segments(&home).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 100] ^= 0x40;
    fs::write(&path, bytes).unwrap();
    refused(&home, "d", 12, path.file_name().unwrap().to_str().unwrap());
}

#[test]
fn a_damaged_log_names_the_command_that_looks_at_it() {
    let home = used();
    fs::remove_file(&segments(&home)[1]).unwrap();
    for said in [check(&home, "d"), start(&home, "d")] {
        let told = said.stderr.lines().find_map(|line| line.split_once("hint: "));
        let command = told.unwrap().1.split_once(": prkdb ").unwrap().1;
        assert_eq!(command, "wal verify --data-dir d", "{}", said.stderr);
        let looked = home.run(command);
        assert_eq!(
            (looked.code, looked.stderr.contains("no such file")),
            (12, true),
            "{}",
            looked.stderr
        );
    }
}

#[test]
fn a_check_of_a_directory_after_a_kill_changes_nothing() {
    let home = used();
    let before = content(&home.dir.path().join("d"));
    let said = check(&home, "d");
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    unchanged(&before, &home.dir.path().join("d"));
    assert_eq!(Node::start_in(home).run("get c").text(), "3\n");
}

#[test]
fn files_that_do_not_belong_there_are_left_alone() {
    let home = used();
    let dir = home.dir.path().join("d");
    let strays = ["shard-0000000001/x.log~", "shard-0000000001/.swp", "IDENTITY.bak"];
    for stray in strays {
        fs::write(dir.join(stray), "stray").unwrap();
    }
    fs::create_dir(dir.join("lost+found")).unwrap();
    let node = Node::start_in(home);
    assert_eq!(node.run("get a b c").text(), "a\t1\nb\t2\nc\t3\n");
    for stray in strays {
        assert_eq!(fs::read(dir.join(stray)).unwrap(), b"stray", "{stray}");
    }
}

#[test]
fn the_directory_that_nobody_named_is_created_with_its_parent() {
    let home = Home::new();
    assert_eq!(home.run("serve --check").code, 0);
    assert!(!home.dir.path().join("prkdb-data").exists());
    let mut child = Command::new(env!("CARGO_BIN_EXE_prkdb"))
        .args(["serve", "--listen", "127.0.0.1:0", "--http", "none", "--node-id", "3"])
        .env_clear()
        .current_dir(home.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.starts_with("prkdb ready node=3"), "{line}");
    assert!(home.dir.path().join("prkdb-data/node-3/IDENTITY").exists());
}
