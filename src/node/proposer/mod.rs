//! The one task per shard that decides writes and proposes entries.
//!
//! It owns the shard's [`Sequencer`] while this replica leads. Writes come in over a bounded queue,
//! are decided in the order of the queue, gathered into an entry, and proposed when fewer than two
//! entries are under way or 256 KiB wait: what arrives meanwhile makes the next one. Answers are sent
//! from the task that applies, not from here.
//!
//! After an entry was refused or found void, everything decided on it is void too. Nothing is
//! accepted then until every proposal of the term is resolved; a new sequencer starts from what was
//! really applied.

mod progress;
pub(super) mod queue;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use prkdb_types::ErrorCode;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::{
    progress::{Progress, Ticket, Waiters},
    queue::QueueReceiver,
};
use super::{
    core::Submission,
    fatal::Fatal,
    outcome::{Failure, Reply, Written, WrittenKind},
    raft::{Group, Leadership, LeadershipWatch},
};
use crate::storage::{
    Shard,
    clock::Clock,
    sequencer::{Answer, LogClock, Sequencer, SequencerLimits, Verdict, WriteRequest},
};

/// With fewer entries under way than this, whatever waits is proposed.
const ENTRIES_UNDER_WAY: usize = 2;
/// With more bytes waiting than this, they are proposed in any case.
const BYTES_WAITING: u64 = 256 << 10;
/// So many writes are decided before the task looks at anything else.
const DECISIONS_AT_ONCE: usize = 1024;
/// While nothing more is decided, it is looked so often whether that is because the disk is full.
const FULL_DISK_LOOK: Duration = Duration::from_millis(100);

/// What a proposer works with.
pub(super) struct Proposer {
    pub(super) group: Arc<Group>,
    pub(super) shard: Arc<Shard>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: SequencerLimits,
    pub(super) queue: QueueReceiver,
    pub(super) stop: CancellationToken,
    /// The term the sequencer is open in; 0 = closed.
    pub(super) open_term: tokio::sync::watch::Sender<u64>,
    pub(super) fatal: Fatal,
    /// The shard's number, for messages.
    pub(super) number: u32,
    pub(super) log_clock: LogClock,
    /// How far the wall clock is ahead of the log's time.
    pub(super) clock_skew_ms: Arc<AtomicI64>,
}

/// One term's work.
struct Term {
    sequencer: Sequencer,
    progress: Arc<Progress>,
    /// Who waits for the entry being gathered.
    gathering: Waiters,
    /// Answers that rest on an entry under way, by entry.
    resting: BTreeMap<u64, Vec<(Reply, Answer)>>,
    /// A write that cannot be decided yet; nothing overtakes it.
    held: Option<Held>,
    /// The last entry known to be applied.
    resolved: u64,
}

/// A write that waits.
enum Held {
    /// For the entry being gathered to be proposed: it has no room.
    Room(Submission),
    /// For this entry to be applied.
    Entry(Submission, u64),
}

impl Held {
    fn into_submission(self) -> Submission {
        match self {
            Self::Room(write) | Self::Entry(write, _) => write,
        }
    }
}

impl Proposer {
    /// Runs until stopped, term after term.
    pub(super) async fn run(mut self) {
        let mut watch = self.group.watch();
        while !self.stop.is_cancelled() {
            match self.group.leadership() {
                Leadership::Leading(term) => {
                    self.open_term.send_replace(term);
                    self.lead(term, &mut watch).await;
                    self.open_term.send_replace(0);
                }
                Leadership::Stopped => {
                    // Unless it was asked to, it stopped because its log or state failed.
                    if let Some(error) = self.group.stopped().filter(|_| !self.stop.is_cancelled())
                    {
                        tracing::error!(shard = self.number, %error, "consensus stopped");
                        self.fatal.raise(error);
                    }
                    break;
                }
                Leadership::Starting(_) | Leadership::Following => {
                    tokio::select! {
                        () = self.group.leadership_changed(&mut watch) => {}
                        () = self.stop.cancelled() => {}
                        write = self.queue.recv() => {
                            (write.reply)(Err(no_leader()));
                        }
                    }
                }
            }
        }
        self.queue.close();
        while let Some(write) = self.queue.try_recv() {
            (write.reply)(Err(Failure::new(ErrorCode::Stopping, "the node is stopping")));
        }
    }

