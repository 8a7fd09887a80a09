//! The file of a backup: a tar of the shards' files, with what it is of in front and checksums at the end.
//!
//! `backup.json`, then `shard-<number>/<file>` for each file of each shard, then `sha256.json`, which names
//! all before it. Plain, or as a whole compressed with zstd.

use std::{
    collections::BTreeSet,
    io::{self, BufReader, Read, Write},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The name of what a backup is of.
const ABOUT: &str = "backup.json";
/// The name of the checksums.
const SUMS: &str = "sha256.json";
/// The format this version writes.
const FORMAT: u32 = 1;
/// Longest of the two JSON files: a line for each of more segments than there can be.
const JSON_BYTES_MAX: u64 = 64 << 20;
/// Files of a backup, at most: each is a segment or beside one.
const FILES_MAX: usize = 1 << 20;
/// Files are padded to blocks of this size.
const BLOCK: usize = 512;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) format: u32,
    /// The version that made it.
    pub(super) version: String,
    pub(super) cluster_id: String,
    pub(super) node_id: u64,
    pub(super) created_ms: i64,
    pub(super) shards: Vec<AboutShard>,
}

/// A shard, as it was at one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AboutShard {
    pub(super) shard: u32,
    pub(super) term: u64,
    pub(super) index: u64,
}

/// A file and its checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sum {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Sums {
    files: Vec<Sum>,
}

/// A backup that was read whole and found sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Archive {
    pub(super) about: About,
    pub(super) sums: Vec<Sum>,
}

/// Why a file is no backup that can be used.
#[derive(Debug)]
pub(super) enum Fault {
    /// It cannot be read, or what is made of it cannot be written.
    Io(io::Error),
    /// It is damaged, cut short, or no backup.
    Damaged(String),
    /// A later version made it.
    Format(u32),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // The tar and zstd readers say so of bytes that are not theirs.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::Other
                if error.raw_os_error().is_none() =>
            {
                Self::Damaged(error.to_string())
            }
            _ => Self::Io(error),
        }
    }
}

fn damaged(what: impl Into<String>) -> Fault {
    Fault::Damaged(what.into())
}

/// Writes a backup.
pub(super) struct Writer<W: Write> {
    out: W,
    sums: Vec<Sum>,
    open: Option<Open>,
    created_ms: i64,
}

/// The file that is being written.
struct Open {
    name: String,
    bytes: u64,
    left: u64,
    hash: Sha256,
}

impl<W: Write> Writer<W> {
    /// Begins a backup.
    pub(super) fn begin(out: W, about: &About) -> io::Result<Self> {
        let created_ms = about.created_ms;
        let mut writer = Self { out, sums: Vec::new(), open: None, created_ms };
        writer.whole(ABOUT, &serde_json::to_vec_pretty(about)?)?;
        Ok(writer)
    }

    /// Begins the next file of a shard.
    pub(super) fn file(&mut self, shard: u32, name: &str, bytes: u64) -> io::Result<()> {
        self.end_file()?;
        self.start(format!("shard-{shard:010}/{name}"), bytes)
    }

    /// Adds bytes to the file.
    pub(super) fn data(&mut self, data: &[u8]) -> io::Result<()> {
        let open = self.open.as_mut().ok_or_else(|| io::Error::other("data without a file"))?;
        open.left = open
            .left
            .checked_sub(data.len() as u64)
            .ok_or_else(|| io::Error::other(format!("{} is longer than announced", open.name)))?;
        open.hash.update(data);
        self.out.write_all(data)
    }

    /// Ends the backup; returns the writer below, and how many files there are of how many bytes.
    pub(super) fn finish(mut self) -> io::Result<(W, usize, u64)> {
        self.end_file()?;
        let (files, bytes) = (self.sums.len(), self.sums.iter().map(|sum| sum.bytes).sum());
        let sums = Sums { files: std::mem::take(&mut self.sums) };
        self.whole(SUMS, &serde_json::to_vec_pretty(&sums)?)?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok((self.out, files, bytes))
    }

    fn whole(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.start(name.to_owned(), content.len() as u64)?;
        self.data(content)?;
        self.end_file()
    }

    fn start(&mut self, name: String, bytes: u64) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_path(&name)?;
        header.set_size(bytes);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(self.created_ms / 1000).unwrap_or_default());
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        self.open = Some(Open { name, bytes, left: bytes, hash: Sha256::new() });
        Ok(())
    }

    fn end_file(&mut self) -> io::Result<()> {
        let Some(Open { name, bytes, left, hash }) = self.open.take() else { return Ok(()) };
        if left > 0 {
            return Err(io::Error::other(format!("{name} is {left} bytes short")));
        }
        let used = usize::try_from(bytes % BLOCK as u64).unwrap_or_default();
        if used > 0 {
            self.out.write_all([0; BLOCK].get(used..).unwrap_or_default())?;
        }
        self.sums.push(Sum { name, bytes, sha256: hex::encode(hash.finalize()) });
        Ok(())
    }
}

