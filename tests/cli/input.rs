//! Arguments, standard input and configuration files, before any server is asked.

use std::{ffi::OsString, fs, os::unix::ffi::OsStringExt as _};

use crate::support::{Home, NOBODY, said};

#[test]
fn wrong_encodings_and_empty_keys_are_usage_errors() {
    let home = Home::new();
    for (line, part) in [
        ("put --key-encoding hex abc v", "odd number"),
        ("put --encoding base64 a v", "base64"),
        ("put --value-encoding escape k \\q", "wrong escape"),
        ("get --key-encoding hex zz", "key:"),
        ("put k v --if-version x", "x"),
        ("put k v --if-absent --if-version 1", "cannot be used with"),
        ("put k {bad --json", "not JSON"),
        ("get a b --raw", "one KEY"),
        ("scan --limit 0", "at least 1"),
        ("scan --limit -1", "-1"),
        ("get k --timeout 5", "add a unit"),
        ("get k --timeout 1s --timeout 2s", "multiple times"),
        ("get k -o yaml", "yaml"),
        ("scan -o raw", "raw"),
        ("get k -o prometheus", "prometheus"),
        ("get k -s db1:70000", "70000"),
        ("get k -s db1:0", "'0'"),
        ("get k -s ftp://db1", "ftp"),
        ("scan --sort KEY", "--sort"),
    ] {
        let said = home.run(line);
        assert_eq!(said.code, 2, "{line}\n{}", said.stderr);
        assert!(said.stderr.contains(part), "{line}\n{}", said.stderr);
        assert!(said.stdout.is_empty(), "{line}");
    }
    let empty = said(&mut home.command(["put", "", "v"]));
    assert_eq!(empty.code, 2);
}

#[test]
fn a_key_that_is_not_utf_8_is_taken() {
    let home = Home::new();
    let args = ["get".into(), OsString::from_vec(b"a\xff b".to_vec()), "-s".into(), NOBODY.into()];
    let said = said(home.command(args).args(["--retries", "0"]));
    assert_eq!(said.code, 4, "{}", said.stderr);
}

#[test]
fn a_negative_number_is_a_value_and_a_flag_stays_one() {
    let home = Home::new();
    for (line, expected) in [
        ("put k -5 --retries 0 -s 127.0.0.1:1", 4),
        ("put k --retries 0 -s 127.0.0.1:1 -- --x", 4),
        ("put k --weird", 2),
    ] {
        assert_eq!(home.run(line).code, expected, "{line}");
    }
}

#[test]
fn a_missing_file_is_exit_13() {
    let home = Home::new();
    for line in [
        "put k --value-file nofile",
        "batch-put nofile --dry-run",
        "serve --config nofile",
        "get k --config nofile",
    ] {
        let said = home.run(line);
        assert_eq!(said.code, 13, "{line}\n{}", said.stderr);
        assert!(said.stderr.contains("nofile: no such file or directory"), "{}", said.stderr);
    }
}

#[test]
fn a_configuration_with_a_typing_error_is_refused_with_its_place() {
    let home = Home::new();
    let dir = home.dir.path().join("config/prkdb");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("config.toml"), "[defaults]\ntimout = \"1s\"\n").unwrap();
    let said = home.run("get k");
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("config.toml:2:1: unknown field `timout`"), "{}", said.stderr);
    assert!(said.stderr.contains("hint: did you mean 'timeout'?"), "{}", said.stderr);
    // The file can be left out.
    assert_eq!(home.run("get k --config none --retries 0 -s 127.0.0.1:1").code, 4);
}

#[test]
fn flag_wins_over_environment_over_profile() {
    let home = Home::new();
    let dir = home.dir.path().join("config/prkdb");
    fs::create_dir_all(&dir).unwrap();
    fs::write(
        dir.join("config.toml"),
        "[defaults]\nretries = 0\n[profiles.a]\nservers = [\"127.0.0.1:2\"]\n",
    )
    .unwrap();
    let named = |said: &crate::support::Said, address: &str| {
        assert!(said.stderr.contains(address), "{address}: {}", said.stderr);
    };
    named(&home.run("get k"), "127.0.0.1:9090");
    named(&home.run("get k --profile a"), "127.0.0.1:2:");
    let by_variable =
        said(home.command(["get", "k", "--profile", "a"]).env("PRKDB_SERVER", "127.0.0.1:3"));
    named(&by_variable, "127.0.0.1:3:");
    let by_flag = said(
        home.command(["get", "k", "--profile", "a", "-s", "127.0.0.1:4"])
            .env("PRKDB_SERVER", "127.0.0.1:3"),
    );
    named(&by_flag, "127.0.0.1:4:");
    assert_eq!(home.run("get k --profile nope").code, 2);
}

