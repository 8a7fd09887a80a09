//! A file of sections, each with a kind, a number and a checksum.
//!
//! | at | size | field | |
//! |---|---|---|---|
//! | 0 | 4 | magic | `PrkC` |
//! | 4 | 1 | format | 1 |
//! | 5 | 3 | zero | |
//! | 8 | 8 | log id | |
//! | 16 | 8 | term | of the entry |
//! | 24 | 8 | index | of the entry |
//! | 32 | 4 | zero | |
//! | 36 | 4 | CRC | of 0..36 |
//!
//! Then sections: kind u8, zero 3, length u32, number u32 from 0, CRC u32 of these twelve bytes and the
//! content, content. The last one has kind [`Kind::End`] and says how many there are. All numbers are
//! little-endian; the CRCs are CRC32C, seeded with the log id and the index.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use crate::storage::{
    disk::DiskFile,
    log::{
        entry::LogId,
        header::{Seed, array_at},
    },
};

pub(super) const MAGIC: [u8; 4] = *b"PrkC";
pub(super) const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 40;
const SECTION_BYTES: usize = 16;
/// After so many bytes they are synced, so that the log's syncs find little of it to wait for.
const SYNC_BYTES: u64 = 8 << 20;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The applied state without windows and keys.
    State,
    /// Windows of producers.
    Windows,
    /// The index of streams.
    Streams,
    /// Keys of a collection.
    Keys,
    /// How many sections there are before it.
    End,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::State => 1,
            Self::Windows => 2,
            Self::Streams => 3,
            Self::Keys => 4,
            Self::End => 9,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        let all = [Self::State, Self::Windows, Self::Streams, Self::Keys, Self::End];
        all.into_iter().find(|kind| kind.byte() == byte)
    }
}

/// Writes sections.
pub(super) struct Writer {
    file: Arc<dyn DiskFile>,
    seed: Seed,
    position: u64,
    synced: u64,
    number: u32,
}

impl Writer {
    /// Begins a file.
    pub(super) fn begin(file: Arc<dyn DiskFile>, log_id: u64, at: LogId) -> io::Result<Self> {
        let seed = Seed::new(log_id, at.index);
        let mut header = [0; HEADER_BYTES];
        header[0..4].copy_from_slice(&MAGIC);
        header[4] = FORMAT;
        header[8..16].copy_from_slice(&log_id.to_le_bytes());
        header[16..24].copy_from_slice(&at.term.to_le_bytes());
        header[24..32].copy_from_slice(&at.index.to_le_bytes());
        let crc = seed.checksum(&[&header[..36]]);
        header[36..40].copy_from_slice(&crc.to_le_bytes());
        file.write_at(0, &[IoSlice::new(&header)])?;
        Ok(Self { file, seed, position: HEADER_BYTES as u64, synced: 0, number: 0 })
    }

    /// Adds a section.
    pub(super) fn section(&mut self, kind: Kind, content: &[u8]) -> io::Result<()> {
        let len = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut head = [0; SECTION_BYTES];
        head[0] = kind.byte();
        head[4..8].copy_from_slice(&len.to_le_bytes());
        head[8..12].copy_from_slice(&self.number.to_le_bytes());
        let crc = self.seed.checksum(&[&head[..12], content]);
        head[12..16].copy_from_slice(&crc.to_le_bytes());
        self.file.write_at(self.position, &[IoSlice::new(&head), IoSlice::new(content)])?;
        self.position += (SECTION_BYTES + content.len()) as u64;
        self.number += 1;
        if self.position - self.synced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.synced = self.position;
        }
        Ok(())
    }

    /// Ends the file, makes it durable and returns its size.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        let count = self.number.to_le_bytes();
        self.section(Kind::End, &count)?;
        self.file.sync_all()?;
        Ok(self.position)
    }
}

/// Why sections cannot be read.
#[derive(Debug)]
pub(super) enum Fault {
    /// The disk says so.
    Io(io::Error),
    /// What is there is not what was written.
    Damaged,
    /// A later version wrote it.
    Format(u8),
}

/// Reads sections.
#[derive(Debug)]
pub(super) struct Reader {
    file: Arc<dyn DiskFile>,
    seed: Seed,
    len: u64,
    position: u64,
    number: u32,
}

impl Reader {
    /// Begins to read a file of `len` bytes that should be of that log and entry.
    pub(super) fn begin(
        file: Arc<dyn DiskFile>,
        len: u64,
        log_id: u64,
        at: LogId,
    ) -> Result<Self, Fault> {
        let mut header = [0; HEADER_BYTES];
        let read = file.read_at(0, &mut header).map_err(Fault::Io)?;
        let seed = Seed::new(log_id, at.index);
        let word = |at| u64::from_le_bytes(array_at(&header, at));
        let crc = u32::from_le_bytes(array_at(&header, 36));
        if read < HEADER_BYTES
            || header[0..4] != MAGIC
            || seed.checksum(&[&header[..36]]) != crc
            || (word(8), word(16), word(24)) != (log_id, at.term, at.index)
        {
            return Err(Fault::Damaged);
        }
        if header[4] != FORMAT {
            return Err(Fault::Format(header[4]));
        }
        Ok(Self { file, seed, len, position: HEADER_BYTES as u64, number: 0 })
    }

    /// Reads the next section into `content`. `None`: that was the last one.
    pub(super) fn next(&mut self, content: &mut Vec<u8>) -> Result<Option<Kind>, Fault> {
        let mut head = [0; SECTION_BYTES];
        self.read(&mut head)?;
        let len = u32::from_le_bytes(array_at(&head, 4));
        let number = u32::from_le_bytes(array_at(&head, 8));
        // A length is believed only within the file.
        if number != self.number || u64::from(len) > self.len.saturating_sub(self.position) {
            return Err(Fault::Damaged);
        }
        content.resize(usize::try_from(len).map_err(|_| Fault::Damaged)?, 0);
        self.read(content)?;
        let crc = u32::from_le_bytes(array_at(&head, 12));
        if self.seed.checksum(&[&head[..12], content]) != crc {
            return Err(Fault::Damaged);
        }
        self.number += 1;
        match Kind::from_byte(head[0]) {
            Some(Kind::End) => {
                let is_whole = content.as_slice() == number.to_le_bytes();
                if is_whole && self.position == self.len { Ok(None) } else { Err(Fault::Damaged) }
            }
            Some(kind) => Ok(Some(kind)),
            // Its checksum holds.
            None => Err(Fault::Format(head[0])),
        }
    }

    /// Reads the next section of a kind into `content`; others are passed over and not checked.
    pub(super) fn next_of(&mut self, kind: Kind, content: &mut Vec<u8>) -> Result<(), Fault> {
        loop {
            let mut head = [0; SECTION_BYTES];
            let start = self.position;
            self.read(&mut head)?;
            if head[0] == kind.byte() {
                self.position = start;
                return self.next(content).map(drop);
            }
            let len = u64::from(u32::from_le_bytes(array_at(&head, 4)));
            if head[0] == Kind::End.byte() || len > self.len.saturating_sub(self.position) {
                return Err(Fault::Damaged);
            }
            self.position += len;
            self.number += 1;
        }
    }

    /// Returns how many bytes were read.
    pub(super) fn bytes(&self) -> u64 {
        self.position
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), Fault> {
        let read = self.file.read_at(self.position, into).map_err(Fault::Io)?;
        if read < into.len() {
            return Err(Fault::Damaged);
        }
        self.position += read as u64;
        Ok(())
    }
}
