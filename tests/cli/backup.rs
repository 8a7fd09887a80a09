//! `backup`: a node in a file, and back, while others write; and every way it can be wrong.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::PathBuf,
    process::Stdio,
};

use serde_json::Value;

use crate::{
    fake::Fake,
    serve::Node,
    support::{Home, Said, lines},
};

fn path(home: &Home, name: &str) -> PathBuf {
    home.dir.path().join(name)
}

fn ok(said: &Said) -> String {
    assert_eq!(said.code, 0, "{}", said.stderr);
    said.text()
}

/// A node with keys and events in several collections.
fn used() -> Node {
    let node = Node::start();
    fs::write(path(&node.home, "k.csv"), lines(5000, |n| format!("key-{n},value-{n}"))).unwrap();
    fs::write(path(&node.home, "e.txt"), lines(300, |n| format!("event-{n}"))).unwrap();
    ok(&node.run("batch-put k.csv --key-column 1 --value-column 2"));
    ok(&node.run("produce events e.txt --create=3 --key k --compression lz4"));
    ok(&node.run("collection create gone"));
    ok(&node.run("collection drop gone --confirm gone"));
    ok(&node.run("delete key-7"));
    node
}

/// What can be read of a node by keys and by offsets.
fn content(node: &Node) -> (String, String, String) {
    let events = "consume events --exit-at-end -o plain --columns partition,offset,key,value";
    let mut events: Vec<String> = ok(&node.run(events)).lines().map(str::to_owned).collect();
    events.sort();
    let keys = ok(&node.run("scan -o plain --columns key,value,version"));
    let collections =
        ok(&node.run("collection list -o plain --columns name,partitions,keys,log-end"));
    (keys, events.join("\n"), collections)
}

/// Starts a node on the directory `restored` of a home.
fn serve_restored(home: Home) -> Node {
    fs::rename(path(&home, "d"), path(&home, "before")).unwrap();
    fs::rename(path(&home, "restored"), path(&home, "d")).unwrap();
    Node::start_in(home)
}

#[test]
fn a_node_is_restored_as_it_was_and_as_a_cluster_of_its_own() {
    let node = used();
    let before = content(&node);
    let cluster = |node: &Node| {
        let status: Value = serde_json::from_str(&ok(&node.run("status -o json"))).unwrap();
        status["cluster"]["id"].as_str().unwrap().to_owned()
    };
    let old = cluster(&node);
    let said = ok(&node.run("backup create b.prkdb"));
    assert!(said.starts_with("backed up 2 shards to b.prkdb, "), "{said}");
    ok(&node.run("put later 1"));
    let said = ok(&node.run("backup create z.prkdb --compress zstd -o json"));
    let document: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(document["cluster_id"], old.as_str());
    let home = node.killed();
    let sizes = ["b.prkdb", "z.prkdb"].map(|name| fs::metadata(path(&home, name)).unwrap().len());
    assert!(sizes[1] < sizes[0] / 2, "{sizes:?}");
    for name in ["b.prkdb", "z.prkdb"] {
        let verified = ok(&home.run(&format!("backup verify {name}")));
        assert!(verified.contains("sound"), "{verified}");
    }
    let inspected = ok(&home.run("backup inspect b.prkdb -o json"));
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    let files = inspected["items"].as_array().unwrap();
    let names: Vec<&str> = files.iter().map(|file| file["file"].as_str().unwrap()).collect();
    assert_eq!(names[0], "backup.json");
    assert!(names.contains(&"shard-0000000001/MANIFEST"), "{names:?}");

    let dry = ok(&home.run("backup restore b.prkdb --data-dir restored --dry-run"));
    assert!(dry.starts_with("would restore ") && !path(&home, "restored").exists(), "{dry}");
    let said = ok(&home.run("backup restore b.prkdb --data-dir restored"));
    assert!(said.contains(" as cluster ") && !said.contains(&old), "{said}");
    let restored = serve_restored(home);
    assert_eq!(content(&restored), before, "and without what came later");
    assert_ne!(cluster(&restored), old);
    // It goes on as a node does: writes, restarts, the next backup.
    ok(&restored.run("put new 1"));
    ok(&restored.run("collection create more"));
    let restored = restored.restart("-KILL", None);
    assert_eq!(ok(&restored.run("get new")), "1\n");
    assert_eq!(restored.run("get later").code, 3);
    ok(&restored.run("backup create again.prkdb"));
    ok(&restored.run("backup verify again.prkdb"));
}

