//! Sessions with a real node: each line is what a person would type first.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{Home, NOBODY, Said, lines, said};

/// A node of its own; killed when dropped.
struct Node {
    home: Home,
    child: Child,
    address: String,
}

impl Node {
    fn start() -> Self {
        Self::start_in(Home::new())
    }

    fn start_in(home: Home) -> Self {
        let mut child = Self::command(home.dir.path(), &[]).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let line = line.trim_end();
        assert!(line.starts_with("prkdb ready node=1 grpc=127.0.0.1:"), "{line}");
        assert!(line.ends_with(" http=none"), "{line}");
        let address = line.split(' ').find_map(|word| word.strip_prefix("grpc=")).unwrap();
        Self { address: address.to_owned(), home, child }
    }

    fn command(dir: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prkdb"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--http", "none", "--data-dir", "d"])
            .args(more)
            .env_clear()
            .env("HOME", dir)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(
                fs::File::options().create(true).append(true).open(dir.join("node.log")).unwrap(),
            );
        command
    }

    fn prepare(&self, line: &str) -> assert_cmd::Command {
        let mut command = self.home.command(line.split_whitespace());
        command.env("PRKDB_SERVER", &self.address);
        command
    }

    fn run(&self, line: &str) -> Said {
        said(&mut self.prepare(line))
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Ends the process with a signal and starts another one on its data.
    fn restart(mut self, signal: &str, code: Option<i32>) -> Self {
        self.signal(signal);
        assert_eq!(self.child.wait().unwrap().code(), code);
        let home = std::mem::replace(&mut self.home, Home::new());
        drop(self);
        Self::start_in(home)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
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
fn serve_ends_with_the_code_of_what_is_wrong() {
    let node = Node::start();
    let dir = node.home.dir.path();
    let locked = Node::command(dir, &[]).output().unwrap();
    assert_eq!(locked.status.code(), Some(15));
    let log = fs::read_to_string(dir.join("node.log")).unwrap();
    assert!(log.contains(&node.child.id().to_string()), "names the process\n{log}");
    let other = Home::new();
    let used = Command::new(env!("CARGO_BIN_EXE_prkdb"))
        .args(["serve", "--listen", &node.address, "--http", "none", "--data-dir", "d"])
        .env_clear()
        .current_dir(other.dir.path())
        .output()
        .unwrap();
    assert_eq!(used.status.code(), Some(13));
    assert!(String::from_utf8(used.stderr).unwrap().contains(&node.address));
    assert!(!other.dir.path().join("d").exists(), "nothing is written before the ports are bound");
}

#[test]
fn ready_and_pid_file_are_there_while_the_node_runs() {
    let home = Home::new();
    let files = ["--ready-file", "ready.json", "--pid-file", "pid"];
    let mut child = Node::command(home.dir.path(), &files).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready = fs::read(home.dir.path().join("ready.json")).unwrap();
    let ready: serde_json::Value = serde_json::from_slice(&ready).unwrap();
    assert!(line.contains(&format!("grpc={}", ready["grpc"].as_str().unwrap())), "{line}");
    let pid = fs::read_to_string(home.dir.path().join("pid")).unwrap();
    assert_eq!(pid.trim_end(), child.id().to_string());
    assert!(Command::new("kill").args(["-TERM", pid.trim_end()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!home.dir.path().join("ready.json").exists() && !home.dir.path().join("pid").exists());
}

#[test]
fn nobody_serving_is_exit_4_within_the_connect_timeout() {
    let home = Home::new();
    let begun = Instant::now();
    assert_eq!(said(home.command(["status"]).env("PRKDB_SERVER", NOBODY)).code, 4);
    assert!(begun.elapsed() < Duration::from_secs(3));
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
