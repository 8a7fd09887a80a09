//! Rejected records as they stood, and the reasons beside them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf, absolute},
};

use super::{checkpoint::Rejected, job::Job, read::Place};
use crate::commands::{
    failure::{Failure, Result},
    output::one_line,
};

/// The two files.
pub(crate) struct Rejects {
    records: Out,
    reasons: Out,
    terminator: Option<u8>,
}

struct Out {
    path: PathBuf,
    writer: BufWriter<File>,
    length: u64,
}

/// Refuses files that are the input or the checkpoint: opening them would empty those.
///
/// # Errors
/// 2.
pub(crate) fn check(job: &Job<'_>) -> Result {
    let Some(records) = &job.run.rejects else { return Ok(()) };
    let input = if job.input.is_stdin() { stdin() } else { file(&job.input.file) };
    let checkpoint = job.run.checkpoint.as_deref();
    for path in [records.clone(), reasons(records)] {
        let own = file(&path);
        let is = |other: Option<Identity>| own.is_some() && own == other;
        let named = |other: &Path| match (absolute(&path), absolute(other)) {
            (Ok(path), Ok(other)) => path == other,
            _ => false,
        };
        let what = if is(input) {
            "the input"
        } else if checkpoint.is_some_and(|other| named(other) || is(file(other))) {
            "the checkpoint"
        } else {
            continue;
        };
        let message = format!("--rejects: {} is {what}", path.display());
        return Err(Failure::usage(message).hint("name another file").into());
    }
    Ok(())
}

/// Device and number of a file on it.
type Identity = (u64, u64);

fn file(path: &Path) -> Option<Identity> {
    identity(&fs::metadata(path).ok()?)
}

/// Standard input, where it is a file.
fn stdin() -> Option<Identity> {
    let file = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
    identity(&file.metadata().ok()?)
}

/// `None` for what cannot be emptied.
fn identity(metadata: &fs::Metadata) -> Option<Identity> {
    metadata.is_file().then(|| (metadata.dev(), metadata.ino()))
}

fn reasons(records: &Path) -> PathBuf {
    let mut reasons = records.as_os_str().to_owned();
    reasons.push(".reasons");
    PathBuf::from(reasons)
}

impl Rejects {
    /// Opens the files, empty or cut to what a checkpoint knows of them. `terminator` ends a record
    /// that has no end of its own.
    ///
    /// # Errors
    /// 13.
    pub(crate) fn open(path: &Path, known: Rejected, terminator: Option<u8>) -> Result<Self> {
        Ok(Self {
            records: Out::open(path.to_path_buf(), known.bytes)?,
            reasons: Out::open(reasons(path), known.reasons_bytes)?,
            terminator,
        })
    }

    /// Writes the first row, so that the file can be read as the input was.
    ///
    /// # Errors
    /// 13.
    pub(crate) fn header_row(&mut self, row: &[u8]) -> Result {
        if self.records.length == 0 { self.records.write(row) } else { Ok(()) }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// 13.
    pub(crate) fn add(&mut self, place: Place, raw: &[u8], reason: &str) -> Result {
        self.records.write(raw)?;
        if let Some(terminator) =
            self.terminator.filter(|end| !raw.is_empty() && raw.last() != Some(end))
        {
            self.records.write(&[terminator])?;
        }
        self.reasons.write(format!("{}\t{}\n", place.line + 1, one_line(reason)).as_bytes())
    }

    /// Writes everything to the files and returns their lengths.
    ///
    /// # Errors
    /// 13.
    pub(crate) fn sync(&mut self) -> Result<(u64, u64)> {
        Ok((self.records.sync()?, self.reasons.sync()?))
    }
}

impl Out {
    fn open(path: PathBuf, length: u64) -> Result<Self> {
        let open = || -> io::Result<File> {
            let mut file =
                OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            file.set_len(length)?;
            io::Seek::seek(&mut file, io::SeekFrom::Start(length))?;
            Ok(file)
        };
        let file =
            open().map_err(|error| Failure::io(format_args!("open {}", path.display()), &error))?;
        Ok(Self { path, writer: BufWriter::new(file), length })
    }

    fn write(&mut self, bytes: &[u8]) -> Result {
        let written = self.writer.write_all(bytes);
        written.map_err(|error| self.failed(&error))?;
        self.length += u64::try_from(bytes.len()).unwrap_or(0);
        Ok(())
    }

    fn sync(&mut self) -> Result<u64> {
        let synced = self.writer.flush().and_then(|()| self.writer.get_ref().sync_data());
        synced.map_err(|error| self.failed(&error))?;
        Ok(self.length)
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::io(format_args!("write {}", self.path.display()), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_stay_as_they_were_and_can_be_cut_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let place = |line| Place { line, ..Place::default() };
        let mut rejects = Rejects::open(&path, Rejected::default(), Some(b'\n')).unwrap();
        rejects.add(place(1), b"bad\r\n", "no separator").unwrap();
        let (bytes, reasons_bytes) = rejects.sync().unwrap();
        rejects.add(place(8), b"worse", "a\tb").unwrap();
        rejects.sync().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"bad\r\nworse\n");
        let reasons = fs::read_to_string(dir.path().join("r.reasons")).unwrap();
        assert_eq!(reasons, "2\tno separator\n9\ta\\tb\n");
        let known = Rejected { byte_offset: 0, bytes, reasons_bytes };
        Rejects::open(&path, known, Some(b'\n')).unwrap().sync().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"bad\r\n");
    }
}
