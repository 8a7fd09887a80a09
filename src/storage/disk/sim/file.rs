//! One open file of a simulated disk.

use std::{
    fs::File,
    io::{self, IoSlice},
};

use rustix::io::Errno;

use super::{
    SimDisk,
    content::{FILE_BYTES_MAX, byte_count},
    fault::{Call, Verdict},
    state::Inode,
};
use crate::storage::disk::{Access, DiskFile};

/// A handle: it stays valid when the file is renamed or removed.
#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) inode: Inode,
    pub(super) access: Access,
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::Read => Err(Errno::BADF.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let result = match inner.faults.judge(Call::DataSync) {
            Verdict::Go | Verdict::Half => inner.state.sync_file(self.inode),
            Verdict::Ignore => Ok(()),
            Verdict::Fail(errno) => {
                inner.state.fail_sync(self.inode);
                Err(errno.into())
            }
        };
        inner.pass_boundary();
        result
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.check_writable()?;
        let whole = slices.iter().map(|slice| slice.len()).sum();
        let position = place(position, whole)?;
        if whole == 0 {
            return Ok(());
        }
        let mut inner = self.disk.lock();
        let result = match inner.faults.judge(Call::Write) {
            Verdict::Go => inner.state.write(self.inode, position, slices, whole),
            Verdict::Half => inner
                .state
                .write(self.inode, position, slices, whole / 2)
                .and(Err(io::ErrorKind::WriteZero.into())),
            Verdict::Ignore => Ok(()),
            Verdict::Fail(errno) => Err(errno.into()),
        };
        inner.pass_boundary();
        result
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        // A position that no file reaches is behind the end of this one.
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        self.disk.lock().look(|state| Ok(state.content(self.inode)?.read(position, into)))
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.lock().look(|state| Ok(byte_count(state.content(self.inode)?.len())))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let len = place(len, 0)?;
        self.disk.lock().change(Call::SetLen, |state| state.set_len(self.inode, len))
    }

    fn allocate(&self, from: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let len = place(len, 0)?;
        let from = place(from, len)?;
        if len == 0 {
            return Ok(());
        }
        self.disk.lock().change(Call::Allocate, |state| state.allocate(self.inode, from, len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn will_need(&self, _position: u64, _len: u64) {}

    fn map_source(&self) -> Option<&File> {
        None
    }
}

/// Returns a position in memory, if what starts there ends within the longest file.
fn place(position: u64, len: usize) -> io::Result<usize> {
    usize::try_from(position)
        .ok()
        .filter(|start| start.checked_add(len).is_some_and(|end| end <= FILE_BYTES_MAX))
        .ok_or_else(|| Errno::FBIG.into())
}
