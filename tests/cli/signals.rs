//! Signals, and memory that does not grow with the input.

use std::{
    fs::File,
    io::{Seek as _, SeekFrom, Write as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{fake::Fake, support::lines};

/// Prepares the program itself, without a helper that waits for it.
fn program(node: &Fake, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prkdb"));
    command
        .env_clear()
        .env("HOME", node.home.dir.path())
        .env("PRKDB_SERVER", node.address.to_string())
        .current_dir(node.home.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .args(args);
    command
}

#[test]
fn an_interrupted_load_says_how_to_go_on_and_goes_on() {
    let node = Fake::new();
    let lines = lines(5000, |n| format!("k{n},v{n}"));
    node.write("d.txt", lines);
    let load = ["batch-put", "d.txt", "--checkpoint", "c.json", "--batch-size", "10"];
    for (signal, code, is_first) in [("-INT", 130, true), ("-TERM", 143, false)] {
        let before = node.state.lock().unwrap().applied;
        let resume: &[&str] = if is_first { &[] } else { &["--resume"] };
        let args = [&load[..], &["--rate", "1000/s"], resume].concat();
        let child = program(&node, &args).spawn().unwrap();
        let begun = Instant::now();
        while node.state.lock().unwrap().applied < before + 5 {
            assert!(begun.elapsed() < Duration::from_secs(30), "nothing was put");
            std::thread::yield_now();
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(
            said.contains("hint: resume with: prkdb batch-put d.txt --checkpoint c.json"),
            "{said}"
        );
        assert!(said.trim_end().ends_with("--resume"), "{said}");
        assert!(String::from_utf8(output.stdout).unwrap().contains(" put, 0 rejected"));
    }
    let resumed = node.run(&format!("{} --resume", load.join(" ")));
    assert_eq!(resumed.code, 0, "{}", resumed.stderr);
    assert!(resumed.text().starts_with("5000 put, 0 rejected"), "{}", resumed.text());
    let state = node.state.lock().unwrap();
    assert_eq!(state.keys.len(), 5000);
    assert_eq!(state.keys.values().map(|(_, version)| *version).max(), Some(4999));
}

#[test]
fn an_interrupted_run_of_events_goes_on_without_a_repeat() {
    let node = Fake::new();
    node.write("d.log", lines(3000, |n| format!("event {n}")));
    let load = ["produce", "default", "d.log", "--checkpoint", "c.json", "--batch-size", "10"];
    let child = program(&node, &[&load[..], &["--rate", "1000/s"]].concat()).spawn().unwrap();
    let begun = Instant::now();
    while node.state.lock().unwrap().applied < 5 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing was appended");
        std::thread::yield_now();
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    let hint = "hint: resume with: prkdb produce default d.log --checkpoint c.json";
    assert!(said.contains(hint) && said.trim_end().ends_with("--resume"), "{said}");
    let resumed = node.run(&format!("{} --rate 1000000/s", load.join(" ")));
    assert_eq!(resumed.code, 7, "{}", resumed.stderr);
    let resumed = node.run(&format!("{} --resume", load.join(" ")));
    assert_eq!(resumed.code, 0, "{}", resumed.stderr);
    assert!(resumed.text().starts_with("3000 records in 3 partitions, "), "{}", resumed.text());
    let state = node.state.lock().unwrap();
    assert_eq!(state.events.values().map(Vec::len).sum::<usize>(), 3000);
}

#[test]
fn an_interrupted_load_without_an_answer_says_so_and_goes_on() {
    let node = Fake::new();
    node.write("d.txt", lines(100, |n| format!("k{n},v{n}")));
    {
        let mut state = node.state.lock().unwrap();
        (state.fails_after, state.loses_last_answer) = (Some(1), true);
    }
    let load = ["batch-put", "d.txt", "--checkpoint", "c.json", "--batch-size", "10"];
    let args = [&load[..], &["--concurrency", "1", "-o", "json"]].concat();
    let child = program(&node, &args).spawn().unwrap();
    let begun = Instant::now();
    while node.state.lock().unwrap().applied < 1 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing was put");
        std::thread::yield_now();
    }
    // Whatever happens to the first batch, another run can go on.
    assert!(node.home.dir.path().join("c.json").exists());
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("records that were sent may or may not be stored"), "{said}");
    assert!(said.contains("hint: resume with: prkdb batch-put d.txt"), "{said}");
    let json: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(json["error"]["outcome"], "unknown", "{said}");
    node.state.lock().unwrap().fails_after = None;
    let resumed = node.run(&format!("{} --resume", load.join(" ")));
    assert_eq!(resumed.code, 0, "{}", resumed.stderr);
    let state = node.state.lock().unwrap();
    assert_eq!((state.keys.len(), state.duplicates), (100, 1));
    assert_eq!(state.keys.values().map(|(_, version)| *version).max(), Some(99));
}

#[test]
fn a_signal_ends_a_command_whose_reader_pauses() {
    let node = Fake::new();
    {
        let mut state = node.state.lock().unwrap();
        for key in 0..4_u8 {
            state.keys.insert(vec![key], (vec![b'x'; 1 << 20], 0));
        }
    }
    let mut child = program(&node, &["scan", "--no-headers"]).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let begun = Instant::now();
    // As much as a pipe holds: the command waits in its write.
    while rustix::io::ioctl_fionread(&stdout).unwrap() < 60_000 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing is printed");
        std::thread::yield_now();
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(143));
    drop(stdout);
}

/// Runs a line of the shell that limits the memory of the program.
fn limited(node: &Fake, kib: u32, args: &str) -> (i32, String, String) {
    let line = format!("ulimit -v {kib}; exec {} {args}", env!("CARGO_BIN_EXE_prkdb"));
    let output = Command::new("sh")
        .args(["-c", &line])
        .env_clear()
        .env("HOME", node.home.dir.path())
        .env("PRKDB_SERVER", node.address.to_string())
        .env("MALLOC_ARENA_MAX", "1")
        .current_dir(node.home.dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_line_of_1_gb_is_a_rejected_record_in_bounded_memory() {
    let node = Fake::new();
    let mut file = File::create(node.home.dir.path().join("d.txt")).unwrap();
    file.write_all(b"a,1\nlong,").unwrap();
    // A hole: it is read as zeroes and takes no room.
    file.seek(SeekFrom::Start(1 << 30)).unwrap();
    file.write_all(b"\nb,2\n").unwrap();
    let (code, stdout, stderr) =
        limited(&node, 400_000, "batch-put d.txt --on-error continue --rejects r");
    assert_eq!(code, 8, "{stderr}");
    assert!(stdout.starts_with("2 put, 1 rejected"), "{stdout}");
    assert!(stderr.contains("d.txt:2: record is longer than"), "{stderr}");
    assert_eq!((node.value("a"), node.value("b")), (Some(b"1".to_vec()), Some(b"2".to_vec())));
}

#[test]
fn a_large_load_takes_no_more_memory_than_a_small_one() {
    let node = Fake::new();
    let value = "x".repeat(8000);
    let mut file =
        std::io::BufWriter::new(File::create(node.home.dir.path().join("d.txt")).unwrap());
    // Few keys, so that the node in memory stays small: what grows would be the client.
    for n in 0..64_000 {
        writeln!(file, "k{},{value}", n % 50).unwrap();
    }
    file.flush().unwrap();
    let (code, stdout, stderr) = limited(&node, 400_000, "batch-put d.txt");
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("64000 put"), "{stdout}");
    let line = "produce default d.txt --format delimited --dry-run --separator=,";
    let (code, stdout, stderr) = limited(&node, 400_000, line);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("64000 records would be produced"), "{stdout}");
}
