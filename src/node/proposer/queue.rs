//! The writes that wait for a shard's proposer: first come first served within a flow, and flows by
//! turns, so that one that has much on its way does not hold up the others.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng 1996). A write gets a tag: where the one before it of
//! its flow ended, or where the queue has got to, if that is later; it ends as many bytes later as it
//! has. The smallest tag is next. Flows that always have something waiting get equal bytes, one that
//! rarely has goes before their backlog, and nobody saves up turns while nothing of theirs waits.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use crate::node::core::Submission;

/// Writes that may wait for a shard's proposer.
pub(in crate::node) const QUEUE_WRITES_MAX: usize = 4096;
/// A write counts as so many bytes at least: deciding it costs as much as copying them.
const BYTES_MIN: u64 = 256;
/// Flows are looked through for forgotten ones when there are twice as many as were left the last
/// time, and so many at least.
const FLOWS_MIN: usize = 64;

/// What writes come from, one behind the other: a stream, or the single calls of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow(u64);

impl Flow {
    /// The node's own writes.
    pub const NODE: Self = Self(0);

    /// Returns a flow that no other is equal to.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Why a write was not taken.
#[derive(Debug)]
pub(in crate::node) enum PushError {
    /// [`QUEUE_WRITES_MAX`] wait.
    Full(Submission),
    /// Nobody takes writes any more.
    Closed(Submission),
}

/// Returns the two ends of a new queue.
pub(in crate::node) fn new() -> (QueueSender, QueueReceiver) {
    let shared = Arc::new(Shared { state: Mutex::default(), filled: Notify::new() });
    (QueueSender(Arc::clone(&shared)), QueueReceiver(shared))
}

/// Where writes go in.
#[derive(Clone, Debug)]
pub(in crate::node) struct QueueSender(Arc<Shared>);

/// Where the proposer takes them out. Dropped, it closes the queue and drops what waits.
#[derive(Debug)]
pub(in crate::node) struct QueueReceiver(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The queue was empty and is not any more.
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By tag, and by arrival where tags are equal.
    waiting: BTreeMap<(u64, u64), Submission>,
    arrivals: u64,
    /// The tag of the last write that was taken.
    reached: u64,
    /// Where the last write of a flow ends, unless the queue has got there.
    ends: HashMap<Flow, u64>,
    ends_left: usize,
    is_closed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueSender {
    /// Puts a write behind those of its flow. Never blocks.
    ///
    /// # Errors
    /// The write, if it cannot be taken.
    #[expect(clippy::result_large_err, reason = "the write is handed back and answered at once")]
    pub(in crate::node) fn push(&self, write: Submission) -> Result<(), PushError> {
        let mut state = self.0.state();
        if state.is_closed {
            return Err(PushError::Closed(write));
        }
        if state.waiting.len() >= QUEUE_WRITES_MAX {
            return Err(PushError::Full(write));
        }
        let was_empty = state.waiting.is_empty();
        state.insert(write);
        drop(state);
        if was_empty {
            self.0.filled.notify_one();
        }
        Ok(())
    }
}

impl State {
    fn insert(&mut self, write: Submission) {
        let reached = self.reached;
        let end = self.ends.entry(write.flow).or_default();
        let tag = reached.max(*end);
        *end = tag.saturating_add(write.bytes.max(BYTES_MIN));
        let key = (tag, self.arrivals);
        self.arrivals += 1;
        self.waiting.insert(key, write);
        if self.ends.len() > FLOWS_MIN.max(2 * self.ends_left) {
            self.ends.retain(|_, end| *end > reached);
            self.ends_left = self.ends.len();
        }
    }

    fn take(&mut self) -> Option<Submission> {
        let ((tag, _), write) = self.waiting.pop_first()?;
        self.reached = tag;
        Some(write)
    }
}

impl QueueReceiver {
    /// Returns the next write, if one waits.
    pub(in crate::node) fn try_recv(&self) -> Option<Submission> {
        self.0.state().take()
    }

    /// Waits for the next write.
    ///
    /// Cancel safety: dropped, it has taken nothing.
    pub(in crate::node) async fn recv(&self) -> Submission {
        loop {
            if let Some(write) = self.try_recv() {
                return write;
            }
            self.0.filled.notified().await;
        }
    }

    /// Takes no more writes; what waits can still be received.
    pub(in crate::node) fn close(&self) {
        self.0.state().is_closed = true;
    }
}

impl Drop for QueueReceiver {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.state();
            state.is_closed = true;
            std::mem::take(&mut state.waiting)
        };
        // Not under the lock: what is dropped is answered.
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::storage::sequencer::WriteRequest;

    const MIB: u64 = 1 << 20;

    /// Returns a write that its time tells from others.
    fn write(flow: Flow, bytes: u64, number: i64) -> Submission {
        let request = WriteRequest::Control { commands: Vec::new(), timestamp_ms: number };
        Submission { request, flow, bytes, deadline: None, reply: Box::new(|_| {}) }
    }

    fn number(write: &Submission) -> i64 {
        let WriteRequest::Control { timestamp_ms, .. } = &write.request else {
            panic!("{write:?}")
        };
        *timestamp_ms
    }

    fn drain(queue: &QueueReceiver) -> Vec<(Flow, i64)> {
        std::iter::from_fn(|| queue.try_recv()).map(|next| (next.flow, number(&next))).collect()
    }

    #[test]
    fn a_flow_keeps_its_order_whatever_the_sizes() {
        let (sender, queue) = new();
        let (one, other) = (Flow::new(), Flow::new());
        for number in 0..200 {
            sender.push(write(one, 1 << (number % 20), number)).unwrap();
            sender.push(write(other, 1 << (19 - number % 20), number)).unwrap();
        }
        let taken = drain(&queue);
        for flow in [one, other] {
            let numbers: Vec<i64> =
                taken.iter().filter(|(of, _)| *of == flow).map(|(_, number)| *number).collect();
            assert_eq!(numbers, (0..200).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_small_write_goes_before_the_backlog_of_another_flow() {
        let (sender, queue) = new();
        let (loader, caller) = (Flow::new(), Flow::new());
        for number in 0..16 {
            sender.push(write(loader, MIB, number)).unwrap();
        }
        for round in 0..8 {
            assert_eq!(queue.try_recv().unwrap().flow, loader);
            sender.push(write(caller, 100, round)).unwrap();
            assert_eq!(queue.try_recv().unwrap().flow, caller, "round {round}");
        }
        assert_eq!(drain(&queue).len(), 8);
    }

    #[test]
    fn flows_that_always_wait_get_equal_bytes() {
        let (sender, queue) = new();
        let (large, small) = (Flow::new(), Flow::new());
        for number in 0..40 {
            sender.push(write(large, MIB, number)).unwrap();
        }
        for number in 0..4000 {
            sender.push(write(small, MIB / 100, number)).unwrap();
        }
        let mut bytes = HashMap::from([(large, 0), (small, 0)]);
        for _ in 0..2000 {
            let next = queue.try_recv().unwrap();
            *bytes.get_mut(&next.flow).unwrap() += next.bytes;
        }
        assert!(bytes[&large].abs_diff(bytes[&small]) <= MIB, "{bytes:?}");
    }

    #[test]
    fn a_flow_saves_up_nothing_while_nothing_of_it_waits() {
        let (sender, queue) = new();
        let (busy, idle) = (Flow::new(), Flow::new());
        for number in 0..100 {
            sender.push(write(busy, MIB, number)).unwrap();
        }
        for _ in 0..50 {
            queue.try_recv().unwrap();
        }
        for number in 0..50 {
            sender.push(write(idle, MIB, number)).unwrap();
        }
        let first: Vec<_> = (0..20).map(|_| queue.try_recv().unwrap().flow).collect();
        let of_idle = first.iter().filter(|flow| **flow == idle).count();
        assert!((9..=11).contains(&of_idle), "{of_idle} of 20");
    }

    #[test]
    fn flows_that_are_gone_are_forgotten() {
        let (sender, queue) = new();
        let busy = Flow::new();
        for number in 0..10_000 {
            sender.push(write(busy, MIB, number)).unwrap();
            sender.push(write(Flow::new(), 100, number)).unwrap();
            queue.try_recv().unwrap();
            queue.try_recv().unwrap();
        }
        let flows = queue.0.state().ends.len();
        assert!(flows <= 2 * FLOWS_MIN, "{flows} flows");
    }

    #[test]
    fn a_full_and_a_closed_queue_hand_the_write_back() {
        let (sender, queue) = new();
        let flow = Flow::new();
        for number in 0..i64::try_from(QUEUE_WRITES_MAX).unwrap() {
            sender.push(write(flow, 1, number)).unwrap();
        }
        let Err(PushError::Full(back)) = sender.push(write(flow, 1, -1)) else { panic!("taken") };
        assert_eq!(number(&back), -1);
        queue.close();
        let Err(PushError::Closed(_)) = sender.push(write(flow, 1, -1)) else { panic!("taken") };
        assert_eq!(drain(&queue).len(), QUEUE_WRITES_MAX, "what waited can still be received");
    }

    #[test]
    fn a_queue_whose_receiver_is_gone_drops_what_waits() {
        let (sender, queue) = new();
        let (dropped, is_dropped) = std::sync::mpsc::channel::<()>();
        let mut waiting = write(Flow::NODE, 1, 0);
        waiting.reply = Box::new(move |_| drop(dropped));
        sender.push(waiting).unwrap();
        drop(queue);
        assert!(is_dropped.recv().is_err(), "its reply is dropped with it");
        assert!(matches!(sender.push(write(Flow::NODE, 1, 1)), Err(PushError::Closed(_))));
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_each_write() {
        let (sender, queue) = new();
        let taken = tokio::spawn(async move {
            let mut taken = Vec::new();
            while taken.len() < 1000 {
                taken.push(number(&queue.recv().await));
            }
            taken
        });
        for number in 0..1000 {
            sender.push(write(Flow::NODE, 1, number)).unwrap();
            if number % 3 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let taken = tokio::time::timeout(Duration::from_secs(30), taken).await.unwrap().unwrap();
        assert_eq!(taken, (0..1000).collect::<Vec<_>>());
    }
}
