//! Decides writes and appends their entries.
//!
//! There is one replica, so what Raft does in a node comes down to this: an entry is committed when it is
//! written as the database was told to ([`Durability`]), in the order of the log. Every opening is a term of its
//! own. Callers decide and append one after the other under one lock, and never wait for the disk in it;
//! what they append while a sync is under way is covered by the next one.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prkdb_types::ErrorCode;

use super::{
    DbError,
    applier::{Applier, Waiting},
    builder::Durability,
    reply::{Replier, Reply},
};
use crate::{
    driver::{Flusher, Purge},
    storage::{
        Shard,
        clock::Clock,
        kv::state::{Applied, AppliedFrame},
        log::{
            entry::{Entry, LogId, Payload},
            header::Lsn,
        },
        sequencer::{Answer, LogClock, Refusal, Sequencer, SequencerLimits, Verdict, WriteRequest},
    },
};

/// Largest entry, and so the largest batch or transaction.
pub(super) const ENTRY_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of entries appended and not applied. A larger one goes alone.
const IN_FLIGHT_BYTES_MAX: u64 = 128 << 20;
/// Most entries appended and not applied.
const IN_FLIGHT_ENTRIES_MAX: usize = 16 << 10;
/// Most writes that wait for those.
const WAITING_MAX: usize = 64 << 10;

/// On a full disk the mark may wait for room, and a close for this.
const PURGE_LIMIT: Duration = Duration::from_secs(5);

/// How a write ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    /// The entry that holds it; for what appended nothing, the last one applied.
    pub(super) revision: u64,
    /// When it was accepted.
    pub(super) append_time_ms: i64,
    /// Where it was placed; `None` if nothing was appended.
    pub(super) frame: Option<AppliedFrame>,
}

/// Where the answer to a write goes. Called once, or dropped if nobody knows. Must be short.
pub(super) type OnDone = Box<dyn FnOnce(Result<Done, DbError>) + Send>;

/// A write and who waits for it.
pub(super) struct Submission {
    pub(super) request: WriteRequest,
    pub(super) reply: OnDone,
}

struct Core {
    sequencer: Sequencer,
    term: u64,
    next_index: u64,
    /// The number in the log of the last entry.
    last_lsn: Lsn,
    /// Writes that cannot be decided yet, in order. Nothing overtakes them.
    waiting: VecDeque<Submission>,
    /// What the first of them waits for: this entry to be applied, or room.
    waits_for: Option<u64>,
    /// Answers that rest on an entry under way.
    resting: BTreeMap<u64, Vec<(OnDone, Answer)>>,
    is_closed: bool,
    log_clock: LogClock,
}

/// The one shard, and who writes to it.
pub(super) struct Engine {
    pub(super) shard: Arc<Shard>,
    pub(super) clock: Arc<dyn Clock>,
    durability: Durability,
    flusher: Flusher,
    applier: Arc<Applier>,
    core: Mutex<Core>,
}

