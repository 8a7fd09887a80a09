//! What became of the entries a proposer proposed, and who waits for them.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use super::no_leader;
use crate::{
    node::{
        outcome::{Failure, Reply, Written, WrittenKind},
        raft::ProposalEnd,
    },
    storage::kv::state::Applied,
};

/// The state of one term's proposals.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Sequence and revision of entries that were applied, in order.
    resolved: Mutex<Vec<(u64, u64)>>,
    under_way: AtomicUsize,
    /// An entry was refused, void or lost: nothing decided after it holds.
    is_broken: AtomicBool,
    changed: Notify,
}

impl Progress {
    fn resolved(&self) -> MutexGuard<'_, Vec<(u64, u64)>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what was applied since the last call.
    pub(super) fn take_resolved(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.resolved())
    }

    /// Returns whether the chain of the term is broken.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Acquire)
    }

    /// Returns whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }

    /// Waits for a change.
    ///
    /// Cancel safety: a change that came before the call is not lost.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Waits until nothing is under way.
    pub(super) async fn all_resolved(&self) {
        while !self.is_idle() {
            self.changed.notified().await;
        }
    }

    fn end(&self, applied: Option<(u64, u64)>) {
        match applied {
            Some(applied) => self.resolved().push(applied),
            None => self.is_broken.store(true, Ordering::Release),
        }
        self.under_way.fetch_sub(1, Ordering::AcqRel);
        self.changed.notify_one();
    }
}

/// Who waits for an entry: a reply for each frame, in order.
#[derive(Default)]
pub(super) struct Waiters(Vec<(usize, Reply)>);

impl Waiters {
    /// Adds the one who waits for a frame.
    pub(super) fn push(&mut self, frame: usize, reply: Reply) {
        self.0.push((frame, reply));
    }

    /// Returns the replies.
    pub(super) fn into_replies(self) -> impl Iterator<Item = Reply> {
        self.0.into_iter().map(|(_, reply)| reply)
    }

    fn answer(self, applied: &Applied) {
        for (frame, reply) in self.0 {
            let frame = applied.frames.get(frame);
            reply(frame.map_or_else(
                || Err(Failure::unknown("the entry has no such frame")),
                |frame| {
                    Ok(Written {
                        partition: frame.partition,
                        base_offset: frame.base_offset,
                        revision: applied.revision,
                        append_time_ms: applied.append_time_ms,
                        replaced: frame.replaced,
                        kind: WrittenKind::Appended,
                    })
                },
            ));
        }
    }
}

/// One proposal under way. Dropped without an end, its outcome is unknown.
pub(super) struct Ticket {
    progress: Arc<Progress>,
    sequence: u64,
    waiters: Option<Waiters>,
}

impl Ticket {
    /// Returns the ticket of a proposal that is about to be made.
    pub(super) fn new(progress: Arc<Progress>, sequence: u64, waiters: Waiters) -> Self {
        progress.under_way.fetch_add(1, Ordering::AcqRel);
        Self { progress, sequence, waiters: Some(waiters) }
    }

    /// Answers everybody who waits.
    pub(super) fn end(mut self, end: ProposalEnd) {
        let Some(waiters) = self.waiters.take() else { return };
        match end {
            ProposalEnd::Applied(applied) if !applied.is_void => {
                waiters.answer(&applied);
                self.progress.end(Some((self.sequence, applied.revision)));
            }
            ProposalEnd::Applied(_) | ProposalEnd::Refused => {
                for reply in waiters.into_replies() {
                    reply(Err(no_leader()));
                }
                self.progress.end(None);
            }
            ProposalEnd::Unknown(reason) => {
                for reply in waiters.into_replies() {
                    reply(Err(Failure::unknown(reason.clone())));
                }
                self.progress.end(None);
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(waiters) = self.waiters.take() {
            for reply in waiters.into_replies() {
                reply(Err(Failure::unknown("consensus stopped before the write was applied")));
            }
            self.progress.end(None);
        }
    }
}
