//! Running the binary in surroundings of its own.

use std::{ffi::OsStr, time::Duration};

use assert_cmd::Command;
use tempfile::TempDir;

/// An address where nobody listens.
pub(crate) const NOBODY: &str = "127.0.0.1:1";

/// A directory that serves as home, and commands that see nothing else of the machine.
pub(crate) struct Home {
    pub(crate) dir: TempDir,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Said {
    /// Returns stdout as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// Prepares a command: empty environment, empty standard input, 30 s.
    pub(crate) fn command<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prkdb"));
        command
            .env_clear()
            .env("HOME", self.dir.path())
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .current_dir(self.dir.path())
            .timeout(Duration::from_secs(30))
            .write_stdin("")
            .args(args);
        command
    }

    /// Runs a command whose arguments have no spaces.
    pub(crate) fn run(&self, line: &str) -> Said {
        said(&mut self.command(line.split_whitespace()))
    }
}

/// Returns the lines for 0 to `count`.
pub(crate) fn lines(count: u32, mut line: impl FnMut(u32) -> String) -> String {
    let mut text = String::new();
    for number in 0..count {
        text.push_str(&line(number));
        text.push('\n');
    }
    text
}

/// Runs a command to its end.
pub(crate) fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    Said {
        code: output.status.code().expect("ended by a signal or too slow"),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
