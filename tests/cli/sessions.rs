//! Sessions with a real node: each line is what a person would type first.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    serve::Node,
    support::{Said, lines, said},
};

impl Node {
    pub(crate) fn prepare(&self, line: &str) -> assert_cmd::Command {
        let mut command = self.home.command(line.split_whitespace());
        command.env("PRKDB_SERVER", &self.address);
        command
    }

    pub(crate) fn run(&self, line: &str) -> Said {
        said(&mut self.prepare(line))
    }
}

#[test]
fn put_get_delete() {
    let node = Node::start();
    let value = "{\"name\": \"Alice\"}";
    let put = said(node.prepare("put user:101").arg(value));
    assert_eq!((put.code, put.text().as_str()), (0, "OK\n"), "{}", put.stderr);
    assert_eq!(node.run("get user:101").text(), format!("{value}\n"));
    assert_eq!(node.run("get user:101 --raw").stdout, value.as_bytes());
    let missing = node.run("get nope");
    assert_eq!((missing.code, missing.stdout.len()), (3, 0));
    assert_eq!(missing.stderr, "prkdb: key not found: nope\n");
    assert_eq!(node.run("delete user:101").text(), "deleted 1\n");
    assert_eq!(node.run("delete user:101").text(), "deleted 0\n");
    assert_eq!(node.run("put k v --if-version 7").code, 7);
    assert_eq!(node.run("put k v --if-absent").code, 0);
    assert_eq!(node.run("put k v --if-absent").code, 7);
    assert_eq!(node.run("put k w --print-prev").text(), "v\n");
}

#[test]
fn a_megabyte_of_any_bytes_comes_back_unchanged() {
    let node = Node::start();
    let mut state = 1_u32;
    let blob: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    })
    .take(1_000_000)
    .collect();
    assert_eq!(said(node.prepare("put blob").write_stdin(blob.clone())).code, 0);
    assert_eq!(node.run("get --raw blob").stdout, blob);
    let too_large = said(node.prepare("put big").write_stdin(vec![0; (1 << 20) + 1]));
    assert_eq!(too_large.code, 1, "{}", too_large.stderr);
    assert_eq!(said(node.prepare("put limit").write_stdin(vec![0; 1 << 20])).code, 0);
}

#[test]
fn a_binary_key_is_listed_as_base64() {
    let node = Node::start();
    assert_eq!(node.run("put --key-encoding hex 00ff0a x").code, 0);
    let keys = node.run("scan --keys-only -o ndjson").text();
    assert_eq!(keys, "{\"schema\":\"prkdb.scan/1\",\"key_b64\":\"AP8K\"}\n");
}

#[test]
fn batch_put_and_its_errors() {
    let node = Node::start();
    fs::write(node.home.dir.path().join("data.txt"), "a,1\nb,x,y\n").unwrap();
    let put = node.run("batch-put data.txt --separator=,");
    assert!(put.text().starts_with("2 put, 0 rejected, "), "{}{}", put.text(), put.stderr);
    assert_eq!(node.run("get b").text(), "x,y\n");
    fs::write(node.home.dir.path().join("d2"), "a,1\nbad\n").unwrap();
    let bad = node.run("batch-put d2 --separator=,");
    assert_eq!((bad.code, bad.stderr.as_str()), (8, "prkdb: d2:2: no separator ',' in record\n"));
}

#[test]
fn lists_have_a_header_and_end_well() {
    let node = Node::start();
    for (line, header) in [
        ("collection list", "NAME\tPARTITIONS"),
        ("metrics", "METRIC\tLABELS\tVALUE"),
        ("metrics names", "NAME\tTYPE\tHELP"),
        ("status", "NODE\tADDRESS\tROLE"),
        ("scan", "KEY\tVALUE\tVERSION\tPARTITION"),
        ("collection describe default", "PARTITION\tSHARD"),
        ("consumer list", "GROUP\tSTATE\tMEMBERS\tCOLLECTIONS\tLAG\tCOORDINATOR\tLAST-COMMIT"),
        ("consume default --exit-at-end", "PARTITION\tOFFSET\tTIMESTAMP\tKEY\tVALUE\n"),
    ] {
        let said = node.run(line);
        assert_eq!(said.code, 0, "{line}\n{}", said.stderr);
        let text = said.text();
        assert!(text.starts_with(header), "{line}\n{text}");
        let tabs: Vec<usize> = text.lines().map(|line| line.matches('\t').count()).collect();
        assert!(tabs.windows(2).all(|pair| pair[0] == pair[1]), "{line}\n{text}");
        let json = node.run(&format!("{line} -o json"));
        serde_json::from_slice::<serde_json::Value>(&json.stdout).unwrap();
    }
    assert_eq!(node.run("health").text(), "ready\n");
    assert_eq!(node.run("health --live").text(), "live\n");
}

#[test]
fn collections_come_and_go() {
    let node = Node::start();
    assert_eq!(node.run("collection create flights --partitions 3").code, 0);
    assert!(node.run("collection create flights --partitions 3").text().starts_with("already"));
    assert_eq!(node.run("collection create flights --partitions 4").code, 7);
    assert_eq!(node.run("collection create flights --partitions 4 --if-not-exists").code, 0);
    assert_eq!(node.run("collection create ../x").code, 1);
    assert_eq!(node.run("put k v -c nope").code, 3);
    let refused = node.run("collection drop flights");
    assert_eq!(refused.code, 9);
    assert!(refused.stderr.contains("hint: pass --confirm flights"));
    assert_eq!(node.run("collection drop flights --confirm flights").code, 0);
    assert_eq!(node.run("collection describe flights").code, 3);
}

#[test]
fn data_is_there_after_a_stop_and_after_a_kill() {
    let node = Node::start();
    assert_eq!(node.run("put a 1").code, 0);
    let node = node.restart("-TERM", Some(0));
    assert_eq!(node.run("get a").text(), "1\n");
    assert_eq!(node.run("put b 2").code, 0);
    let node = node.restart("-KILL", None);
    assert_eq!(node.run("get a b").text(), "a\t1\nb\t2\n");
}

#[test]
fn a_load_that_lost_its_node_goes_on_after_the_restart() {
    let node = Node::start();
    let lines = lines(20_000, |n| format!("key-{n},value-{n}"));
    fs::write(node.home.dir.path().join("d.txt"), lines).unwrap();
    let line = "batch-put d.txt --checkpoint c.json --batch-size 20 --retries 0 --timeout 5s";
    let mut load = Command::new(env!("CARGO_BIN_EXE_prkdb"))
        .args(line.split(' '))
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
    assert!(resumed.text().starts_with("20000 put, 0 rejected"), "{}", resumed.text());
    assert_eq!(node.run("scan --count").text(), "20000\n");
}

#[test]
fn a_closed_reader_ends_a_scan_quietly() {
    let node = Node::start();
    let lines = lines(20_000, |n| format!("key-{n},value-{n}"));
    fs::write(node.home.dir.path().join("d.txt"), lines).unwrap();
    assert_eq!(node.run("batch-put d.txt").code, 0);
    let line = format!("{} scan | head -1; echo ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_prkdb"));
    let output = Command::new("bash")
        .args(["-c", &line])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("PRKDB_SERVER", &node.address)
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"KEY\tVALUE\tVERSION\tPARTITION\n0\n");
    assert!(output.stderr.is_empty());
}
