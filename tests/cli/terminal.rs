//! What differs on a terminal: prompts, escapes, tables.

use std::{path::Path, process::Command};

use rexpect::session::{PtySession, spawn_command};

use crate::{fake::Fake, serve::Node};

const TIMEOUT_MS: u64 = 30_000;

/// Starts a command on a terminal of its own.
fn start(node: &Fake, args: &[&str]) -> PtySession {
    start_in(node.home.dir.path(), &node.address.to_string(), args)
}

fn start_in(home: &Path, server: &str, args: &[&str]) -> PtySession {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prkdb"));
    command
        .env_clear()
        .env("HOME", home)
        .env("PRKDB_SERVER", server)
        .env("TERM", "xterm")
        .env("COLUMNS", "80")
        .current_dir(home)
        .args(args);
    spawn_command(command, Some(TIMEOUT_MS)).unwrap()
}

/// Waits for the end and returns the exit code, as the system shows it.
fn end(mut session: PtySession) -> (String, String) {
    let said = session.exp_eof().unwrap();
    let status = format!("{:?}", session.process_mut().wait().unwrap());
    (said, status)
}

#[test]
fn put_does_not_wait_for_a_terminal() {
    let node = Fake::new();
    let (said, status) = end(start(&node, &["put", "k"]));
    assert!(status.contains(", 2)"), "{status}");
    assert!(said.contains("standard input is a terminal") && said.contains("hint:"), "{said}");
    for args in [&["batch-put"][..], &["produce", "default"]] {
        let (_, status) = end(start(&node, args));
        assert!(status.contains(", 2)"), "{status}");
    }
}

#[test]
fn a_prompt_means_no_unless_the_answer_is_yes() {
    let node = Fake::new();
    node.run("put a:1 v");
    let prompt = "that begin with 'a:'?";
    for answer in ["\r", "n\r"] {
        let mut session = start(&node, &["delete", "--prefix", "a:"]);
        session.exp_string(prompt).unwrap();
        session.send(answer).unwrap();
        session.flush().unwrap();
        let (said, status) = end(session);
        assert!(status.contains(", 9)"), "{answer:?} {status}\n{said}");
    }
    assert!(node.value("a:1").is_some());
    let (said, status) = end(start(&node, &["delete", "--prefix", "a:", "--no-input"]));
    assert!(status.contains(", 9)") && !said.contains('?'), "{status}\n{said}");
    let mut session = start(&node, &["delete", "--prefix", "a:"]);
    session.exp_string(prompt).unwrap();
    session.send("y\r").unwrap();
    session.flush().unwrap();
    let (said, status) = end(session);
    assert!(status.contains(", 0)") && said.contains("deleted 1"), "{status}\n{said}");
}

#[test]
fn a_severe_command_wants_the_name_typed() {
    let node = Fake::new();
    node.run("collection create orders");
    let mut session = start(&node, &["collection", "drop", "orders", "--yes"]);
    session.exp_string("type its name to confirm").unwrap();
    session.send("order\r").unwrap();
    session.flush().unwrap();
    assert!(end(session).1.contains(", 9)"));
    let mut session = start(&node, &["collection", "drop", "orders"]);
    session.exp_string("type its name to confirm").unwrap();
    session.send("orders\r").unwrap();
    session.flush().unwrap();
    let (said, status) = end(session);
    assert!(
        status.contains(", 0)") && said.contains("dropped collection orders"),
        "{status}\n{said}"
    );
}

#[test]
fn control_characters_of_stored_data_never_reach_a_terminal() {
    let node = Fake::new();
    node.run("put evil --value-encoding escape \\x1b[2Jx");
    let (said, status) = end(start(&node, &["get", "evil", "--color", "never"]));
    assert!(status.contains(", 0)"));
    assert!(said.contains("\\x1b[2Jx") && !said.contains("\x1b[2J"), "{said:?}");
    assert!(said.contains("hint: escaped for the terminal"), "{said}");
    let (said, _) = end(start(&node, &["scan", "--color", "never"]));
    assert!(said.contains("\\x1b[2Jx") && !said.contains('\x1b'), "{said:?}");
}

#[test]
fn tables_are_for_terminals_and_no_color_is_respected() {
    let node = Fake::new();
    node.run(&format!("put k {}", "x".repeat(200)));
    let (said, _) = end(start(&node, &["scan"]));
    assert!(said.contains("\x1b[1mKEY"), "{said:?}");
    assert!(said.lines().all(|line| line.chars().count() < 100), "cut to the terminal: {said:?}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_prkdb"));
    command
        .env_clear()
        .env("NO_COLOR", "1")
        .env("TERM", "xterm")
        .env("PRKDB_SERVER", node.address.to_string())
        .args(["scan"]);
    let (said, _) = end(spawn_command(command, Some(TIMEOUT_MS)).unwrap());
    assert!(!said.contains('\x1b'), "{said:?}");
}

#[test]
fn events_are_escaped_on_a_terminal_and_come_before_it_waits() {
    let node = Node::start();
    let home = node.home.dir.path();
    std::fs::write(home.join("d.log"), "\x1b[2Jx\n").unwrap();
    assert_eq!(node.run("produce c d.log --create=1 --key k").code, 0);
    for args in [&["consume", "c"][..], &["consume", "c", "-f", "%k %v\\n"]] {
        let line = [args, &["--color", "never"]].concat();
        let mut session = start_in(home, &node.address, &line);
        // It follows: the row is there although more may come.
        let before = session.exp_string("\\x1b[2Jx").unwrap();
        assert!(!before.contains('\x1b'), "{before:?}");
        session.send_control('c').unwrap();
        let (_, status) = end(session);
        assert!(status.contains(", 130)"), "{status}");
    }
}
