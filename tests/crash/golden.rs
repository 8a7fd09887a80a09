//! The bytes of the log are frozen: `tests/golden/log` holds a small one as hex, under a sentence in
//! prose, and what the second decoder reads in it. `UPDATE=1` writes both.

use std::{fmt::Write as _, fs, path::PathBuf, sync::Arc};

use bytes::Bytes;
use prkdb::storage::log::entry::{Entry, Frame, LogId, Payload, Vote, Write};
use prkdb_types::{Batch, ProducerStamp};

use super::{
    damage::files_of,
    decoder::Segment,
    model::{LogModel, Op},
    power::clear,
    rig::{Rig, new_disk},
};

const PROSE: &str =
    "A log of two segments with an entry of every kind; rows of zeros are left out.";

fn frame(partition: u32, base_offset: u64, value: &[u8]) -> Frame {
    let stamp = ProducerStamp { id: 42, epoch: 1, base_sequence: 9 };
    let mut batch =
        Batch::single(stamp, 1_385_251_200_000, Some(b"key"), Some(value), &[]).unwrap();
    batch.set_base_offset(base_offset);
    Frame { partition, record_count: 1, base_offset, batch }
}

fn write(index: u64, sequence: u64, is_void: bool, frames: Vec<Frame>) -> Op {
    let write = Write { sequencer_term: 3, sequence, append_time_ms: 1_385_251_200_001, frames };
    let payload = Payload::Normal(Arc::new(write));
    Op::Entry(Entry { id: LogId { term: 3, index }, is_void, payload })
}

/// Returns one log of every kind of entry.
fn ops() -> Vec<Op> {
    let id = |index| LogId { term: 3, index };
    let entry = |index, payload| Op::Entry(Entry { id: id(index), is_void: false, payload });
    vec![
        Op::Vote(Vote { term: 3, replica: 1, is_committed: false }),
        Op::Vote(Vote { term: 3, replica: 1, is_committed: true }),
        entry(0, Payload::Blank),
        entry(1, Payload::Membership(Bytes::from_static(b"\x0a\x05three"))),
        write(2, 1, false, vec![frame(7, 0, b"one")]),
        write(3, 2, false, vec![frame(7, 1, b"two"), frame(8, 0, b"three"), frame(7, 2, b"")]),
        write(4, 9, true, vec![frame(7, 3, b"void")]),
        write(5, 3, false, vec![frame(7, 3, &[0xab; 11_000])]),
        Op::Truncate(Some(id(4))),
        Op::Purge(id(1)),
        Op::Sync,
        write(5, 3, false, vec![frame(7, 3, b"again")]),
    ]
}

fn golden_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/log")
}

fn check_file(name: &str, text: &str) {
    let path = golden_dir().join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(golden_dir()).unwrap();
        fs::write(&path, text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "{}", path.display());
}

fn to_hex(files: &[(String, Vec<u8>)]) -> String {
    let mut text = format!("{PROSE}\n");
    for (name, bytes) in files {
        writeln!(text, "file {name} {}", bytes.len()).unwrap();
        for (row, line) in bytes.chunks(16).enumerate() {
            if line.iter().any(|byte| *byte != 0) {
                write!(text, "{:06x} ", row * 16).unwrap();
                for byte in line {
                    write!(text, " {byte:02x}").unwrap();
                }
                text.push('\n');
            }
        }
    }
    text
}

fn from_hex(text: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for line in text.lines().skip(1) {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap();
        if first == "file" {
            let name = words.next().unwrap().to_owned();
            files.push((name, vec![0; words.next().unwrap().parse().unwrap()]));
            continue;
        }
        let start = usize::from_str_radix(first, 16).unwrap();
        let (_, bytes) = files.last_mut().unwrap();
        for (at, word) in words.enumerate() {
            bytes[start + at] = u8::from_str_radix(word, 16).unwrap();
        }
    }
    files
}

#[test]
fn a_log_has_the_bytes_it_always_had_and_another_decoder_reads_them() {
    let disk = new_disk();
    let mut rig = Rig::open(&disk, clear(&disk), LogModel::default()).unwrap();
    for (at, op) in ops().into_iter().enumerate() {
        rig.give(op).unwrap();
        // The first four go in one group, the others in one each.
        if at >= 3 {
            rig.drive().unwrap();
        }
        rig.log.set_committed(rig.log.state().last);
    }
    let files = files_of(&disk);
    check_file("every_kind.hex", &to_hex(&files));
    // What is decoded comes from the golden file, not from the log that was just written.
    let text = fs::read_to_string(golden_dir().join("every_kind.hex")).unwrap();
    let said: String = from_hex(&text)
        .iter()
        .map(|(name, bytes)| Segment::decode(name, bytes).unwrap().describe())
        .collect();
    check_file("every_kind.txt", &format!("What every_kind.hex says, entry by entry.\n{said}"));
}
