//! `batch-put` against a node in memory: order, rejects, checkpoint and resume.

use std::{fs, io::Write as _};

use crate::{
    fake::Fake,
    support::{lines, said},
};

#[test]
fn the_rest_of_the_line_is_the_value() {
    let node = Fake::new();
    node.write("data.txt", "a,1\nb,x,y\nuser:1,{\"a\":1,\"b\":2}\n");
    let put = node.run("batch-put data.txt --separator=,");
    assert!(put.text().starts_with("3 put, 0 rejected, 0 skipped, "), "{}", put.text());
    assert_eq!(node.value("b").unwrap(), b"x,y");
    assert_eq!(node.value("user:1").unwrap(), b"{\"a\":1,\"b\":2}");
    let from_stdin = said(node.command("batch-put").write_stdin("c,3\r\nd,4"));
    assert_eq!(from_stdin.code, 0);
    assert_eq!(
        (node.value("c").unwrap(), node.value("d").unwrap()),
        (b"3".to_vec(), b"4".to_vec())
    );
}

#[test]
fn a_bad_line_stops_the_run_after_the_good_ones_before_it() {
    let node = Fake::new();
    let lines: Vec<String> =
        (1..=10).map(|n| if n == 7 { "bad".to_owned() } else { format!("k{n},v") }).collect();
    node.write("d2", lines.join("\n"));
    let stopped = node.run("batch-put d2 --separator=,");
    assert_eq!(
        (stopped.code, stopped.stderr.as_str()),
        (8, "prkdb: d2:7: no separator ',' in record\n")
    );
    assert!(stopped.text().starts_with("6 put, 1 rejected"));
    assert_eq!(node.state.lock().unwrap().keys.len(), 6);
    let all = node.run("batch-put d2 --separator=, --on-error continue --rejects r");
    assert_eq!(all.code, 8);
    assert_eq!(node.state.lock().unwrap().keys.len(), 9);
    assert_eq!(fs::read_to_string(node.home.dir.path().join("r")).unwrap(), "bad\n");
    node.write("r", "k7,v\n");
    assert_eq!(node.run("batch-put r").code, 0);
    assert_eq!(node.state.lock().unwrap().keys.len(), 10);
}

#[test]
fn the_later_of_two_values_stays() {
    let node = Fake::new();
    let lines = lines(20_000, |n| format!("k{},{n}", n % 100));
    node.write("d.txt", lines);
    let put = node.run("batch-put d.txt --concurrency 8 --batch-size 7");
    assert_eq!(put.code, 0, "{}", put.stderr);
    for key in 0..100 {
        assert_eq!(node.value(&format!("k{key}")).unwrap(), (19_900 + key).to_string().as_bytes());
    }
}

#[test]
fn a_value_over_the_limit_is_a_rejected_record() {
    let node = Fake::new();
    let mut text = b"a,1\nbig,".to_vec();
    text.extend_from_slice(&vec![b'x'; 3 << 19]);
    text.extend_from_slice(b"\nb,2\n");
    node.write("d.txt", text);
    let put = node.run("batch-put d.txt --on-error continue");
    assert_eq!(put.code, 8);
    assert!(put.stderr.contains("d.txt:2: value is 1.5 MiB, limit 1.0 MiB"), "{}", put.stderr);
    assert_eq!(node.state.lock().unwrap().keys.len(), 2);
}

#[test]
fn with_if_absent_the_first_value_stays() {
    let node = Fake::new();
    node.run("put b old");
    node.write("d.txt", "a,1\na,2\nb,3\nc,4\n");
    let put = node.run("batch-put d.txt --if-absent --on-error continue -o json");
    assert_eq!(put.code, 8, "{}", put.stderr);
    let json: serde_json::Value = serde_json::from_slice(&put.stdout).unwrap();
    assert_eq!((json["put"].as_u64(), json["rejected"].as_u64()), (Some(2), Some(2)));
    assert_eq!(
        (node.value("a").unwrap(), node.value("b").unwrap()),
        (b"1".to_vec(), b"old".to_vec())
    );
}

/// Lines with malformed ones among them.
fn many(records: u32) -> Vec<u8> {
    let mut text = Vec::new();
    for n in 0..records {
        if n % 1000 == 999 {
            writeln!(text, "bad{n}").unwrap();
        } else {
            writeln!(text, "key-{n},value-{n}").unwrap();
        }
    }
    text
}

