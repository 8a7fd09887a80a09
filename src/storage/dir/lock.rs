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

    /// Returns whether the process is gone or about to go, so that its lock will end by itself.
    /// False where that cannot be known.
    pub fn is_ending(&self) -> bool {
        let this = Self::this_process();
        if self.host != this.host || self.boot_id != this.boot_id {
            return false;
        }
        let Some(pid) = self.pid else { return false };
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Err(error) => error.kind() == io::ErrorKind::NotFound,
            Ok(stat) => {
                let status = fs::read_to_string(format!("/proc/{pid}/status"));
                is_ending(&stat, &status.unwrap_or_default())
            }
        }
    }

    pub(in crate::storage) fn to_text(&self) -> String {
        let pid = self.pid.map(|pid| pid.to_string()).unwrap_or_default();
        let host = self.host.as_deref().unwrap_or_default();
        let boot_id = self.boot_id.as_deref().unwrap_or_default();
        format!("pid {pid}\nhost {host}\nboot {boot_id}\n")
    }

    /// Takes what it understands: the text may be half written, or be somebody else's.
    pub(in crate::storage) fn from_text(text: &str) -> Self {
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

/// Bit of a process that runs its exit, in the ninth field of its `stat` (Linux, `PF_EXITING`).
const EXITING: u32 = 4;
/// Bit of SIGKILL in a mask of waiting signals.
const KILLED: u64 = 1 << 8;

/// Reads `stat` and `status` of a process.
fn is_ending(stat: &str, status: &str) -> bool {
    // The name of the program may hold anything; its bracket is the last one.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let mut fields = fields.split_whitespace();
    if matches!(fields.next(), Some("Z" | "X")) {
        return true;
    }
    let flags = fields.nth(5).and_then(|flags| flags.parse::<u32>().ok()).unwrap_or_default();
    let waiting = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
    };
    flags & EXITING != 0 || (waiting("SigPnd:") | waiting("ShdPnd:")) & KILLED != 0
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

/// Keeps every process from locking the directory as long as the file returned lives; others may do
/// the same. Writes nothing. `None` where there is no lock to be taken.
pub(super) fn share(disk: &dyn Disk, dir: &Path) -> Result<Option<Arc<dyn DiskFile>>, DirError> {
    let path = dir.join(LOCK);
    let failed = |source| io_error("lock", &path, source);
    let file = match disk.open(&path, Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    match file.map_source().map(fs::File::try_lock_shared) {
        Some(Err(TryLockError::WouldBlock)) => {
            let holder = read_holder(&*file).map_err(failed)?;
            Err(DirError::Locked { path: dir.into(), holder })
        }
        Some(Err(TryLockError::Error(source))) => Err(failed(source)),
        Some(Ok(())) | None => Ok(Some(file)),
    }
}

/// Returns who has the directory locked, without locking it; `None` where nobody has.
pub(super) fn holder(disk: &dyn Disk, dir: &Path) -> Result<Option<Holder>, DirError> {
    let path = dir.join(LOCK);
    let failed = |source| io_error("read", &path, source);
    let file = match disk.open(&path, Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    match file.map_source().map(fs::File::try_lock_shared) {
        Some(Err(TryLockError::WouldBlock)) => Ok(Some(read_holder(&*file).map_err(failed)?)),
        Some(Err(TryLockError::Error(source))) => Err(failed(source)),
        // The lock, if one was taken, ends with the file.
        Some(Ok(())) | None => Ok(None),
    }
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
    fn a_process_that_was_killed_is_ending_and_a_running_one_is_not() {
        let stat = |state: &str, flags: u32| format!("7 (a) b) {state} 1 1 1 0 -1 {flags} 0 0");
        let status = |mask: &str| format!("Name:\ta\nSigPnd:\t{mask}\nShdPnd:\t0000000000000000\n");
        let none = status("0000000000000000");
        assert!(!is_ending(&stat("S", 0x0040_0000), &none));
        assert!(is_ending(&stat("Z", 0), &none));
        assert!(is_ending(&stat("R", 0x0040_0004), &none));
        assert!(is_ending(&stat("D", 0), &status("0000000000000100")));
        assert!(!Holder::this_process().is_ending());
        // No process has this id: it is above the largest that Linux gives.
        let gone = Holder { pid: Some(1 << 30), ..Holder::this_process() };
        assert!(gone.is_ending());
        assert!(!Holder { host: Some("elsewhere".to_owned()), ..gone }.is_ending());
    }

    #[test]
    fn a_strange_text_names_nobody() {
        for text in ["", "pid", "pid \nhost \n", "pid x\n", "\u{fffd}\n\n"] {
            assert_eq!(Holder::from_text(text), Holder::default());
        }
    }
}