    async fn lead(&mut self, number: u64, watch: &mut LeadershipWatch) {
        // Not the first sequencer of the term, if an entry of the one before was refused or void.
        let last = self.shard.last_sequence(number);
        let mut term = Term::new(Sequencer::reopen(number, last, self.limits), last);
        let mut full_disk = tokio::time::interval(FULL_DISK_LOOK);
        full_disk.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !term.progress.is_broken() {
            term.resolve();
            if let Some(write) = term.take_held() {
                let is_full = self.shard.disk_is_full();
                self.decide_write(&mut term, write, is_full);
            }
            if term.must_propose() {
                self.propose(&mut term, number).await;
                continue;
            }
            let takes_more = term.held.is_none() && term.sequencer.has_room();
            if !takes_more && self.shard.disk_is_full() {
                self.refuse_queued();
            }
            tokio::select! {
                biased;
                () = term.progress.changed() => {}
                _ = watch.server_changed() => {
                    if self.group.leadership() != Leadership::Leading(number) {
                        break;
                    }
                }
                write = self.queue.recv(), if takes_more => self.decide_queued(&mut term, write),
                _ = full_disk.tick(), if !takes_more => {}
                () = self.stop.cancelled(), if term.is_quiet() => break,
            }
        }
        term.close();
        // What was proposed is answered by whoever applies or refuses it; until all of it is, the
        // applied state is not what a new sequencer may start from.
        term.progress.all_resolved().await;
        term.resolve();
        term.refuse_resting();
    }

    /// Decides the writes that wait in the queue, up to what makes an entry worth proposing.
    fn decide_queued(&mut self, term: &mut Term, first: Submission) {
        let mut next = Some(first);
        let mut count = 0;
        let is_full = self.shard.disk_is_full();
        while let Some(write) = next.take() {
            self.decide_write(term, write, is_full);
            count += 1;
            let can_go_on = count < DECISIONS_AT_ONCE
                && term.held.is_none()
                && term.sequencer.pending_bytes() < BYTES_WAITING;
            if can_go_on {
                next = self.queue.try_recv();
            }
        }
    }

    /// Refuses what waits behind entries that the disk has no room for.
    fn refuse_queued(&self) {
        for write in self.queue.remove_all_but(goes_on_when_full) {
            (write.reply)(Err(disk_full()));
        }
    }

    fn decide_write(&mut self, term: &mut Term, write: Submission, disk_is_full: bool) {
        if write.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            let message = "the deadline passed before the write was begun";
            (write.reply)(Err(Failure::new(ErrorCode::Deadline, message)));
            return;
        }
        if disk_is_full && !goes_on_when_full(&write) {
            (write.reply)(Err(disk_full()));
            return;
        }
        let time = self.log_clock.now(self.clock.wall_ms(), self.clock.monotonic());
        self.clock_skew_ms.store(time.held_back_ms, Ordering::Relaxed);
        match self.shard.decide(&mut term.sequencer, &write.request, time.ms) {
            Verdict::Accepted { frame, .. } => term.gathering.push(frame, write.reply),
            Verdict::Full => term.held = Some(Held::Room(write)),
            Verdict::WaitFor(entry) => term.held = Some(Held::Entry(write, entry)),
            Verdict::Answered { rests_on: None, answer } => reply(write.reply, answer, 0),
            Verdict::Answered { rests_on: Some(entry), answer } => {
                term.resting.entry(entry).or_default().push((write.reply, answer));
            }
        }
    }

    async fn propose(&self, term: &mut Term, number: u64) {
        let Some(write) = term.sequencer.take_entry() else { return };
        let waiters = std::mem::take(&mut term.gathering);
        let ticket = Ticket::new(Arc::clone(&term.progress), write.sequence, waiters);
        self.group.propose(number, write, Box::new(move |end| ticket.end(end))).await;
    }
}

impl Term {
    fn new(sequencer: Sequencer, resolved: u64) -> Self {
        Self {
            sequencer,
            progress: Arc::new(Progress::default()),
            gathering: Waiters::default(),
            resting: BTreeMap::new(),
            held: None,
            resolved,
        }
    }

    /// Takes in what was applied since, and answers what rested on it.
    fn resolve(&mut self) {
        for (sequence, revision) in self.progress.take_resolved() {
            self.resolved = sequence;
            self.sequencer.resolved(sequence);
            // Answers are asked for in any order of what they rest on: a repeat of an old write comes
            // after a refusal because of a new one.
            while let Some(entry) = self.resting.first_entry().filter(|e| *e.key() <= sequence) {
                for (to, answer) in entry.remove() {
                    reply(to, answer, revision);
                }
            }
        }
    }

