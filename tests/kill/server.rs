//! The binary as a process of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use prkdb_client::{Client, ClientOptions, Endpoint, Transport};
use tempfile::TempDir;

/// A node's directory and address, and its process while it runs.
pub(crate) struct Server {
    home: TempDir,
    /// Kept from the first start on, so that clients find it again.
    pub(crate) address: SocketAddr,
    child: Option<Child>,
    /// How many files it may open.
    files: Option<u32>,
    /// How many data shards it begins with.
    shards: u32,
}

impl Server {
    /// Starts a node in a new directory.
    pub(crate) fn start() -> Self {
        Self::start_with(None)
    }

    /// Starts a node with so many data shards.
    pub(crate) fn start_with_shards(shards: u32) -> Self {
        Self::start_as(None, shards)
    }

    /// Starts a node that may open so many files.
    pub(crate) fn start_with(files: Option<u32>) -> Self {
        Self::start_as(files, 1)
    }

    fn start_as(files: Option<u32>, shards: u32) -> Self {
        let home = tempfile::tempdir().unwrap();
        // An address of our own, so that no other test takes the port between two lives.
        let [a, b, _, _] = random().to_le_bytes();
        let own = Ipv4Addr::new(127, a | 1, b, 1);
        let mut server =
            Self { home, address: SocketAddr::from((own, 0)), child: None, files, shards };
        server.start_again();
        server
    }

    /// Starts the node on its directory and waits until it is ready.
    pub(crate) fn start_again(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut child = self.command().stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.child = Some(child);
        let grpc = line.split_whitespace().find_map(|word| word.strip_prefix("grpc="));
        let Some(grpc) = grpc else {
            panic!("not ready: {line:?}; {}", fs::read_to_string(self.log()).unwrap())
        };
        self.address = grpc.parse().unwrap();
    }

    /// Lets its next life open so many files.
    pub(crate) fn allow_files(&mut self, files: Option<u32>) {
        self.files = files;
    }

    /// How many lines a start writes to its log before the node is ready, or a few more.
    pub(crate) fn log_lines(&self) -> usize {
        fs::read_to_string(self.log()).unwrap().lines().count()
    }

    /// Kills the node and waits for its end.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        child.kill().unwrap();
        let code = child.wait().unwrap().code();
        let log = fs::read_to_string(self.log()).unwrap();
        assert_eq!(code, None, "it ended by itself: {}", log.lines().last().unwrap_or_default());
    }

    /// Starts the node and kills it once it has written `lines` lines of its log. Returns whether it
    /// was not ready yet.
    pub(crate) fn kill_in_start_up(&mut self, lines: usize) -> bool {
        let mut child = self.command().stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        for _ in 0..lines {
            said.read_line(&mut line).unwrap();
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "it ended by itself: {line}");
        let mut ready = String::new();
        child.stdout.take().unwrap().read_to_string(&mut ready).unwrap();
        ready.is_empty()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.home.path().join("d")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.home.path().to_owned()
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("log")
    }

    fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_prkdb");
        let mut command = match self.files {
            None => Command::new(binary),
            Some(files) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("ulimit -n {files} && exec {binary} \"$@\"")).arg("sh");
                shell
            }
        };
        command
            .args(["serve", "--http", "none", "--data-dir", "d", "--segment-bytes", "1MiB"])
            // So that kills come inside of checkpoints, and starts begin with one.
            .args(["--checkpoint-bytes", "64KiB", "--shards", &self.shards.to_string()])
            .args(["--log-format", "json", "--listen", &self.address.to_string()])
            .env_clear()
            .env("HOME", self.home.path())
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _dead = child.kill();
            let _waited = child.wait();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let _told = std::io::stderr().write_all(log.as_bytes());
        }
    }
}

/// A client that waits for a node that is down.
pub(crate) async fn client(address: SocketAddr, transport: Transport) -> Client {
    client_with(address, transport, u32::MAX).await
}

/// A client that tries again so often.
pub(crate) async fn client_with(address: SocketAddr, transport: Transport, retries: u32) -> Client {
    let options = ClientOptions {
        servers: vec![Endpoint::parse(&address.to_string()).unwrap()],
        timeout: None,
        retries,
        transport,
        ..ClientOptions::default()
    };
    Client::connect(options).await.unwrap()
}

/// A number that nobody foretells.
pub(crate) fn random() -> u32 {
    getrandom::u32().unwrap()
}