#[test]
fn a_backup_under_load_is_one_revision_of_each_shard() {
    let node = used();
    let mut load = std::process::Command::new(env!("CARGO_BIN_EXE_prkdb"))
        .args(["-s", &node.address, "bench", "put", "--clients", "8", "--duration", "60s"])
        .env_clear()
        .env("HOME", node.home.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // An order that a backup must keep: each put follows the one before.
    let (mut acknowledged, mut backups) = (0, 0);
    for round in 0..6 {
        for _ in 0..20 {
            acknowledged += 1;
            ok(&node.run(&format!("put --collection default order-{acknowledged} x")));
        }
        ok(&node.run(&format!("backup create {round}.prkdb")));
        backups += 1;
    }
    load.kill().unwrap();
    load.wait().unwrap();
    assert_eq!(backups, 6);
    let home = node.killed();
    ok(&home.run("backup restore 3.prkdb --data-dir restored"));
    let node = serve_restored(home);
    for number in 1..=80 {
        assert_eq!(node.run(&format!("get order-{number}")).code, 0, "order-{number}");
    }
    assert_eq!(node.run("get order-81").code, 3, "what came after the backup");
}

#[test]
fn a_damaged_backup_is_refused_before_anything_is_written() {
    let node = used();
    ok(&node.run("backup create b.prkdb"));
    let home = node.killed();
    let whole = fs::read(path(&home, "b.prkdb")).unwrap();
    let refused = |what: &str, bytes: &[u8], code: i32| {
        fs::write(path(&home, "x.prkdb"), bytes).unwrap();
        for line in ["backup verify x.prkdb", "backup restore x.prkdb --data-dir restored"] {
            let said = home.run(line);
            assert_eq!(said.code, code, "{what}: {line}: {}", said.stderr);
            assert!(said.stdout.is_empty() && said.stderr.contains("x.prkdb"), "{}", said.stderr);
        }
        assert!(!path(&home, "restored").exists());
    };
    // In the middle of each file's content.
    for place in [700, whole.len() / 4, whole.len() / 2, whole.len() * 3 / 4] {
        let mut flipped = whole.clone();
        flipped[place] ^= 1;
        refused(&format!("byte {place}"), &flipped, 12);
    }
    for len in [0, 100, 600, whole.len() / 2, whole.len() - 2000] {
        refused(&format!("cut to {len}"), &whole[..len], 12);
    }
    refused("something else", &[b'x'; 5000], 12);
    let left: Vec<_> = fs::read_dir(home.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".prkdb"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_is_there_is_not_written_over() {
    let node = used();
    ok(&node.run("backup create b.prkdb"));
    let said = node.run("backup create b.prkdb");
    assert_eq!((said.code, said.stderr.contains("exists already")), (7, true), "{}", said.stderr);
    for inside in ["d/b.prkdb", "d/shard-0000000001/b.prkdb"] {
        let said = node.run(&format!("backup create {inside}"));
        let is_told = said.stderr.contains("data directory");
        assert_eq!((said.code, is_told), (2, true), "{inside}: {}", said.stderr);
    }
    let said = node.run("backup create nowhere/b.prkdb");
    assert_eq!(said.code, 13, "{}", said.stderr);
    let said = node.run("backup create - --compress zstd");
    assert_eq!(said.code, 0);
    assert_eq!(said.stdout[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    let home = node.killed();
    fs::write(path(&home, "z.prkdb"), &said.stdout).unwrap();
    ok(&home.run("backup verify z.prkdb"));
    fs::create_dir(path(&home, "full")).unwrap();
    fs::write(path(&home, "full/mine"), "x").unwrap();
    let said = home.run("backup restore b.prkdb --data-dir full");
    assert_eq!((said.code, said.stderr.contains("not empty")), (9, true), "{}", said.stderr);
    let said = home.run("backup restore - --data-dir other");
    assert_eq!(said.code, 2, "{}", said.stderr);
    fs::create_dir(path(&home, "empty")).unwrap();
    ok(&home.run("backup restore b.prkdb --data-dir empty --node-id 3 --new-cluster-id"));
    // A node takes the id of its directory.
    assert!(fs::read_to_string(path(&home, "empty/IDENTITY")).unwrap().contains("\"node_id\":3"));
    let said = home.run("backup verify missing.prkdb");
    assert_eq!(said.code, 13, "{}", said.stderr);
}

#[test]
fn an_empty_directory_that_is_there_stays_and_is_filled() {
    let node = used();
    let before = content(&node);
    ok(&node.run("backup create b.prkdb"));
    let home = node.killed();
    // As the root of a file system is, behind a link.
    let place = path(&home, "volume");
    fs::create_dir_all(place.join("lost+found")).unwrap();
    symlink(&place, path(&home, "restored")).unwrap();
    let inode = fs::metadata(&place).unwrap().ino();
    ok(&home.run("backup restore b.prkdb --data-dir restored"));
    assert_eq!(fs::metadata(&place).unwrap().ino(), inode, "it may be a mount, or somebody's");
    let names = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
    let restored = serve_restored(home);
    assert_eq!(content(&restored), before);
    let said = restored.run("backup restore b.prkdb --data-dir d");
    assert_eq!((said.code, said.stderr.contains("it holds ")), (9, true), "{}", said.stderr);
}

#[test]
fn a_directory_that_another_process_has_is_not_filled() {
    let node = used();
    ok(&node.run("backup create b.prkdb"));
    let place = path(&node.home, "place");
    fs::create_dir(&place).unwrap();
    // As a node does that starts there meanwhile.
    let lock = fs::File::create(place.join("LOCK")).unwrap();
    lock.lock().unwrap();
    let said = node.run("backup restore b.prkdb --data-dir place");
    assert_eq!((said.code, said.stderr.contains("in use")), (15, true), "{}", said.stderr);
    let names = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["LOCK"], "nothing is left there");
    drop(lock);
    ok(&node.run("backup restore b.prkdb --data-dir place"));
}

#[test]
fn a_backup_that_is_cut_short_leaves_no_file() {
    let fake = Fake::new();
    let said = fake.run("backup create b.prkdb --retries 0");
    assert_eq!(said.code, 4, "{}", said.stderr);
    assert!(said.stderr.contains("cut short"), "{}", said.stderr);
    let said = fake.run("backup verify b.prkdb");
    assert_eq!(said.code, 13, "there is no such file: {}", said.stderr);
}
