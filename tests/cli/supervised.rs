//! What a node tells systemd, and what it reads again.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::net::UnixDatagram,
    process::{Child, Command},
    time::Duration,
};

use crate::{serve::Node, support::Home};

/// A node whose supervisor listens.
struct Supervised {
    home: Home,
    child: Child,
    socket: UnixDatagram,
}

impl Supervised {
    fn start(config: &str) -> Self {
        let home = Home::new();
        let dir = home.dir.path();
        fs::write(dir.join("server.toml"), config).unwrap();
        let socket = UnixDatagram::bind(dir.join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut child = Node::command(dir, &["--config", "server.toml"])
            .env("NOTIFY_SOCKET", dir.join("notify"))
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("prkdb ready "), "{line}");
        Self { home, child, socket }
    }

    /// What the supervisor is told next.
    fn told(&self) -> String {
        let mut bytes = [0; 512];
        let length = self.socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(bytes.get(..length).unwrap()).into_owned()
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.dir.path().join("node.log")).unwrap()
    }

    /// Reads the configuration again, and waits until that is done.
    fn reload(&self, config: &str) {
        fs::write(self.home.dir.path().join("server.toml"), config).unwrap();
        self.signal("-HUP");
        let told = self.told();
        assert!(told.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{told}");
        assert_eq!(self.told().trim_end(), "READY=1");
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn the_supervisor_hears_ready_reloading_and_stopping() {
    let mut node = Supervised::start("");
    assert_eq!(node.told().trim_end(), "READY=1");
    node.reload("");
    node.signal("-TERM");
    assert_eq!(node.told().trim_end(), "STOPPING=1");
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_changed_log_level_holds_after_a_hangup_and_a_wrong_file_changes_nothing() {
    let node = Supervised::start("log_level = \"warn\"\n");
    assert_eq!(node.told().trim_end(), "READY=1");
    assert!(!node.log().contains("INFO"), "{}", node.log());
    node.reload("log_level = \"warn\"\nlog_levle = 1\n");
    assert!(node.log().contains("what held before holds on"), "{}", node.log());
    assert!(!node.log().contains("INFO"), "{}", node.log());
    node.reload("log_level = \"info\"\n");
    assert!(node.log().contains("its log level holds now"), "{}", node.log());
}
