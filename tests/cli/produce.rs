//! `produce` against a node in memory: formats, keys, times, partitions, checkpoint and resume.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::Stdio,
};

use serde_json::Value;

use crate::{
    fake::{Event, Fake, PARTITIONS},
    support::{lines, said},
};

impl Fake {
    /// Returns the records of all partitions.
    fn events(&self) -> Vec<Event> {
        let state = self.state.lock().unwrap();
        state.events.values().flatten().cloned().collect()
    }

    /// Returns the values of all partitions, sorted.
    fn values(&self) -> Vec<String> {
        let text = |event: Event| String::from_utf8(event.value.unwrap()).unwrap();
        let mut values: Vec<String> = self.events().into_iter().map(text).collect();
        values.sort();
        values
    }
}

#[test]
fn lines_are_values_without_keys() {
    let node = Fake::new();
    node.write("d.log", "a,1\r\n\nb\n");
    let said = node.run("produce default d.log");
    assert_eq!(said.code, 0, "{}", said.stderr);
    let text = said.text();
    assert!(text.starts_with("2 records in 1 partition, 4 B in "), "{text}");
    assert!(text.ends_with(" s; 0 rejected, 1 skipped\n"), "{text}");
    let events = node.events();
    assert!(events.iter().all(|event| event.key.is_none() && event.headers.is_empty()));
    assert!(events.iter().all(|event| event.timestamp_ms > 1_700_000_000_000));
    assert_eq!(node.values(), ["a,1", "b"]);
}

#[test]
fn what_comes_by_a_pipe_has_the_key_time_and_headers_of_the_command_line() {
    let node = Fake::new();
    let line = "produce default --key k --timestamp 2013-01-01T01:00:00+01:00 \
                --header a=1=2 --header b= --print-offsets";
    let said = said(node.command(line).write_stdin("x\ny"));
    assert_eq!(said.code, 0, "{}", said.stderr);
    let time = "2013-01-01T00:00:00.000Z";
    let rows: Vec<String> = (0..2).map(|offset| format!("{offset}\t{time}\tk")).collect();
    let text = said.text();
    assert!(text.starts_with("PARTITION\tOFFSET\tTIMESTAMP\tKEY\n"), "{text}");
    let found: Vec<&str> =
        text.lines().skip(1).map(|line| line.split_once('\t').unwrap().1).collect();
    assert_eq!(found, rows);
    assert!(said.stderr.starts_with("2 records in 1 partition, "), "{}", said.stderr);
    let headers = vec![("a".to_owned(), b"1=2".to_vec()), ("b".to_owned(), Vec::new())];
    assert!(node.events().iter().all(|event| event.headers == headers));
}

#[test]
fn rows_have_keys_times_and_are_objects() {
    let node = Fake::new();
    node.write("f.csv", "tail,at,n\nN1,2013-01-01T10:00:00Z,\"1,2\"\nNA,2013-01-02 10:00:00,3\n");
    let line = "produce default f.csv --key-column tail --timestamp-column at --null-key NA";
    let said = node.run(&format!("{line} -o json"));
    assert_eq!(said.code, 0, "{}", said.stderr);
    let json: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!((json["produced"].as_u64(), json["rejected"].as_u64()), (Some(2), Some(0)));
    assert_eq!(json["collection"], "default");
    let partitions = json["partitions"].as_array().unwrap();
    assert!(partitions.iter().all(|partition| partition["first_offset"] == 0));
    let mut events = node.events();
    events.sort_by_key(|event| event.timestamp_ms);
    assert_eq!(events[0].key, Some(b"N1".to_vec()));
    assert_eq!(events[0].timestamp_ms, 1_357_034_400_000);
    let value = br#"{"tail":"N1","at":"2013-01-01T10:00:00Z","n":"1,2"}"#;
    assert_eq!(events[0].value.as_deref(), Some(&value[..]));
    assert_eq!((&events[1].key, events[1].timestamp_ms), (&None, 1_357_120_800_000));
}

