//! The command line, up to where a command would begin.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use prkdb::commands::cli;

/// Arguments with line breaks between.
pub fn run(data: &[u8]) {
    let words = data.split(|byte| *byte == b'\n').take(24);
    let words = words.map(|word| OsString::from_vec(word.to_vec()));
    let words = [OsString::from("prkdb")].into_iter().chain(words);
    match cli().try_get_matches_from(words) {
        Ok(matches) => assert!(matches.subcommand_name().is_some(), "a command is named"),
        Err(error) => assert!((0..=2).contains(&error.exit_code()), "{error}"),
    }
}

/// Commands with values of every kind.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        "put\nuser:101\nvalue\n--timeout\n5s\n--server\n127.0.0.1:9090",
        "get\n-o\njson\nk",
        "batch-put\ndata.txt\n--separator=,\n--batch-bytes\n1MiB\n--rate\n100/s",
        "produce\nevents\n--create=1\n-",
        "consume\nevents\n--from\n@2013-06-01\n--format\n%k\\n",
        "scan\n--columns\nkey,value\n--limit\n3\n--prefix\na",
        "serve\n--listen\n127.0.0.1:0\n--http\nnone\n--election-timeout\n500ms..800ms",
        "wal\ndump\n--data-dir\nd\n--shard\n1",
        "backup\nrestore\nb\n--data-dir\nd",
        "collection\ncreate\nc\n--partitions\n3",
        "metrics\n--match\n^prkdb_.*",
        "help\nexit-codes",
        "puut",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}