#[test]
fn a_run_that_lost_its_node_is_resumed_and_puts_nothing_twice() {
    let node = Fake::new();
    node.write("d.txt", many(20_000));
    let line =
        "batch-put d.txt --checkpoint c.json --batch-size 50 --on-error continue --rejects r";
    for (loses_last_answer, fails_after) in
        [(false, 5), (true, 1), (true, 40), (true, 60), (false, 100)]
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
        assert!(
            failed.stderr.contains("hint: resume with: prkdb batch-put d.txt"),
            "{}",
            failed.stderr
        );
        assert!(failed.stdout.is_empty());
    }
    node.state.lock().unwrap().fails_after = None;
    let resumed = said(node.command(line).args(["--resume", "-o", "json"]));
    assert_eq!(resumed.code, 8, "{}", resumed.stderr);
    let json: serde_json::Value = serde_json::from_slice(&resumed.stdout).unwrap();
    assert_eq!((json["put"].as_u64(), json["rejected"].as_u64()), (Some(19_980), Some(20)));
    let state = node.state.lock().unwrap();
    assert_eq!(state.keys.len(), 19_980);
    // Each record has one offset: nothing was put twice.
    assert_eq!(state.keys.values().map(|(_, version)| *version).max(), Some(19_979));
    assert!(state.duplicates > 0, "the test must meet batches that come again");
    let rejected = fs::read_to_string(node.home.dir.path().join("r")).unwrap();
    assert_eq!(rejected.lines().count(), 20);
    assert!(!node.home.dir.path().join("c.json").exists(), "a finished run removes it");
}

#[test]
fn a_checkpoint_that_does_not_fit_is_refused() {
    let node = Fake::new();
    node.write("d.txt", many(3000));
    node.state.lock().unwrap().fails_after = Some(20);
    let line = "batch-put d.txt --checkpoint c.json --batch-size 50 --on-error continue";
    assert_ne!(node.run(line).code, 0);
    node.state.lock().unwrap().fails_after = None;
    let refused = |line: &str, part: &str| {
        let said = node.run(line);
        assert_eq!(said.code, 7, "{line}\n{}", said.stderr);
        assert!(said.stderr.contains(part), "{line}\n{}", said.stderr);
    };
    refused(line, "exists already");
    refused(&format!("{line} --resume --separator=e"), "parsing was");
    refused(&format!("{line} --resume").replace("50", "51"), "batch_size was 50, is 51");
    let mut changed = many(3000);
    changed[0] = b'K';
    node.write("d.txt", changed);
    refused(&format!("{line} --resume"), "has changed");
    node.write("d.txt", many(4000));
    assert_eq!(node.run(&format!("{line} --resume")).code, 8);
    assert_eq!(node.state.lock().unwrap().keys.len(), 3996);
}

#[test]
fn rows_of_a_table_become_objects_under_joined_keys() {
    let node = Fake::new();
    node.write("f.csv", "year,carrier,note\n2013,UA,\"a,b\"\n2013,B6,\n");
    assert_eq!(node.run("batch-put f.csv --key-column year,carrier").code, 0);
    let value = node.value("2013|UA").unwrap();
    assert_eq!(value, b"{\"year\":\"2013\",\"carrier\":\"UA\",\"note\":\"a,b\"}");
}

#[test]
fn a_missing_collection_is_exit_3() {
    let node = Fake::new();
    node.write("d.txt", "a,1\n");
    assert_eq!(node.run("batch-put d.txt -c nope").code, 3);
}

#[test]
fn behind_a_put_that_is_refused_nothing_more_is_sent() {
    let node = Fake::new();
    node.run("put k0 old");
    node.write("d.txt", lines(5000, |n| format!("k{n},{n}")));
    // One put under way in each of 16 lanes.
    let put = node.run("batch-put d.txt --if-absent --concurrency 1 -o json");
    assert_eq!(put.code, 8, "{}", put.stderr);
    assert!(put.stderr.starts_with("prkdb: d.txt:1: "), "{}", put.stderr);
    let json: serde_json::Value = serde_json::from_slice(&put.stdout).unwrap();
    assert_eq!(json["rejected"].as_u64(), Some(1), "{json}");
    let state = node.state.lock().unwrap();
    assert_eq!(json["put"].as_u64(), u64::try_from(state.keys.len() - 1).ok());
    assert!(state.keys.len() <= 16, "{}", state.keys.len());
}

#[test]
fn rejects_never_empty_the_input_or_the_checkpoint() {
    let node = Fake::new();
    let dir = node.home.dir.path();
    let text = "bad\na,1\n";
    node.write("d.txt", text);
    fs::hard_link(dir.join("d.txt"), dir.join("r.reasons")).unwrap();
    std::os::unix::fs::symlink("d.txt", dir.join("link")).unwrap();
    for line in [
        "batch-put d.txt --rejects d.txt",
        "batch-put d.txt --rejects link",
        "batch-put d.txt --rejects r",
        "batch-put link --rejects ./d.txt --dry-run",
        "batch-put d.txt --checkpoint c.json --rejects ./c.json",
        "batch-put d.txt --checkpoint x.reasons --rejects x",
    ] {
        let said = node.run(line);
        assert_eq!(said.code, 2, "{line}\n{}", said.stderr);
        assert!(said.stderr.starts_with("prkdb: --rejects: "), "{line}\n{}", said.stderr);
    }
    let stdin = fs::File::open(dir.join("d.txt")).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_prkdb"))
        .env_clear()
        .env("HOME", dir)
        .env("PRKDB_SERVER", node.address.to_string())
        .current_dir(dir)
        .stdin(stdin)
        .args(["batch-put", "--rejects", "d.txt"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(fs::read_to_string(dir.join("d.txt")).unwrap(), text);
    assert!(!dir.join("c.json").exists());
    assert_eq!(node.state.lock().unwrap().writes, 0);
}