#[test]
fn json_lines_are_envelopes_or_whole_values() {
    let node = Fake::new();
    node.write(
        "e.jsonl",
        "{\"key\":\"k\",\"value\":{\"a\": 1},\"headers\":[[\"h\",\"v\"]],\"timestamp\":1356998400}\n\
         {\"key\":\"k\",\"value\":null}\n",
    );
    assert_eq!(node.run("produce default e.jsonl").code, 0);
    let events = node.events();
    assert_eq!(events[0].value.as_deref(), Some(&b"{\"a\":1}"[..]));
    assert_eq!(events[0].headers, [("h".to_owned(), b"v".to_vec())]);
    assert_eq!(events[0].timestamp_ms, 1_356_998_400_000);
    assert_eq!(events[1].value, None);
    let node = Fake::new();
    node.write("e.jsonl", "{\"id\": 7, \"at\": \"2013-01-01\"}\n");
    let line = "produce default e.jsonl --key-field id --timestamp-field at";
    assert_eq!(node.run(line).code, 0);
    let events = node.events();
    assert_eq!(events[0].key, Some(b"7".to_vec()));
    assert_eq!(events[0].value.as_deref(), Some(&b"{\"id\": 7, \"at\": \"2013-01-01\"}"[..]));
}

#[test]
fn every_compression_is_read_back() {
    for codec in ["none", "lz4", "zstd", "gzip", "snappy"] {
        let node = Fake::new();
        node.write("d.log", lines(500, |n| format!("the same words again and again {n}")));
        let said = node.run(&format!("produce default d.log --compression {codec}"));
        assert_eq!(said.code, 0, "{codec}\n{}", said.stderr);
        assert_eq!(node.values().len(), 500, "{codec}");
    }
}

#[test]
fn a_bad_time_or_partition_is_a_rejected_line() {
    let node = Fake::new();
    node.write("f.csv", "k,at\na,2013-01-01\nb,NA\nc,2013-01-01\n");
    let line = "produce default f.csv --key-column k --timestamp-column at --on-error continue";
    let said = node.run(&format!("{line} --rejects r.csv"));
    assert_eq!(said.code, 8, "{}", said.stderr);
    let reason = "f.csv:3: timestamp 'NA' is not RFC 3339";
    assert!(said.stderr.contains(reason), "{}", said.stderr);
    assert_eq!(fs::read_to_string(node.home.dir.path().join("r.csv")).unwrap(), "k,at\nb,NA\n");
    node.write("e.jsonl", "{\"value\":1,\"partition\":7}\n");
    let said = node.run("produce default e.jsonl");
    assert_eq!((said.code, said.stderr.contains("e.jsonl:1: partition 7: there are 3")), (1, true));
}

#[test]
fn a_partition_that_is_named_must_be_there_and_be_the_keys_own() {
    let node = Fake::new();
    node.write("d.log", "a\nb\n");
    let said = node.run("produce default d.log --partition 2");
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(node.state.lock().unwrap().events.keys().copied().collect::<Vec<_>>(), [2]);
    let said = node.run("produce default d.log --partition 3");
    assert_eq!((said.code, said.stderr.contains("partition 3")), (3, true), "{}", said.stderr);
    let codes: Vec<i32> = (0..PARTITIONS)
        .map(|partition| {
            node.run(&format!("produce default d.log --key k --partition {partition}")).code
        })
        .collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 1).count(), 2, "{codes:?}");
}

