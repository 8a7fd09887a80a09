//! `consume --format`: what is printed for a record.

use prkdb::commands::fuzz::template;
use prkdb_types::{Batch, DecompressLimit, ProducerStamp};

use super::source::{Source, text};

/// Key, value and the name of a header behind their lengths, and the format.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let (key, value, name) = (source.piece(), source.piece(), text(source.piece()));
    let format = text(source.rest());
    let headers = [(name, value)];
    let batch =
        Batch::single(ProducerStamp::NONE, 1_385_000_000_000, Some(key), Some(value), &headers);
    let batch = batch.expect("it is short");
    let records = batch.records(DecompressLimit::new(1 << 20)).expect("it is not compressed");
    let record = records.get(0).expect("it was just made").expect("there is one");
    let Ok((plain, escaped)) = template(format, &record) else { return };
    let shown = String::from_utf8_lossy(&escaped);
    if !format.contains('\\') && !format.chars().any(char::is_control) {
        assert!(!shown.contains('\u{1b}'), "no control character of a record gets to a terminal");
    }
    assert!(plain.len() <= (format.len() + 1) * (key.len() + 2 * value.len() + name.len() + 40));
}

/// Every code.
pub fn seeds() -> Vec<Vec<u8>> {
    ["%c %p %o %T\\t%k=%v [%h]%%\\n", "%v\\0", "\\x41\\u{e9}%k"]
        .iter()
        .map(|format| [b"\x02k\x1b\x03v\n\xff\x01h", format.as_bytes()].concat())
        .collect()
}
