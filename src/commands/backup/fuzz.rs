//! What mutated bytes are given to: the file of a backup.

use std::io;

use super::archive::{About, AboutShard, Fault, Writer, read};

/// A file of a backup: its shard, its name, its content.
pub type File = (u32, String, Vec<u8>);

/// Reads a backup whole, and writes what was read again. `None`: it is none.
///
/// # Errors
/// That what was read cannot be written.
pub fn archive(bytes: &[u8]) -> io::Result<Option<(Vec<File>, Vec<u8>)>> {
    let mut files = Vec::new();
    let read = read(bytes, |shard, name, content| {
        let mut whole = Vec::new();
        content.read_to_end(&mut whole).map_err(Fault::Io)?;
        files.push((shard, name.to_owned(), whole));
        Ok(())
    });
    let Ok(archive) = read else { return Ok(None) };
    let written = write(&archive.about, &files)?;
    Ok(Some((files, written)))
}

/// Writes a backup of these files.
///
/// # Errors
/// A name that is none.
pub fn write_archive(files: &[File]) -> io::Result<Vec<u8>> {
    write(&about(), files)
}

/// Returns what a backup says of itself, for examples of one.
pub(super) fn about() -> About {
    About {
        format: 1,
        version: "0.1.0".to_owned(),
        cluster_id: "05".repeat(16),
        node_id: 1,
        created_ms: 1_385_000_000_000,
        shards: vec![AboutShard { shard: 0, term: 1, index: 7 }],
    }
}

fn write(about: &About, files: &[File]) -> io::Result<Vec<u8>> {
    let mut writer = Writer::begin(Vec::new(), about)?;
    for (shard, name, content) in files {
        writer.file(*shard, name, content.len() as u64)?;
        writer.data(content)?;
    }
    writer.finish().map(|(out, _, _)| out)
}