#[test]
fn flags_that_say_nothing_together_are_refused() {
    let node = Fake::new();
    node.write("d.log", "a\n");
    node.write("d.csv", "a,b\n1,2\n");
    for line in [
        "d.log --key-column a",
        "d.log --timestamp-column a",
        "d.log --key-field a",
        "d.log --separator ;",
        "d.log --timestamp soon",
        "d.log --timestamp-format %Q",
        "d.log --header a",
        "d.log --header =a",
        "d.log --format delimited --key k",
        "d.csv --key k --key-column a",
        "d.csv --timestamp-column a --timestamp 2013-01-01",
        "d.csv --key-column c",
        "d.log --create=0",
        "d.log --in-flight 17",
        "d.log --linger 5",
        "d.log --print-offsets --dry-run",
        "d.log --ttl 5s",
        "d.log --checkpoint c --columns nope --print-offsets",
    ] {
        let said = node.run(&format!("produce default {line}"));
        assert_eq!(said.code, 2, "{line}\n{}", said.stderr);
        assert!(said.stdout.is_empty(), "{line}");
    }
    assert_eq!(node.state.lock().unwrap().writes, 0);
}

#[test]
fn a_missing_collection_is_created_only_when_that_is_asked_for() {
    let node = Fake::new();
    node.write("d.log", "a\n");
    let said = node.run("produce events d.log");
    assert_eq!(said.code, 3);
    assert!(said.stderr.contains("hint: pass --create"), "{}", said.stderr);
    let dry = node.run("produce events d.log --create --dry-run");
    assert_eq!((dry.code, node.state.lock().unwrap().writes), (0, 0));
    assert!(dry.text().starts_with("1 record would be produced, 1 B in "), "{}", dry.text());
    assert_eq!(node.run("produce events d.log --create=3").code, 0);
    assert_eq!(node.run("produce events d.log --create").code, 0);
    assert_eq!(node.values(), ["a", "a"]);
}

#[test]
fn what_is_there_is_sent_while_the_pipe_is_open() {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        process::{Command, Stdio},
    };
    let node = Fake::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_prkdb"))
        .args(["produce", "default", "--print-offsets", "--no-headers", "--columns", "key,offset"])
        .args(["--key", "k"])
        .env_clear()
        .env("PRKDB_SERVER", node.address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for offset in 0..3 {
        // The next line is written when this one is stored.
        stdin.write_all(b"event\nthe beginning of ").unwrap();
        let mut row = String::new();
        stdout.read_line(&mut row).unwrap();
        assert_eq!(row, format!("k\t{offset}\n"));
    }
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(node.values().len(), 4);
}

/// Rows with a key, without one, and wrong ones.
fn many(records: u32) -> String {
    lines(records, |n| match n % 1000 {
        999 => format!("{n},k,soon"),
        rest if rest % 3 == 0 => format!("{n},key-{},1356998400", n % 100),
        _ => format!("{n},NA,1356998400"),
    })
}