impl Engine {
    /// Returns the engine of a shard of which everything is applied. `last` is its last entry.
    pub(super) fn new(
        shard: Arc<Shard>,
        clock: Arc<dyn Clock>,
        durability: Durability,
        flusher: Flusher,
        applier: Arc<Applier>,
        index_bytes_max: u64,
    ) -> Self {
        let last = shard.log_state().last.unwrap_or_default();
        let limits = SequencerLimits {
            entry_bytes_max: ENTRY_BYTES_MAX,
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX,
            in_flight_entries_max: IN_FLIGHT_ENTRIES_MAX,
            index_bytes_max,
        };
        let term = last.term + 1;
        let core = Core {
            sequencer: Sequencer::open(term, limits),
            term,
            next_index: last.index + 1,
            last_lsn: shard.synced_lsn(),
            waiting: VecDeque::new(),
            waits_for: None,
            resting: BTreeMap::new(),
            is_closed: false,
            log_clock: LogClock::default(),
        };
        Self { shard, clock, durability, flusher, applier, core: Mutex::new(core) }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        // Nothing that may panic leaves it half changed.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes and waits; returns whether anything was appended.
    pub(super) fn write(&self, request: WriteRequest) -> Result<bool, DbError> {
        let (replier, reply) = Reply::waiting();
        let answer = |done: Done| done.frame.is_some();
        self.submit(request, Box::new(move |done| replier.answer(done.map(answer))));
        reply.wait()
    }

    /// Writes. Never waits for the disk.
    pub(super) fn submit(&self, request: WriteRequest, reply: OnDone) {
        let mut core = self.core();
        let refusal = if core.is_closed {
            Some(self.applier.failure().unwrap_or(DbError::Closed))
        } else if core.waiting.len() >= WAITING_MAX {
            let message = format!("{WAITING_MAX} writes are waiting (waiting-writes)");
            Some(refused(ErrorCode::Overloaded, message))
        } else if self.shard.disk_is_full() && !matches!(request, WriteRequest::Control { .. }) {
            let message = "the disk has no room for more of the log: free some, and writes go on";
            Some(refused(ErrorCode::DiskFull, message.to_owned()))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            drop(core);
            return reply(Err(refusal));
        }
        core.waiting.push_back(Submission { request, reply });
        let mut told = Vec::new();
        if core.waiting.len() == 1 {
            core.waits_for = None;
            self.advance(&mut core, &mut told);
        }
        drop(core);
        tell(told);
    }

    /// Decides what waits, as far as it can be. What is answered at once is told when nothing is locked: who
    /// hears of it may call again, or drop the last of the database.
    fn advance(&self, core: &mut Core, told: &mut Vec<Told>) {
        while core.waits_for.is_none() && core.sequencer.has_room() {
            let Some(Submission { request, reply }) = core.waiting.pop_front() else { return };
            let now = core.log_clock.now(self.clock.wall_ms(), self.clock.monotonic());
            match self.shard.decide(&mut core.sequencer, &request, now.ms) {
                Verdict::Accepted { frame, .. } => self.append(core, frame, reply),
                Verdict::WaitFor(entry) => {
                    core.waits_for = Some(entry);
                    core.waiting.push_front(Submission { request, reply });
                }
                // Never: nothing is gathered from one write to the next.
                Verdict::Full => told.push((reply, Err(DbError::Closed))),
                Verdict::Answered { rests_on: None, answer } => {
                    told.push((reply, self.answered(answer, None)));
                }
                Verdict::Answered { rests_on: Some(entry), answer } => {
                    core.resting.entry(entry).or_default().push((reply, answer));
                }
            }
        }
    }

    fn append(&self, core: &mut Core, frame: usize, reply: OnDone) {
        let Some(write) = core.sequencer.take_entry() else { return };
        let id = LogId { term: core.term, index: core.next_index };
        core.next_index += 1;
        let sequence = write.sequence;
        self.applier.expect(Waiting { id, sequence, frame, reply });
        let entry = Entry { id, is_void: false, payload: Payload::Normal(write) };
        match self.shard.append(vec![entry]) {
            Ok(lsn) => {
                core.last_lsn = lsn;
                let applier = Arc::clone(&self.applier);
                let committed = Box::new(move || applier.committed(id.index));
                match self.durability {
                    Durability::Sync => self.flusher.when_synced(lsn, committed),
                    Durability::Relaxed => self.flusher.when_written(lsn, committed),
                }
            }
            // The log failed before: whoever waits hears of it.
            Err(error) => self.applier.fail(Arc::new(error)),
        }
    }

    /// Hears that entries up to `sequence` are applied, the last one as `revision`.
    pub(super) fn applied(&self, sequence: u64, revision: u64) {
        let mut told = Vec::new();
        let mut core = self.core();
        core.sequencer.resolved(sequence);
        while let Some(entry) = core.resting.first_entry().filter(|entry| *entry.key() <= sequence)
        {
            for (reply, answer) in entry.remove() {
                told.push((reply, self.answered(answer, Some(revision))));
            }
        }
        if core.waits_for.is_none_or(|entry| entry <= sequence) {
            core.waits_for = None;
            self.advance(&mut core, &mut told);
        }
        drop(core);
        tell(told);
    }

    /// Answers when everything that was appended before the call is synced.
    pub(super) fn sync(&self, reply: Replier<()>) {
        let core = self.core();
        if core.is_closed {
            drop(core);
            return reply.answer(Err(self.applier.failure().unwrap_or(DbError::Closed)));
        }
        let last_lsn = core.last_lsn;
        // Who hears of it at once may call again.
        drop(core);
        self.flusher.when_synced(last_lsn, Box::new(move || reply.answer(Ok(()))));
    }

    /// Takes no more writes, and answers those that wait. What was appended goes on.
    pub(super) fn close(&self) {
        let waiting = {
            let mut core = self.core();
            core.is_closed = true;
            std::mem::take(&mut core.waiting)
        };
        for Submission { reply, .. } in waiting {
            reply(Err(DbError::Closed));
        }
    }

    /// Ends: nothing will be applied any more.
    pub(super) fn end(&self) {
        self.close();
        let resting = std::mem::take(&mut self.core().resting);
        for (reply, _) in resting.into_values().flatten() {
            reply(Err(self.applier.failure().unwrap_or(DbError::Closed)));
        }
    }

    /// Returns the answer of a write that appended nothing.
    fn answered(&self, answer: Answer, rested_on: Option<u64>) -> Result<Done, DbError> {
        match answer {
            Answer::Duplicate { revision, append_time_ms, .. } => {
                let revision = revision.or(rested_on).unwrap_or(0);
                Ok(Done { revision, append_time_ms, frame: None })
            }
            Answer::Absent { .. } => Ok(Done {
                revision: rested_on.unwrap_or_else(|| self.shard.revision()),
                append_time_ms: 0,
                frame: None,
            }),
            Answer::Refused(refusal) => Err(self.refusal(refusal)),
        }
    }

    fn refusal(&self, refusal: Refusal) -> DbError {
        DbError::refused(refusal, |id| {
            let catalog = self.shard.catalog();
            let known = catalog.collections.get(&id);
            known.map_or_else(|| id.to_string(), |known| known.name.as_str().to_owned())
        })
    }
}

/// An answer, and whose it is.
type Told = (OnDone, Result<Done, DbError>);

fn tell(told: Vec<Told>) {
    for (reply, answer) in told {
        reply(answer);
    }
}

/// The purge mark of a log that only the database writes to.
#[derive(Debug)]
pub(super) struct OwnPurge {
    pub(super) shard: Arc<Shard>,
    pub(super) flusher: Flusher,
}

impl Purge for OwnPurge {
    fn purge(&self, up_to: LogId) -> Result<(), String> {
        let lsn = self.shard.purge(up_to).map_err(|error| error.to_string())?;
        let (done, synced) = std::sync::mpsc::channel();
        let told = move || {
            // Nobody waits any more where the cleaner has ended.
            let _sent = done.send(());
        };
        self.flusher.when_synced(lsn, Box::new(told));
        let waited = synced.recv_timeout(PURGE_LIMIT);
        waited.map_err(|_| "the mark is not on the disk yet".to_owned())
    }
}

/// Returns what a caller is told of its applied frame.
pub(super) fn done(applied: &Applied, frame: usize) -> Result<Done, DbError> {
    let frame = applied.frames.get(frame).copied().ok_or(DbError::Unknown)?;
    Ok(Done {
        revision: applied.revision,
        append_time_ms: applied.append_time_ms,
        frame: Some(frame),
    })
}

pub(super) fn refused(code: ErrorCode, message: String) -> DbError {
    DbError::Refused { code, message, current_version: None }
}
