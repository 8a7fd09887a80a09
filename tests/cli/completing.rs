//! Completion that asks a node: names, in time, and not a word where there is none.

use std::{fs, net::TcpListener, process::Command, time::Duration, time::Instant};

use crate::{
    fake::Fake,
    support::{Home, Said, said},
};

/// Asks as the script for fish does: the last word is the one that is completed.
fn complete(home: &Home, server: &str, words: &[&str]) -> Said {
    let line = [&["--", "prkdb"], words].concat();
    let cache = home.dir.path().join("cache");
    let mut command = home.command(line);
    said(command.env("COMPLETE", "fish").env("PRKDB_SERVER", server).env("XDG_CACHE_HOME", cache))
}

#[test]
fn names_of_collections_are_completed_where_they_are_wanted() {
    let node = Fake::new();
    for name in ["flights", "flowers", "zoo"] {
        node.run(&format!("collection create {name}"));
    }
    let server = node.address.to_string();
    for words in [
        &["scan", "-c", "fl"][..],
        &["get", "--collection", "fl"],
        &["batch-put", "--collection=fl"],
        &["produce", "fl"],
        &["consume", "fl"],
        &["collection", "describe", "fl"],
        &["topic", "alter", "fl"],
        &["collection", "drop", "fl"],
    ] {
        let said = complete(&node.home, &server, words);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{words:?}");
        let text = said.text();
        assert!(text.contains("flights") && text.contains("flowers"), "{words:?}\n{text}");
        assert!(!text.contains("zoo"), "{words:?}\n{text}");
    }
    let commands = complete(&node.home, &server, &["batch"]).text();
    assert!(commands.starts_with("batch-put\t"), "{commands}");
    let elsewhere = complete(&node.home, "127.0.0.1:1", &["-s", &server, "consume", "zo"]);
    assert!(elsewhere.text().starts_with("zoo"), "{}", elsewhere.text());
}

#[test]
fn an_answer_is_kept_for_a_moment() {
    let node = Fake::new();
    let server = node.address.to_string();
    assert_eq!(complete(&node.home, &server, &["consume", "d"]).text(), "default\n");
    let dir = node.home.dir.path().join("cache/prkdb");
    let file = fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read_to_string(&file).unwrap(), "default\n");
    fs::write(&file, "double\n").unwrap();
    assert_eq!(complete(&node.home, &server, &["consume", "d"]).text(), "double\n");
    fs::File::options()
        .append(true)
        .open(&file)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    assert_eq!(complete(&node.home, &server, &["consume", "d"]).text(), "default\n");
}

#[test]
fn without_a_server_nothing_is_said_and_soon() {
    let home = Home::new();
    // It takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    for server in ["127.0.0.1:1", &silent, "not an address"] {
        let begun = Instant::now();
        let said = complete(&home, server, &["consume", "x"]);
        assert_eq!(
            (said.code, said.text().as_str(), said.stderr.as_str()),
            (0, "", ""),
            "{server}"
        );
        // 300 ms, and what a machine that has other things to do takes to start a program.
        assert!(begun.elapsed() < Duration::from_millis(1500), "{server}: {:?}", begun.elapsed());
    }
    assert!(!home.dir.path().join("cache").exists());
}

#[test]
fn bash_completes_a_line_by_the_script() {
    let node = Fake::new();
    let dir = node.home.dir.path();
    fs::create_dir(dir.join("bin")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_prkdb"), dir.join("bin/prkdb")).unwrap();
    let script = "source <(prkdb completions bash --dynamic) && \
        COMP_WORDS=(prkdb consume de) COMP_CWORD=2 COMP_TYPE=9 && \
        _clap_complete_prkdb prkdb de consume && echo \"${COMPREPLY[@]}\"";
    let output = Command::new("bash")
        .args(["-c", script])
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", dir.join("bin").display()))
        .env("HOME", dir)
        .env("PRKDB_SERVER", node.address.to_string())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), "default");
}