#[test]
fn a_run_that_lost_its_node_is_resumed_and_appends_nothing_twice() {
    let node = Fake::new();
    node.write("d.csv", many(20_000));
    let line = "produce default d.csv --value-column 1 --key-column 2 --timestamp-column 3 \
                --null-key NA --checkpoint c.json --batch-size 50 --on-error continue \
                --compression lz4";
    for (loses_last_answer, fails_after) in
        [(false, 5), (true, 1), (true, 40), (true, 60), (false, 100), (true, 7)]
    {
        {
            let mut state = node.state.lock().unwrap();
            state.fails_after = Some(fails_after);
            state.loses_last_answer = loses_last_answer;
        }
        let is_first = !node.home.dir.path().join("c.json").exists();
        let line = if is_first { line.to_owned() } else { format!("{line} --resume") };
        let failed = said(node.command(&line).args(["-o", "json", "--timeout", "1s"]));
        assert!([4, 5].contains(&failed.code), "{}\n{}", failed.code, failed.stderr);
        let hint = "hint: resume with: prkdb produce default d.csv";
        assert!(failed.stderr.contains(hint), "{}", failed.stderr);
    }
    node.state.lock().unwrap().fails_after = None;
    let resumed = said(node.command(line).args(["--resume", "-o", "json"]));
    assert_eq!(resumed.code, 8, "{}", resumed.stderr);
    let json: Value = serde_json::from_slice(&resumed.stdout).unwrap();
    assert_eq!((json["produced"].as_u64(), json["rejected"].as_u64()), (Some(19_980), Some(20)));
    let state = node.state.lock().unwrap();
    assert!(state.duplicates > 0, "the test must meet batches that come again");
    // Each partition tells all its offsets, those of the runs before too.
    for partition in json["partitions"].as_array().unwrap() {
        let number = u32::try_from(partition["partition"].as_u64().unwrap()).unwrap();
        assert_eq!(partition["first_offset"], 0);
        let count = u64::try_from(state.events[&number].len()).unwrap();
        assert_eq!(partition["last_offset"], count - 1);
    }
    drop(state);
    let mut found: Vec<u32> = node.values().iter().map(|value| value.parse().unwrap()).collect();
    found.sort_unstable();
    let expected: Vec<u32> = (0..20_000).filter(|n| n % 1000 != 999).collect();
    assert!(found == expected, "each record stands there once");
    let mut of_one_key = String::new();
    for event in node.events().iter().filter(|event| event.key.as_deref() == Some(b"key-0")) {
        let value = String::from_utf8(event.value.clone().unwrap()).unwrap();
        writeln!(of_one_key, "{value:>8}").unwrap();
    }
    let mut sorted: Vec<&str> = of_one_key.lines().collect();
    sorted.sort_unstable();
    assert!(of_one_key.lines().eq(sorted), "a key keeps its order");
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let node = Fake::new();
    node.write("d.csv", many(3000));
    node.state.lock().unwrap().fails_after = Some(20);
    let line = "produce default d.csv --value-column 1 --timestamp-column 3 --checkpoint c.json \
                --batch-size 50 --on-error continue";
    assert_ne!(node.run(line).code, 0);
    node.state.lock().unwrap().fails_after = None;
    for (line, part) in [
        (line.to_owned(), "exists already"),
        (format!("{line} --resume --compression zstd"), "compression was \"none\""),
        (format!("{line} --resume --key k"), "records was"),
        (format!("{line} --resume --key-column 2"), "parsing was"),
        ("batch-put d.csv --checkpoint c.json --resume".to_owned(), "was"),
    ] {
        let said = node.run(&line);
        assert_eq!(said.code, 7, "{line}\n{}", said.stderr);
        assert!(said.stderr.contains(part), "{line}\n{}", said.stderr);
    }
    assert_eq!(node.run(&format!("{line} --resume")).code, 8);
    assert_eq!(node.values().len(), 2997);
}

#[test]
fn no_records_are_an_error_unless_that_is_accepted() {
    let node = Fake::new();
    node.write("d.log", "\n");
    assert_eq!(node.run("produce default d.log").code, 1);
    let accepted = node.run("produce default d.log --allow-empty");
    assert!(accepted.text().starts_with("0 records in 0 partitions, "), "{}", accepted.text());
    assert_eq!(node.run("produce default nofile").code, 13);
}

#[test]
fn a_reader_of_offsets_that_goes_away_ends_no_run() {
    let node = Fake::new();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_prkdb"))
        .env_clear()
        .env("HOME", node.home.dir.path())
        .env("PRKDB_SERVER", node.address.to_string())
        .args(["produce", "default", "--print-offsets", "-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let until_stored = |count: usize| {
        let begun = std::time::Instant::now();
        while node.events().len() < count {
            assert!(begun.elapsed().as_secs() < 30, "{count} records are not stored");
            std::thread::yield_now();
        }
    };
    stdin.write_all(b"0\n").unwrap();
    for _ in 0..2 {
        stdout.read_line(&mut String::new()).unwrap();
    }
    drop(stdout);
    for number in 1..20 {
        stdin.write_all(format!("{number}\n").as_bytes()).unwrap();
        until_stored(number + 1);
    }
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(node.events().len(), 20);
}
