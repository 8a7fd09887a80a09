//! The life of a node as its process shows it: ready, files, exit codes.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{Home, NOBODY, said};

/// A node of its own; killed when dropped.
pub(crate) struct Node {
    pub(crate) home: Home,
    child: Child,
    pub(crate) address: String,
}

impl Node {
    pub(crate) fn start() -> Self {
        Self::start_in(Home::new())
    }

    pub(crate) fn start_in(home: Home) -> Self {
        Self::start_with(home, &[])
    }

    pub(crate) fn start_with(home: Home, more: &[&str]) -> Self {
        let mut child = Self::command(home.dir.path(), more).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let line = line.trim_end();
        assert!(line.starts_with("prkdb ready node=1 grpc=127.0.0.1:"), "{line}");
        assert!(line.ends_with(" http=none"), "{line}");
        let address = line.split(' ').find_map(|word| word.strip_prefix("grpc=")).unwrap();
        Self { address: address.to_owned(), home, child }
    }

    pub(crate) fn command(dir: &Path, more: &[&str]) -> Command {
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

    /// Kills it and returns its home with all that it wrote.
    pub(crate) fn killed(mut self) -> Home {
        self.signal("-KILL");
        let _reaped = self.child.wait().unwrap();
        std::mem::replace(&mut self.home, Home::new())
    }

    /// Returns what it logged, and what the nodes before it in the same home did.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.dir.path().join("node.log")).unwrap()
    }

    /// Waits until its process has ended and returns its exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Ends the process with a signal and starts another one on its data.
    pub(crate) fn restart(mut self, signal: &str, code: Option<i32>) -> Self {
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
fn a_stopped_node_starts_again_on_its_data_and_a_killed_one_too() {
    let node = Node::start().restart("-TERM", Some(0));
    let node = node.restart("-KILL", None);
    assert!(node.home.dir.path().join("d").is_dir());
}
