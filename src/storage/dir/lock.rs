//! The file `LOCK`: one process per data directory.
//!
//! What counts is the `flock`, which ends with the process however it ends; the text in the file
//! (pid, host, boot id, a line each) only tells a second process who holds it. The file is never
//! removed: two processes must not lock two files of the same name.

use std::{fs, fs::TryLockError, io, io::IoSlice, path::Path, sync::Arc};

use super::{DirError, io_error};
use crate::storage::disk::{Access, Disk, DiskFile};

/// The file's name.
pub const LOCK: &str = "LOCK";

/// No holder's text comes near it.
const TEXT_BYTES_MAX: usize = 1024;

/// The process that holds a lock, as far as the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its process id, on its host.
    pub pid: Option<u32>,
    /// The name of its host.
    pub host: Option<String>,
    /// Drawn by its kernel at each start; tells a process id of before a restart.
    pub boot_id: Option<String>,
}

impl Holder {
    fn this_process() -> Self {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        Self {
            pid: Some(std::process::id()),
            host: rustix::system::uname().nodename().to_str().ok().map(str::to_owned),
            boot_id: boot_id.map(|id| id.trim().to_owned()),
        }
    }

    fn to_text(&self) -> String {
        let pid = self.pid.map(|pid| pid.to_string()).unwrap_or_default();
        let host = self.host.as_deref().unwrap_or_default();
        let boot_id = self.boot_id.as_deref().unwrap_or_default();
        format!("pid {pid}\nhost {host}\nboot {boot_id}\n")
    }

    /// Takes what it understands: the text may be half written, or be somebody else's.
    fn from_text(text: &str) -> Self {
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(key, _)| *key == name).map(|(_, value)| value).filter(|v| !v.is_empty())
        };
        Self {
            pid: field("pid").and_then(|pid| pid.parse().ok()),
            host: field("host").map(str::to_owned),
            boot_id: field("boot").map(str::to_owned),
        }
    }
}

/// Locks the directory; the lock lives as long as the file returned. A disk without files of the
/// operating system has one user only and is not locked.
pub(super) fn lock(disk: &dyn Disk, dir: &Path) -> Result<Arc<dyn DiskFile>, DirError> {
    let path = dir.join(LOCK);
    let failed = |source| io_error("lock", &path, source);
    let file = match disk.create(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.open(&path, Access::ReadWrite)
        }
        created => created,
    }
    .map_err(failed)?;
    if let Some(real) = file.map_source() {
        match real.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = read_holder(&*file).map_err(failed)?;
                return Err(DirError::Locked { path: dir.into(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        write_holder(&*file, &Holder::this_process()).map_err(failed)?;
    }
    Ok(file)
}

fn read_holder(file: &dyn DiskFile) -> io::Result<Holder> {
    let mut text = vec![0; TEXT_BYTES_MAX];
    let len = file.read_at(0, &mut text)?;
    text.truncate(len);
    Ok(Holder::from_text(&String::from_utf8_lossy(&text)))
}

fn write_holder(file: &dyn DiskFile, holder: &Holder) -> io::Result<()> {
    let text = holder.to_text();
    // In this order a reader never finds the file empty.
    file.write_at(0, &[IoSlice::new(text.as_bytes())])?;
    file.truncate(u64::try_from(text.len()).map_err(io::Error::other)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holders_text_reads_back() {
        let holder = Holder::this_process();
        assert_eq!(Holder::from_text(&holder.to_text()), holder);
        assert_eq!(holder.pid, Some(std::process::id()));
        assert!(holder.host.is_some());
    }

    #[test]
    fn a_strange_text_names_nobody() {
        for text in ["", "pid", "pid \nhost \n", "pid x\n", "\u{fffd}\n\n"] {
            assert_eq!(Holder::from_text(text), Holder::default());
        }
    }
}
