//! What `doctor` finds on this machine, whatever machine it is, and in directories made for it.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::Value;

use crate::{
    directory::{content, unchanged, used},
    serve::Node,
    support::{Home, Said, said},
};

fn doctor(home: &Home) -> Said {
    home.run("doctor --data-dir d -o json")
}

/// Status and text of a check.
fn check(said: &Said, name: &str) -> (String, String) {
    let document: Value = serde_json::from_str(&said.text()).unwrap();
    let items = document["items"].as_array().unwrap();
    let row = items.iter().find(|row| row["check"] == name).unwrap_or_else(|| panic!("{name}"));
    let text = format!("{} | {}", row["found"].as_str().unwrap(), row["hint"]);
    (row["status"].as_str().unwrap().to_owned(), text)
}

fn status(said: &Said, name: &str) -> String {
    check(said, name).0
}

#[test]
fn the_exit_code_is_the_worst_of_the_checks() {
    let home = used();
    let dir = home.dir.path().join("d");
    let before = content(&dir);
    let found = doctor(&home);
    let text = found.text();
    let expected = match () {
        () if text.contains("\"FAIL\"") => 10,
        () if text.contains("\"WARN\"") => 11,
        () => 0,
    };
    assert_eq!(found.code, expected, "{text}");
    for name in ["data-dir", "permissions", "lock"] {
        assert_eq!(status(&found, name), "OK", "{name}\n{text}");
    }
    for name in ["open-files", "max-map-count", "huge-pages", "free-space", "fsync"] {
        assert!(["OK", "WARN", "SKIP", "FAIL"].contains(&status(&found, name).as_str()), "{name}");
    }
    assert!(check(&found, "fsync").1.contains(" of 16"), "{text}");
    unchanged(&before, &dir);
    let without = home.run("doctor -o json");
    assert_eq!(status(&without, "data-dir"), "SKIP");
}

#[test]
fn a_directory_that_is_not_there_yet_is_no_problem() {
    let home = Home::new();
    let found = doctor(&home);
    assert_eq!(status(&found, "data-dir"), "OK", "{}", found.text());
    assert!(!home.dir.path().join("d").exists());
    fs::create_dir(home.dir.path().join("d")).unwrap();
    assert_eq!(status(&doctor(&home), "data-dir"), "OK");
    assert_eq!(fs::read_dir(home.dir.path().join("d")).unwrap().count(), 0);
    // The root of a new file system is as good as empty.
    fs::create_dir(home.dir.path().join("d/lost+found")).unwrap();
    let found = doctor(&home);
    let both = (status(&found, "data-dir"), status(&found, "lock"));
    assert_eq!(both, ("OK".to_owned(), "SKIP".to_owned()), "{}", found.text());
}

#[test]
fn what_keeps_a_node_from_starting_fails() {
    let home = Home::new();
    fs::write(home.dir.path().join("d"), "").unwrap();
    let found = doctor(&home);
    assert_eq!((found.code, status(&found, "data-dir").as_str()), (10, "FAIL"));
    let home = Home::new();
    fs::create_dir(home.dir.path().join("d")).unwrap();
    fs::write(home.dir.path().join("d/letter.txt"), "dear").unwrap();
    let found = doctor(&home);
    assert_eq!(found.code, 10);
    assert!(check(&found, "data-dir").1.contains("holds letter.txt"), "{}", found.text());
    let home = used();
    let path = home.dir.path().join("d/IDENTITY");
    let mut bytes = fs::read(&path).unwrap();
    bytes[12] ^= 1;
    fs::write(&path, bytes).unwrap();
    let found = doctor(&home);
    assert_eq!((found.code, status(&found, "data-dir").as_str()), (12, "FAIL"));
}

#[test]
fn an_open_directory_is_a_warning_and_a_holder_is_named() {
    let node = Node::start();
    let dir = node.home.dir.path().join("d");
    let found = doctor(&node.home);
    let (lock, text) = check(&found, "lock");
    assert_eq!(lock, "OK");
    assert!(text.contains("held by process ") && text.contains("which runs"), "{text}");
    let home = node.killed();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let found = doctor(&home);
    let (permissions, text) = check(&found, "permissions");
    assert_eq!(permissions, "WARN");
    assert!(text.contains("mode 755") && text.contains("chmod 700 d"), "{text}");
    assert!([10, 11].contains(&found.code), "{}", found.code);
}

#[test]
fn a_wrong_server_file_fails_with_its_place() {
    let home = Home::new();
    for (content, expected) in [("node_id = 3\n", "OK"), ("node_idd = 3\n", "FAIL")] {
        fs::write(home.dir.path().join("s.toml"), content).unwrap();
        let mut command = home.command(["doctor", "-o", "json"]);
        let found = said(command.env("PRKDB_SERVER_CONFIG", "s.toml"));
        let (status, text) = check(&found, "server-config");
        assert_eq!(status, expected, "{text}");
        assert!(status == "OK" || text.contains("s.toml:1:1: unknown key 'node_idd'"), "{text}");
    }
}