/// Reads a backup to its end and checks it. `each` is handed every file of a shard: its number, its name
/// and its content, which it reads as far as it likes.
pub(super) fn read(
    input: impl Read,
    mut each: impl FnMut(u32, &str, &mut dyn Read) -> Result<(), Fault>,
) -> Result<Archive, Fault> {
    let mut input = BufReader::with_capacity(1 << 20, input);
    let magic = io::BufRead::fill_buf(&mut input)?.first_chunk().copied();
    if magic == Some(ZSTD_MAGIC) {
        read_tar(zstd::stream::read::Decoder::with_buffer(input)?, &mut each)
    } else {
        read_tar(input, &mut each)
    }
}

fn read_tar(
    input: impl Read,
    each: &mut dyn FnMut(u32, &str, &mut dyn Read) -> Result<(), Fault>,
) -> Result<Archive, Fault> {
    let mut tar = tar::Archive::new(input);
    let (mut about, mut found): (Option<About>, Vec<Sum>) = (None, Vec::new());
    let mut names = BTreeSet::new();
    // Raw: what extends the next header is no file of a backup, and would be read whole.
    for entry in tar.entries()?.raw(true) {
        let entry = entry?;
        if found.len() >= FILES_MAX {
            return Err(damaged("more files than a backup can have"));
        }
        let name = checked_name(&entry)?;
        let bytes = entry.header().size()?;
        if !names.insert(name.clone()) {
            return Err(damaged(format!("'{name}' comes twice")));
        }
        let mut content = Hashing { inner: entry, hash: Sha256::new(), bytes: 0 };
        match (name.as_str(), &about) {
            (ABOUT, None) => about = Some(parse_about(&json(&mut content, bytes)?)?),
            (_, None) => return Err(damaged(format!("no backup: it does not begin with {ABOUT}"))),
            (SUMS, Some(about)) => {
                let sums: Sums = serde_json::from_slice(&json(&mut content, bytes)?)
                    .map_err(|error| damaged(format!("{SUMS}: {error}")))?;
                if let Some(wrong) = difference(&sums.files, &found) {
                    return Err(damaged(wrong));
                }
                return Ok(Archive { about: about.clone(), sums: found });
            }
            (name, Some(_)) => {
                let (shard, file) = shard_file(name)
                    .ok_or_else(|| damaged(format!("a file that belongs to no shard: '{name}'")))?;
                each(shard, file, &mut content)?;
            }
        }
        io::copy(&mut content, &mut io::sink())?;
        if content.bytes != bytes {
            return Err(damaged(format!("'{name}' is cut short")));
        }
        let sha256 = hex::encode(content.hash.finalize());
        found.push(Sum { name, bytes, sha256 });
    }
    Err(damaged(format!("cut short: it does not end with {SUMS}")))
}

fn parse_about(content: &[u8]) -> Result<About, Fault> {
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }
    let wrong = |error: serde_json::Error| damaged(format!("{ABOUT}: {error}"));
    let Versioned { format } = serde_json::from_slice(content).map_err(wrong)?;
    if format != FORMAT {
        return Err(Fault::Format(format));
    }
    serde_json::from_slice(content).map_err(wrong)
}

fn json(content: &mut impl Read, bytes: u64) -> Result<Vec<u8>, Fault> {
    if bytes > JSON_BYTES_MAX {
        return Err(damaged("a description that is too long"));
    }
    let mut read = Vec::new();
    content.take(JSON_BYTES_MAX).read_to_end(&mut read)?;
    Ok(read)
}

/// The first thing in which what was found differs from what should be there.
fn difference(expected: &[Sum], found: &[Sum]) -> Option<String> {
    let differs = expected.iter().zip(found).find(|(expected, found)| expected != found);
    if let Some((expected, found)) = differs {
        if expected.name != found.name {
            return Some(format!("'{}' stands where '{}' should", found.name, expected.name));
        }
        return Some(format!("'{}' is not what was written: its checksum differs", found.name));
    }
    let missing = expected.get(found.len()).map(|sum| format!("'{}' is missing", sum.name));
    missing
        .or_else(|| found.get(expected.len()).map(|sum| format!("'{}' is no part of it", sum.name)))
}

/// Refuses whatever is not a plain file below a shard's folder.
fn checked_name(entry: &tar::Entry<'_, impl Read>) -> Result<String, Fault> {
    let path = entry.path_bytes();
    let name = std::str::from_utf8(&path).map_err(|_| damaged("a name that is not UTF-8"))?;
    if entry.header().entry_type() != tar::EntryType::Regular {
        return Err(damaged(format!("'{}' is no file", name.escape_debug())));
    }
    let is_ours = name == ABOUT || name == SUMS || shard_file(name).is_some();
    if is_ours {
        Ok(name.to_owned())
    } else {
        Err(damaged(format!("a file that belongs to no backup: '{}'", name.escape_debug())))
    }
}

/// `shard-0000000001/MANIFEST`.
fn shard_file(name: &str) -> Option<(u32, &str)> {
    let (folder, file) = name.strip_prefix("shard-")?.split_once('/')?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let is_number = folder.len() == 10 && folder.bytes().all(|byte| byte.is_ascii_digit());
    let is_file = !file.is_empty() && !file.starts_with('.') && file.bytes().all(is_plain);
    (is_number && is_file).then_some((folder.parse().ok()?, file))
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.hash.update(into.get(..read).unwrap_or_default());
        self.bytes += read as u64;
        Ok(read)
    }
}
