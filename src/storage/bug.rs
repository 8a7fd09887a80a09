//! Defects that a test can plant, to show that the check that is green without them sees them.
//!
//! A defect is planted for the calling thread, in builds with `debug_assertions` alone: a release
//! has none of this. Where a test can plant one from outside, in a disk or a driver, it does, and no
//! switch is needed.

/// A defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bug {
    /// Checksums are computed and not compared.
    CrcNotChecked,
    /// Headers say that one entry more is synced than is.
    WatermarkOffByOne,
    /// Damage below the watermark is cut like a torn tail.
    CorruptionCut,
    /// What cannot be read is set aside before the page that replaces it is synced.
    SetAsideFirst,
    /// Entries that were perhaps never on disk are believed where they stand.
    CopyNotMade,
    /// The page of recovery's segment is written together with what it vouches for.
    PageFirst,
    /// A sidecar that lies there is taken for the right one.
    SidecarNotCompared,
    /// A checkpoint covers an entry that is not synced yet.
    CheckpointAheadOfSync,
    /// A checkpoint takes the number, and the file name, of one whose commit failed.
    GenerationTriedTwice,
    /// A checkpoint has no windows of producers.
    CheckpointWithoutWindows,
    /// What a checkpoint spared from reading is not checked when it is read first.
    HistoryNotChecked,
    /// Looking at a log does not look behind its end for what tells that more was synced.
    BehindNotRead,
    /// A sweep takes keys that are not expired.
    SweptUnexpired,
    /// A sweep does not look at what is under way.
    SweptUnseen,
    /// A sweep passes over keys of a partition into which a batch is under way.
    SweepPassesOver,
    /// Cleaning takes out nothing but what was trimmed.
    CleanKeepsReplaced,
    /// Cleaning takes tombstones out that are young.
    CleanForgetsTombstones,
    /// Cleaning does not point the key index elsewhere.
    CleanForgetsKeys,
    /// What was replaced is removed before a checkpoint says so.
    RemovedBeforeCheckpoint,
    /// A history segment is not synced when it is finished.
    HistoryNotSynced,
    /// A snapshot of another replica comes with the vote of that one.
    InstallTakesVote,
    /// A snapshot of another replica takes the entries behind it away.
    InstallDropsOwn,
    /// What a log truncated comes back with the snapshot that has its segments.
    InstallRevives,
    /// A checkpoint is taken while keys are pointed at a history segment.
    CheckpointInRelocation,
    /// Readers do not look at when a key expires.
    ExpiryNotRead,
    /// A decoder believes a length before it looks whether so many bytes are there.
    LengthBelieved,
    /// A transaction may write what was written since its snapshot.
    WritesNotValidated,
    /// A serializable transaction may have read keys that were changed since its snapshot.
    ReadsNotValidated,
    /// A serializable transaction may have read ranges that were changed since its snapshot.
    RangesNotValidated,
    /// A transaction is validated against what is applied, not against what is accepted.
    OverlayNotConsulted,
    /// A key without a value is taken for one that never had a value.
    RemovalsIgnored,
    /// A repeat of a transaction is not known.
    RepeatNotKnown,
}

#[cfg(debug_assertions)]
mod planted {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Takes the defect away when it goes out of scope.
    #[derive(Debug)]
    #[must_use = "the defect is gone when this is dropped"]
    pub struct Planted(());

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }

    /// Plants a defect in what this thread does.
    pub fn plant(bug: Bug) -> Planted {
        PLANTED.set(Some(bug));
        Planted(())
    }

    /// Returns whether a defect is planted in what this thread does.
    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(debug_assertions)]
pub use planted::{Planted, is_planted, plant};

/// Whether a defect is planted here; never in a release.
#[cfg(debug_assertions)]
macro_rules! bug {
    ($name:ident) => {
        $crate::storage::bug::is_planted($crate::storage::bug::Bug::$name)
    };
}

/// Whether a defect is planted here; never in a release.
#[cfg(not(debug_assertions))]
macro_rules! bug {
    ($name:ident) => {
        false
    };
}

pub(crate) use bug;
