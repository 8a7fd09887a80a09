//! What is said of a damaged or torn log.

use std::{fmt::Write as _, path::Path};

use crate::{
    commands::talk::Talk,
    storage::{
        StorageError,
        log::inspect::{Damage, LogReport, Torn},
    },
};

/// Returns the name of a segment's file.
pub(super) fn file(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Returns a count with its noun.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

/// Says what is damaged: file, byte, index, and how much follows.
pub(super) fn damage(shard: u32, damage: &Damage) -> String {
    let index = damage.index.map_or(String::new(), |index| format!(" (index {index})"));
    let records = damage.following.records;
    let follow = if records == 1 { "follows" } else { "follow" };
    let records = count(records, "record", "records");
    let mut line = format!(
        "shard {shard}: segment {}: {} at byte {}{index}, {records} {follow}",
        file(&damage.path),
        damage.problem,
        damage.position,
    );
    if let StorageError::Corrupt { expected, found, .. } = &damage.error {
        // Writing to a String cannot fail.
        let _ = write!(line, ": expected {expected}, found {found}");
    }
    line
}

/// Says that a crash left something behind the end of a log, which is no damage.
pub(super) fn torn(talk: Talk, shard: u32, report: &LogReport) {
    for Torn { path, position, bytes, entries } in &report.torn {
        let bytes = count(*bytes, "byte", "bytes");
        let entries = count(*entries, "entry", "entries");
        talk.notice(&format!(
            "note: shard {shard}: segment {}: a torn tail of {bytes} ({entries}) from byte {position} on: \
             normal after a crash, the next start cuts it",
            file(path)
        ));
    }
}
