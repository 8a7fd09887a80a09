//! `consume` with a real node: places, ends, forms, and what it does while nothing comes.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{serve::Node, support::lines};

impl Node {
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.home.dir.path().join(name), bytes).unwrap();
    }

    /// Runs a line that must succeed, and returns what it printed.
    fn done(&self, line: &str) -> String {
        let said = self.run(line);
        assert_eq!(said.code, 0, "{line}\n{}", said.stderr);
        said.text()
    }

    /// Starts a command that follows.
    fn follow(&self, args: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_prkdb"))
            .args(args)
            .env_clear()
            .env("PRKDB_SERVER", &self.address)
            .current_dir(self.home.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

/// Three records in one partition, a day between each.
const EVENTS: &str = "\
{\"key\":\"k\",\"value\":\"a\\tb\",\"timestamp\":\"2013-06-01T00:00:00Z\",\"headers\":[[\"h\",\"1\"],[\"i\",\"\"]]}
{\"value\":\"x\",\"timestamp\":\"2013-06-02T00:00:00Z\"}
{\"key_b64\":\"/w==\",\"value\":null,\"timestamp\":\"2013-06-03T00:00:00Z\",\"headers_b64\":[[\"h\",\"/w==\"]]}
";

/// A node with these records in the collection `c`.
fn with_events() -> Node {
    let node = Node::start();
    node.write("e.jsonl", EVENTS);
    let said = node.done("produce c e.jsonl --create=1");
    assert!(said.starts_with("3 records in 1 partition, "), "{said}");
    node
}

#[test]
fn records_are_printed_in_every_form() {
    let node = with_events();
    let line = "consume c --exit-at-end";
    let plain = "PARTITION\tOFFSET\tTIMESTAMP\tKEY\tVALUE\n\
        0\t0\t2013-06-01T00:00:00.000Z\tk\ta\\tb\n\
        0\t1\t2013-06-02T00:00:00.000Z\t-\tx\n\
        0\t2\t2013-06-03T00:00:00.000Z\t\\xff\t-\n";
    assert_eq!(node.done(line), plain);
    assert_eq!(
        node.done(&format!("{line} -o ndjson")),
        "{\"schema\":\"prkdb.consume/1\",\"partition\":0,\"offset\":0,\
         \"timestamp\":\"2013-06-01T00:00:00.000Z\",\"key\":\"k\",\"value\":\"a\\tb\",\
         \"collection\":\"c\",\"headers\":[[\"h\",\"1\"],[\"i\",\"\"]]}\n\
         {\"schema\":\"prkdb.consume/1\",\"partition\":0,\"offset\":1,\
         \"timestamp\":\"2013-06-02T00:00:00.000Z\",\"key\":null,\"value\":\"x\",\
         \"collection\":\"c\",\"headers\":[]}\n\
         {\"schema\":\"prkdb.consume/1\",\"partition\":0,\"offset\":2,\
         \"timestamp\":\"2013-06-03T00:00:00.000Z\",\"key_b64\":\"/w==\",\"value\":null,\
         \"collection\":\"c\",\"headers_b64\":[[\"h\",\"/w==\"]]}\n"
    );
    let json: Value = serde_json::from_str(&node.done(&format!("{line} -o json"))).unwrap();
    assert_eq!(json["items"].as_array().unwrap().len(), 3);
    assert_eq!(json["items"][1]["key"], Value::Null);
    let csv = node.done(&format!("{line} -o csv -n 2"));
    assert_eq!(csv.lines().nth(2), Some("0,1,2013-06-02T00:00:00.000Z,,x"));
    let columns = node.done(&format!("{line} --no-headers --columns headers,offset,collection"));
    assert_eq!(columns, "h=1,i=\t0\tc\n-\t1\tc\nh=\\xff\t2\tc\n");
    let columns =
        node.done(&format!("{line} -o ndjson --columns offset --limit 1 --json-int-strings"));
    assert_eq!(columns, "{\"schema\":\"prkdb.consume/1\",\"offset\":\"0\"}\n");
    let times = node.done(&format!("{line} -o ndjson --columns timestamp -n 1 --time epoch-ms"));
    assert!(times.contains("\"timestamp\":1370044800000"), "{times}");
    let table = node.done(&format!("{line} -o table"));
    assert_eq!(table.lines().count(), 4, "{table}");
    let own = node.run_words(&[
        "consume",
        "c",
        "--exit-at-end",
        "-n",
        "2",
        "-f",
        "%c %p/%o %T [%k] %h\\n",
    ]);
    assert_eq!(own, "c 0/0 1370044800000 [k] h=1,i=\nc 0/1 1370131200000 [] \n");
}

impl Node {
    /// Runs a line of words that may hold spaces.
    fn run_words(&self, words: &[&str]) -> String {
        let child = self.follow(words);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn it_begins_and_ends_where_it_is_told() {
    let node = with_events();
    for (flags, offsets) in [
        ("--exit-at-end", "0 1 2"),
        ("--until latest", "0 1 2"),
        ("--from 1 --exit-at-end", "1 2"),
        ("--from 3 --exit-at-end", ""),
        ("--from latest --exit-at-end", ""),
        ("--until 2", "0 1"),
        ("--from 1 --until 2", "1"),
        ("--until 7 --exit-at-end", "0 1 2"),
        ("--from @2013-06-02 --exit-at-end", "1 2"),
        ("--from @2013-06-02T00:00:00.001Z --exit-at-end", "2"),
        ("--from @2013-06-02T02:00:00+02:00 --exit-at-end", "1 2"),
        ("--from @1370131200 --exit-at-end", "1 2"),
        ("--from @1370131200000 --exit-at-end", "1 2"),
        ("--from @2014-01-01 --exit-at-end", ""),
        ("--from @1970-01-01 --exit-at-end", "0 1 2"),
        ("--until @2013-06-02", "0"),
        ("--until @2014-06-02", "0 1 2"),
        ("-n 1", "0"),
        ("--limit 2", "0 1"),
        ("--partition 0 --exit-at-end", "0 1 2"),
    ] {
        let printed = node.done(&format!("consume c --no-headers --columns offset {flags}"));
        let found: Vec<&str> = printed.lines().collect();
        assert_eq!(found.join(" "), offsets, "{flags}");
    }
    assert_eq!(node.done("consume c --from latest --exit-at-end -o ndjson"), "");
    let json = node.done("consume c --from latest --exit-at-end -o json");
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["items"], serde_json::json!([]));
    let empty = node.run("consume c --from latest --exit-at-end -o table");
    assert_eq!((empty.code, empty.stderr.as_str()), (0, "(no records)\n"));
}

#[test]
fn what_is_not_there_has_its_exit_code() {
    let node = with_events();
    for (line, code, part) in [
        ("consume nope --exit-at-end", 3, "nope"),
        ("consume nope", 3, "nope"),
        ("consume c --partition 7", 3, "partition 7"),
        ("consume c --from 4 --exit-at-end", 1, "3"),
        ("consume c --from 99", 1, "3"),
        ("consume c --from soon", 2, "@TIME"),
        ("consume c --from @123", 2, "digits"),
        ("consume c --until earliest", 2, "latest"),
        ("consume c -n 0", 2, "at least 1"),
        ("consume c --format %x", 2, "%x"),
        ("consume c -f %k -o json", 2, "--format"),
        ("consume c -o raw", 2, "raw"),
        ("consume c --sort key", 2, "--sort"),
        ("consume c --columns nope", 2, "nope"),
        ("consume c --group g", 2, "--group"),
    ] {
        let said = node.run(line);
        assert_eq!(said.code, code, "{line}\n{}", said.stderr);
        assert!(said.stderr.contains(part), "{line}\n{}", said.stderr);
        assert!(said.stderr.starts_with("prkdb: "), "{line}\n{}", said.stderr);
    }
}

#[test]
fn partitions_are_chosen_by_a_list_or_one_by_one() {
    let node = Node::start();
    node.write("d.log", lines(9, |n| n.to_string()));
    for partition in 0..3 {
        node.done(&format!("produce c d.log --create=3 --partition {partition}"));
    }
    for (flags, count) in [("", 27), ("--partition 0,2", 18), ("--partition 0 --partition 1", 18)] {
        let line =
            format!("consume c --exit-at-end --no-headers --columns partition,value {flags}");
        assert_eq!(node.done(&line).lines().count(), count, "{flags}");
    }
}

#[test]
fn it_follows_and_hands_over_each_record_before_it_waits() {
    let node = with_events();
    let args = ["consume", "c", "--from", "latest", "--no-headers", "-o", "ndjson"];
    let mut child = node.follow(&[&args[..], &["--columns", "offset,value"]].concat());
    // It has begun once it prints what is appended; what came before it began is not printed.
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let first = std::thread::spawn(move || {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        (stdout, line)
    });
    node.write("one.log", "one\n");
    while !first.is_finished() {
        node.done("produce c one.log");
    }
    let (mut stdout, line) = first.join().unwrap();
    assert!(line.contains("\"value\":\"one\""), "{line}");
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(rest.lines().all(|line| line.contains("\"value\":\"one\"")), "{rest}");
}

#[test]
fn a_document_that_is_interrupted_is_whole() {
    let node = with_events();
    let mut child = node.follow(&["consume", "c", "-o", "json"]);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    while text.matches("\"offset\"").count() < 3 {
        stdout.read_line(&mut text).unwrap();
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["items"].as_array().unwrap().len(), 3);
}

#[test]
fn a_closed_reader_ends_it_quietly() {
    let node = Node::start();
    node.write("d.log", lines(50_000, |n| format!("event {n}")));
    node.done("produce c d.log --create");
    for flags in ["", "-o ndjson", "-o csv", "-o table", "-f %v\\\\n"] {
        let line = format!(
            "{} consume c {flags} | head -1 >/dev/null; echo ${{PIPESTATUS[0]}}",
            env!("CARGO_BIN_EXE_prkdb")
        );
        let output = Command::new("bash")
            .args(["-c", &line])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("PRKDB_SERVER", &node.address)
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"0\n", "{flags}");
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn what_is_consumed_can_be_produced_again() {
    let node = with_events();
    let dump = node.done("consume c --exit-at-end -o ndjson");
    node.write("dump.jsonl", &dump);
    node.done("produce copy dump.jsonl --create=1");
    let copy = node.done("consume copy --exit-at-end -o ndjson");
    assert_eq!(copy, dump.replace("\"collection\":\"c\"", "\"collection\":\"copy\""));
}

#[test]
fn more_partitions_are_given_only_where_there_is_no_index() {
    let node = Node::start();
    node.done("collection create events --no-index --partitions 2");
    assert!(node.done("collection alter events --partitions 4").starts_with("altered"));
    assert!(node.done("collection alter events --partitions 4").starts_with("already so"));
    assert_eq!(node.run("collection alter events --partitions 3").code, 7);
    assert_eq!(node.run("collection alter default --partitions 4").code, 7);
    let same = node.done("collection alter default --partitions 3 -o json");
    assert_eq!(serde_json::from_str::<Value>(&same).unwrap()["changed"], false);
    node.write("d.log", "x\n");
    node.done("produce events d.log --partition 3");
    assert_eq!(node.done("consume events --partition 3 -n 1 --no-headers --columns value"), "x\n");
}

#[test]
fn keys_that_are_produced_are_those_that_are_read() {
    let node = Node::start();
    node.write("d.csv", "id,name\n1,a\n1,b\n2,c\n");
    node.done("produce default d.csv --key-column id --compression zstd");
    assert_eq!(node.done("get 1"), "{\"id\":\"1\",\"name\":\"b\"}\n");
    node.write("gone.jsonl", "{\"key\":\"2\",\"value\":null}\n");
    node.done("produce default gone.jsonl");
    assert_eq!(node.run("get 2").code, 3);
    assert_eq!(node.done("consume default --exit-at-end --no-headers").lines().count(), 4);
}