    /// Takes the write that waited, if it need not wait any more.
    fn take_held(&mut self) -> Option<Submission> {
        let is_ready = match &self.held {
            None => false,
            Some(Held::Room(_)) => self.sequencer.pending_bytes() == 0,
            Some(Held::Entry(_, entry)) => self.resolved >= *entry,
        };
        if is_ready { self.held.take().map(Held::into_submission) } else { None }
    }

    fn must_propose(&self) -> bool {
        let waiting = self.sequencer.pending_bytes();
        let (under_way, _) = self.sequencer.in_flight();
        let is_full = waiting >= BYTES_WAITING || matches!(self.held, Some(Held::Room(_)));
        waiting > 0 && self.sequencer.has_room() && (under_way < ENTRIES_UNDER_WAY || is_full)
    }

    /// Returns whether nothing is gathered, held or under way.
    fn is_quiet(&self) -> bool {
        self.held.is_none() && self.sequencer.pending_bytes() == 0 && self.progress.is_idle()
    }

    /// Answers what was not proposed: it never will be.
    fn close(&mut self) {
        for to in std::mem::take(&mut self.gathering).into_replies() {
            to(Err(no_leader()));
        }
        if let Some(held) = self.held.take() {
            (held.into_submission().reply)(Err(no_leader()));
        }
    }

    /// Answers what rested on entries that were not applied.
    fn refuse_resting(&mut self) {
        for (to, _) in std::mem::take(&mut self.resting).into_values().flatten() {
            to(Err(no_leader()));
        }
    }
}

/// Sends an answer that appends nothing.
fn reply(to: Reply, answer: Answer, revision_of_rest: u64) {
    to(match answer {
        Answer::Duplicate { partition, base_offset, revision, append_time_ms } => Ok(Written {
            partition,
            base_offset,
            revision: revision.unwrap_or(revision_of_rest),
            append_time_ms,
            replaced: None,
            kind: WrittenKind::Duplicate,
        }),
        Answer::Absent { partition } => Ok(Written {
            partition,
            base_offset: 0,
            revision: revision_of_rest,
            append_time_ms: 0,
            replaced: None,
            kind: WrittenKind::Absent,
        }),
        Answer::Refused(refusal) => Err(refusal.into()),
    });
}

/// The failure of a write that a leader would have taken.
pub(super) fn no_leader() -> Failure {
    Failure::new(ErrorCode::NoLeader, "the shard has no leader that takes writes at present")
}

/// Returns whether a write is let through on a full disk: it may be what frees room.
fn goes_on_when_full(write: &Submission) -> bool {
    matches!(write.request, WriteRequest::Control { .. })
}

fn disk_full() -> Failure {
    Failure::new(ErrorCode::DiskFull, "the disk has no room for more of the log").with_hint(
        "free space on the disk of the data directory, or let the node open more files \
             (LimitNOFILE=, ulimit -n); writes then go on by themselves",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::{node::raft::ProposalEnd, storage::kv::state::Applied};

    const LIMITS: SequencerLimits = SequencerLimits {
        entry_bytes_max: 1 << 20,
        in_flight_bytes_max: 1 << 20,
        in_flight_entries_max: 8,
        index_bytes_max: 1 << 20,
    };

    fn applied(sequence: u64, revision: u64) -> ProposalEnd {
        ProposalEnd::Applied(Applied {
            is_void: false,
            sequencer_term: 1,
            sequence,
            revision,
            append_time_ms: 0,
            frames: Vec::new(),
        })
    }

    #[test]
    fn a_repeat_has_the_revision_of_its_own_entry_whatever_was_asked_before_it() {
        let mut term = Term::new(Sequencer::open(1, LIMITS), 0);
        let (answers, answered) = mpsc::channel();
        let repeat =
            Answer::Duplicate { partition: 1, base_offset: 0, revision: None, append_time_ms: 0 };
        for entry in [2, 1] {
            let answers = answers.clone();
            let to: Reply = Box::new(move |result| answers.send((entry, result)).unwrap());
            term.resting.entry(entry).or_default().push((to, repeat.clone()));
        }
        for (sequence, revision) in [(1, 10), (2, 20)] {
            let ticket = Ticket::new(Arc::clone(&term.progress), sequence, Waiters::default());
            ticket.end(applied(sequence, revision));
        }
        term.resolve();
        let answers: Vec<_> =
            answered.try_iter().map(|(entry, result)| (entry, result.unwrap().revision)).collect();
        assert_eq!(answers, [(1, 10), (2, 20)]);
    }
}
