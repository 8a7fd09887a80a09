//! Edits of a directory, decided by bytes; checksums are made right behind them, unless that is what is
//! to be wrong.

use super::{base::File, seal, source::Source};

/// Which files may be edited.
pub type Chosen = fn(&str) -> bool;

/// A file was named whose checksums stay as they are.
const AS_IT_IS: u8 = 0x80;

/// Returns the number that the name of a segment or a sidecar ends with, and its log.
fn numbers(name: &str) -> Option<(u64, u64)> {
    let (log_id, rest) = name.split_once('-')?;
    let (number, _) = rest.split_once('.')?;
    Some((u64::from_str_radix(log_id, 16).ok()?, number.parse().ok()?))
}

/// Makes the checksums of every file right; those of segments are chained.
fn seal_all(files: &mut [File], is_left: &[bool]) {
    let mut before = 0;
    for (number, (name, content)) in files.iter_mut().enumerate() {
        let ids = numbers(name);
        match (ids, name.as_str()) {
            (_, "MANIFEST") if !is_left[number] => seal::manifest(content),
            (Some((log_id, number_of)), name) if name.ends_with(".log") && !is_left[number] => {
                before = seal::segment(content, log_id, number_of, before);
            }
            (Some((log_id, number_of)), name) if name.ends_with(".index") && !is_left[number] => {
                seal::sidecar(content, log_id, number_of);
            }
            (Some((log_id, index)), name) if name.ends_with(".checkpoint") && !is_left[number] => {
                seal::checkpoint(content, log_id, index);
            }
            _ => {}
        }
    }
}

/// Returns where the parts of a file begin: entries, sections, or bytes.
fn parts(name: &str, content: &[u8]) -> Vec<usize> {
    if name.ends_with(".log") {
        return seal::entries(content);
    }
    if name.ends_with(".checkpoint") {
        return seal::sections(content).iter().map(|(start, _)| *start).collect();
    }
    Vec::new()
}

/// Returns the files as the bytes say.
///
/// An edit is a file, a kind, and what the kind takes. Places are counted from the start of a part of the
/// file, so that a byte is enough for a field of a header.
pub fn edited(base: &[File], chosen: Chosen, data: &[u8]) -> Vec<File> {
    let mut files = base.to_vec();
    let mut is_left = vec![false; files.len()];
    let open: Vec<usize> = (0..files.len()).filter(|at| chosen(&files[*at].0)).collect();
    let mut source = Source::new(data);
    let mut edits = 0;
    while !source.is_empty() && edits < 24 && !open.is_empty() {
        edits += 1;
        let which = source.byte();
        let file = open[usize::from(which & !AS_IT_IS) % open.len()];
        is_left[file] |= which & AS_IT_IS != 0;
        let (name, content) = &mut files[file];
        edit(name, content, &mut source);
    }
    // What was made larger than any file of a test would be tells nothing more.
    for (_, content) in &mut files {
        content.truncate(96 << 10);
    }
    seal_all(&mut files, &is_left);
    files.retain(|(name, content)| !(content.is_empty() && name.ends_with(".log")));
    files
}

fn edit(name: &str, content: &mut Vec<u8>, source: &mut Source<'_>) {
    let kind = source.below(10);
    let starts = parts(name, content);
    let part = usize::from(source.byte());
    let at = match starts.get(part % starts.len().max(1)) {
        Some(start) => start + usize::from(source.byte()),
        None => part + (usize::from(source.byte()) << 8),
    };
    let at = at.min(content.len());
    let mut overwrite = |bytes: &[u8]| {
        let end = (at + bytes.len()).min(content.len());
        content[at..end].copy_from_slice(&bytes[..end - at]);
    };
    match kind {
        0 => overwrite(&[source.byte()]),
        1 => overwrite(&source.long().to_le_bytes()[..4]),
        2 => overwrite(&source.long().to_le_bytes()),
        3 => overwrite(source.piece()),
        4 => content.truncate(at),
        5 => {
            content.splice(at..at, source.piece().iter().copied());
        }
        6 => {
            let end = (at + usize::from(source.short())).min(content.len());
            content.drain(at..end);
        }
        7 => {
            // A part once more, somewhere else.
            let from = usize::from(source.short()).min(content.len());
            let end = (from + usize::from(source.short())).min(content.len());
            let copied = content[from..end].to_vec();
            content.splice(at..at, copied);
        }
        8 => {
            let end = (at + usize::from(source.short())).min(content.len());
            content[at..end].fill(0);
        }
        _ => {
            content.clear();
            content.extend_from_slice(source.part());
        }
    }
}
