//! One row for each command: a wrong line, and a line that needs a server.

use crate::support::{Home, NOBODY, said};

struct Case {
    command: &'static str,
    /// Arguments that cannot be understood.
    usage: &'static str,
    /// Arguments that are right, and how they end where nobody serves.
    right: &'static str,
    exit: i32,
}

const fn case(command: &'static str, usage: &'static str, right: &'static str, exit: i32) -> Case {
    Case { command, usage, right, exit }
}

const CASES: &[Case] = &[
    case("serve", "--heartbeat 5", "--check --max-value 1GiB", 2),
    case("demo", "--nope", "--help", 0),
    case("put", "", "k v", 4),
    case("get", "", "k", 4),
    case("delete", "", "k", 4),
    case("ttl", "", "k", 4),
    case("expire", "k --in 5", "k --in 5s", 4),
    case("persist", "", "k", 4),
    case("scan", "--columns nope", "p", 4),
    case("batch-put", "nofile --batch-size 0", "nofile", 4),
    case("produce", "c nofile --batch-size 0", "c nofile", 4),
    case("consume", "c --from soon", "c --exit-at-end", 4),
    case("backup", "", "--help", 0),
    case("backup create", "", "b", 4),
    case("backup verify", "", "nofile", 13),
    case("backup inspect", "--columns nope", "nofile", 13),
    case("backup restore", "b", "nofile --data-dir x", 13),
    case("snapshot", "", "--help", 0),
    case("snapshot create", "--node x", "", 4),
    case("snapshot list", "--columns nope", "", 4),
    case("snapshot inspect", "", "nofile", 13),
    case("consumer", "", "--help", 0),
    case("consumer list", "--columns nope", "", 4),
    case("collection", "", "--help", 0),
    case("collection list", "--sort a:b", "", 4),
    case("collection create", "", "c", 4),
    case("collection describe", "", "c", 4),
    case("collection alter", "c", "c --partitions 4", 4),
    case("collection truncate", "c", "c --before 5 --yes", 4),
    case("collection drop", "", "c --confirm c", 4),
    case("status", "--fail-on nope", "", 4),
    case("health", "--live --ready", "", 4),
    case("metrics", "--columns nope", "", 4),
    case("metrics names", "extra", "", 4),
    case("wal", "", "--help", 0),
    case("wal info", "", "--data-dir none", 13),
    case("wal dump", "--shard x", "--data-dir none --shard 1", 13),
    case("wal verify", "", "--data-dir none", 13),
    case("wal repair", "--data-dir none", "--data-dir none --to r", 13),
    case("wal truncate", "--after 1", "--data-dir none --shard 1 --after 1 --in-place", 13),
    case("doctor", "extra", "--help", 0),
    case("bench", "", "--help", 0),
    case("bench limits", "--duration 5", "--help", 0),
    case("bench put", "--clients 0", "--help", 0),
    case("bench get", "--rate 0", "--help", 0),
    case("bench mixed", "--clients 0", "--help", 0),
    case("bench produce", "--rate 0", "--help", 0),
    case("bench consume", "--rate 0", "--help", 0),
    case("version", "extra", "", 4),
    case("completions", "tcsh", "bash", 0),
    case("man", "nope", "put", 0),
    case("help", "nope", "formats", 0),
];

/// Every command that is not hidden, as it is typed.
pub(crate) fn commands() -> Vec<String> {
    fn add(command: &clap::Command, path: &str, all: &mut Vec<String>) {
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let path = format!("{path} {}", sub.get_name()).trim().to_owned();
            add(sub, &path, all);
            all.push(path);
        }
    }
    let mut all = Vec::new();
    add(&prkdb::cli(), "", &mut all);
    all
}

#[test]
fn every_command_has_a_case() {
    for command in commands() {
        assert!(CASES.iter().any(|case| case.command == command), "no case for '{command}'");
    }
    for case in CASES {
        assert!(commands().iter().any(|command| command == case.command), "{}", case.command);
    }
}

#[test]
fn a_usage_error_is_one_line_and_exit_2() {
    let home = Home::new();
    for case in CASES {
        let line = format!("{} {} --server {NOBODY}", case.command, case.usage);
        if case.usage.is_empty() && case.command.split(' ').count() == 1 && !line.contains("put k")
        {
            // Without arguments, a command with subcommands prints its help.
            let said = home.run(case.command);
            assert_eq!((said.code, said.stdout.is_empty()), (2, true), "{}", case.command);
            continue;
        }
        let said = home.run(&line);
        assert_eq!(said.code, 2, "{line}\n{}", said.stderr);
        assert!(said.stdout.is_empty(), "{line}");
        let lines: Vec<&str> = said.stderr.lines().collect();
        assert!(lines[0].starts_with("prkdb: "), "{line}\n{}", said.stderr);
        assert!(
            lines.len() <= 2 && lines[1..].iter().all(|hint| hint.starts_with("hint: ")),
            "{line}\n{}",
            said.stderr
        );
    }
}

#[test]
fn an_error_is_also_one_json_line_on_stderr() {
    let home = Home::new();
    for case in CASES.iter().filter(|case| case.exit != 0) {
        for format in ["json", "ndjson"] {
            let line =
                format!("{} {} -o {format} --retries 0 -s {NOBODY}", case.command, case.right);
            let said = home.run(&line);
            assert_eq!(said.code, case.exit, "{line}\n{}", said.stderr);
            assert!(said.stdout.is_empty(), "{line}");
            assert!(said.stderr.starts_with("prkdb: "), "{line}\n{}", said.stderr);
            let json: serde_json::Value =
                serde_json::from_str(said.stderr.lines().last().unwrap()).unwrap();
            assert_eq!(json["schema"], "prkdb.error/1", "{line}");
            assert_eq!(json["error"]["exit"], case.exit, "{line}");
        }
    }
}

#[test]
fn a_right_line_ends_as_its_case_says() {
    let home = Home::new();
    for case in CASES {
        let line = format!("{} {} --retries 0 -s {NOBODY}", case.command, case.right);
        let said = home.run(&line);
        assert_eq!(said.code, case.exit, "{line}\n{}", said.stderr);
        assert_eq!(said.stdout.is_empty(), case.exit != 0, "{line}");
    }
}

#[test]
fn no_escape_sequence_without_a_terminal_but_with_color_always() {
    let home = Home::new();
    for command in commands() {
        for line in [format!("{command} --help"), format!("{command} --nope")] {
            let said = home.run(&line);
            assert!(!said.stdout.contains(&0x1b) && !said.stderr.contains('\x1b'), "{line}");
        }
        let said = home.run(&format!("{command} --help --color always"));
        assert!(said.stdout.contains(&0x1b), "{command}");
    }
    let coloured = home.run("get --nope --color always");
    assert!(coloured.stderr.contains('\x1b'));
}

#[test]
fn a_command_does_not_need_a_home() {
    let home = Home::new();
    let mut command = home.command(["get", "k", "-s", NOBODY, "--retries", "0"]);
    let said = said(command.env_remove("HOME").env_remove("XDG_CONFIG_HOME"));
    assert_eq!(said.code, 4, "{}", said.stderr);
}
