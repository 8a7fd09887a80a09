//! A whole log, opened after whatever happened to its files.
//!
//! What is refused is left as it was, and looking at the log says the same; what opens is whole, takes
//! entries, and opens again as the same log.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use prkdb::storage::{
    StorageError,
    disk::{Disk, ReadOnlyDisk, sim::SimDisk},
    log::{
        Log, Recovery,
        entry::{Entry, LogId, Payload},
        inspect::{self, Depth, LogOwner, LogReport},
    },
};

use prkdb_types::ErrorCode;

use super::{
    base::{self, DIR},
    edits,
    loads::{model::LogModel, rig},
};

fn look(disk: &SimDisk) -> Result<LogReport, StorageError> {
    let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk::new(Arc::new(disk.clone())));
    let owner = LogOwner { shard: rig::options().shard, cluster_id: rig::options().cluster_id };
    let visit = &mut |_: &inspect::Visited<'_>| ControlFlow::Continue(());
    inspect::inspect(&disk, Path::new(DIR), owner, Depth::Records, visit)
}

/// Looking and opening say the same of a log.
fn agree(looked: Result<LogReport, StorageError>, opened: &Result<(Log, Recovery), StorageError>) {
    match (looked, opened) {
        (Ok(report), Ok((_, recovery))) if report.damage.is_none() => {
            assert_eq!(report.entries, recovery.entries, "as many entries are seen as are read");
        }
        // The records of a batch are looked at, and not read by opening.
        (Ok(report), Ok(_)) => {
            let problem = report.damage.map(|damage| damage.problem);
            assert_eq!(problem, Some(inspect::Problem::Records), "opened, and yet damaged");
        }
        (Ok(report), Err(StorageError::Corrupt { path, position, .. })) => {
            let damage = report.damage.expect("what is refused is damaged");
            // Damage of records stands before what opening finds.
            assert!(
                damage.problem == inspect::Problem::Records
                    || (&damage.path, damage.position) == (path, *position),
                "{damage:?} instead of byte {position} of {}",
                path.display()
            );
        }
        (Err(looked), Err(opened)) => {
            // Opening stops at damage; a look goes on, and finds what a later version wrote behind it.
            let codes = (looked.code(), opened.code());
            let is_same =
                codes.0 == codes.1 || codes == (ErrorCode::NewerFormat, ErrorCode::Corrupt);
            assert!(is_same, "{looked} instead of {opened}");
        }
        (looked, opened) => panic!("looking says {looked:?}, opening {:?}", opened.as_ref().err()),
    }
}

/// Edits of a log.
pub fn run(data: &[u8]) {
    let files = edits::edited(base::log_files(), |name| name.ends_with(".log"), data);
    let disk = base::disk_with(&files);
    let looked = look(&disk);
    let before = disk.hash();
    let opened = rig::open(&disk);
    agree(looked, &opened);
    let (mut log, _) = match opened {
        Ok(opened) => opened,
        Err(StorageError::Io { source, .. }) => panic!("the disk is whole: {source}"),
        Err(error) => {
            let _code = error.code();
            assert_eq!(disk.hash(), before, "what is refused is left as it was: {error}");
            return;
        }
    };
    let Ok(read) = LogModel::of(&log) else { return };
    // It goes on where it ends.
    let id = match log.state().last {
        Some(last) if last.index < u64::MAX && last.term < u64::MAX => {
            LogId { term: last.term, index: last.index + 1 }
        }
        Some(_) => return,
        None => LogId { term: 1, index: 0 },
    };
    let appended = log.append(vec![Entry { id, is_void: false, payload: Payload::Blank }]);
    appended.expect("a log that opened takes entries");
    drive(&mut log);
    drop(log);
    let (log, _) = rig::open(&disk).expect("what was synced opens");
    let again = LogModel::of(&log).expect("what was synced is read");
    assert_eq!(again.last(), Some(id), "what was synced is there");
    let kept = again.entries().filter(|entry| entry.id != id);
    assert!(read.entries().eq(kept), "and all before it");
}

fn drive(log: &mut Log) {
    while log.has_unflushed() {
        if let Some(job) = log.next_flush() {
            let result = job.run();
            log.flushed(job, result).expect("memory does not fail");
        } else {
            let job = log.next_prepare().expect("a log that cannot write prepares");
            let result = job.run(prkdb::storage::log::PrepareMode::Allocate);
            log.prepared(job, result).expect("memory does not fail");
        }
    }
}

/// An edit of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![
        Vec::new(),
        vec![0, 0, 3, 24, 9],
        vec![1, 1, 0, 40, 255, 255, 255, 255],
        vec![1, 2, 2, 16, 1, 2, 3, 4, 5, 6, 7, 8],
        vec![2, 3, 1, 80, 3, 1, 2, 3],
        vec![2, 4, 6, 0],
        vec![0, 5, 2, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![1, 6, 1, 0, 80, 0],
        vec![2, 7, 1, 0, 0, 16, 80, 0],
        vec![0x82, 8, 4, 0, 200, 0],
        vec![1, 9, 0, 0, 0, 0],
    ]
}