#[test]
fn every_address_that_was_tried_is_named() {
    let said = Home::new().run("get k --retries 0 -s 127.0.0.1:1,127.0.0.1:2 -s 127.0.0.1:3");
    assert_eq!(said.code, 4);
    for address in ["127.0.0.1:1:", "127.0.0.1:2:", "127.0.0.1:3:"] {
        assert!(said.stderr.contains(address), "{}", said.stderr);
    }
}

#[test]
fn a_severe_command_needs_the_name_even_with_yes() {
    let home = Home::new();
    for line in [
        "collection drop orders",
        "collection drop orders --yes",
        "collection drop orders --confirm order",
    ] {
        let said = home.run(line);
        assert_eq!(said.code, 9, "{line}");
        assert!(said.stderr.contains("hint: pass --confirm orders"), "{}", said.stderr);
    }
}

#[test]
fn dry_runs_read_every_format_and_name_the_bad_line() {
    let home = Home::new();
    let write = |name: &str, text: &[u8]| fs::write(home.dir.path().join(name), text).unwrap();
    write("d.txt", b"a,1\nb,x,y\n\n");
    write("d.csv", b"id,name\n1,\"a,b\"\n");
    write("d.tsv", b"1\ta\n");
    write("d.jsonl", b"{\"key\":\"a\",\"value\":1}\n");
    write("d.frames", &[0, 0, 0, 1, b'k', 0, 0, 0, 0]);
    for (line, put) in [
        ("batch-put d.txt --separator=,", 2),
        ("batch-put d.csv --key-column id", 1),
        ("batch-put d.tsv", 1),
        ("batch-put d.jsonl", 1),
        ("batch-put d.frames", 1),
        ("batch-put d.txt --skip 1", 1),
    ] {
        let said = home.run(&format!("{line} --dry-run -o json"));
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{line}");
        let json: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!(json["put"], put, "{line}");
    }
    write("bad.txt", b"a,1\nbad\nc,3\n");
    let stopped = home.run("batch-put bad.txt --dry-run");
    assert_eq!(
        (stopped.code, stopped.stderr.as_str()),
        (8, "prkdb: bad.txt:2: no separator ',' in record\n")
    );
    assert!(
        stopped.text().starts_with("1 would be put, 1 rejected, 0 skipped"),
        "{}",
        stopped.text()
    );
    let all = home.run("batch-put bad.txt --dry-run --on-error continue --rejects r");
    assert_eq!(all.code, 8);
    assert!(all.text().starts_with("2 would be put, 1 rejected"));
    assert_eq!(fs::read(home.dir.path().join("r")).unwrap(), b"bad\n");
    assert_eq!(
        fs::read_to_string(home.dir.path().join("r.reasons")).unwrap(),
        "2\tno separator ',' in record\n"
    );
    write("none.txt", b"");
    assert_eq!(home.run("batch-put none.txt --dry-run").code, 1);
    assert_eq!(home.run("batch-put none.txt --dry-run --allow-empty").code, 0);
    write("only-bad.txt", b"bad\n");
    assert_eq!(home.run("batch-put only-bad.txt --dry-run").code, 1);
}

#[test]
fn flags_of_batch_put_that_make_no_sense_together_are_refused() {
    let home = Home::new();
    fs::write(home.dir.path().join("d.txt"), b"a,1\n").unwrap();
    for flags in [
        "--separator=",
        "--separator=123456789",
        "--separator=\\n",
        "--format csv --separator=ab",
        "--format frames --comment #",
        "--key-column 1",
        "--format jsonl --null",
        "--max-errors 3",
        "--resume",
        "--format csv --key-column 0",
        "--concurrency 17",
        "--batch-size 5000",
    ] {
        let said = home.run(&format!("batch-put d.txt --dry-run {flags}"));
        assert_eq!(said.code, 2, "{flags}\n{}", said.stderr);
    }
    assert_eq!(home.run("batch-put --checkpoint c.json --dry-run").code, 2);
}
