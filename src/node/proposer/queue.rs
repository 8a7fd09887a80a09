//! The writes that wait for a shard's proposer: first come first served within a flow, and flows by
//! turns, so that one that has much on its way does not hold up the others.
//!
//! Self-clocked fair queueing (Golestani 1994). A write ends as many bytes as it has behind the one before it of
//! its flow, or behind where the queue has got to, if that is further; the one that ends first is next, and the
//! queue has got to its end. Flows that always have something waiting get equal bytes, one that rarely has goes
//! before their backlog, nobody saves up turns while nothing of theirs waits, and whoever comes later, however
//! many they are, stands behind what ends before them.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
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

/// What keeps its order: what writes come from, and takes turns with others; and a producer, which does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flow {
    /// The node itself.
    Node,
    /// A stream, or the single calls of a connection.
    Calls(u64),
    /// What has sequences of a producer, by its number.
    Producer(i64),
}

impl Flow {
    /// Returns a flow that no other is equal to.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self::Calls(NEXT.fetch_add(1, Ordering::Relaxed))
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
    /// By where they end, and by arrival where that is equal.
    waiting: BTreeMap<(u64, u64), Submission>,
    arrivals: u64,
    /// Where the write ends that was taken last.
    reached: u64,
    /// The flows, and the producers, of which something waits.
    flows: HashMap<Flow, Waiting>,
    is_closed: bool,
}

/// What waits of a flow.
#[derive(Debug, Default)]
struct Waiting {
    /// How many writes.
    writes: usize,
    /// Where the last of them ends.
    end: u64,
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
        let flow = self.flows.entry(write.from).or_default();
        let start = self.reached.max(flow.end);
        let mut end = start.saturating_add(write.bytes.max(BYTES_MIN));
        if let Some(producer) = producer_of(&write) {
            let before = self.flows.entry(producer).or_default();
            end = end.max(before.end);
            before.add(end);
        }
        self.flows.entry(write.from).or_default().add(end);
        self.waiting.insert((end, self.arrivals), write);
        self.arrivals += 1;
    }

    fn take(&mut self) -> Option<Submission> {
        let ((end, _), write) = self.waiting.pop_first()?;
        self.reached = end;
        self.left(&write);
        Some(write)
    }

    /// Hears that a write waits no more.
    fn left(&mut self, write: &Submission) {
        for flow in [Some(write.from), producer_of(write)].into_iter().flatten() {
            if let Entry::Occupied(mut waiting) = self.flows.entry(flow) {
                waiting.get_mut().writes -= 1;
                if waiting.get().writes == 0 {
                    waiting.remove();
                }
            }
        }
    }
}

impl Waiting {
    fn add(&mut self, end: u64) {
        self.writes += 1;
        self.end = end;
    }
}

/// Returns the producer whose sequences a write has. Whatever it comes from, it stays behind what that producer has
/// waiting: an attempt that a broken stream or connection has left here must come neither behind its repeat nor
/// behind what was sent when that was answered.
fn producer_of(write: &Submission) -> Option<Flow> {
    write.request.producer().map(Flow::Producer)
}

impl QueueReceiver {
    /// Returns the next write, if one waits.
    pub(in crate::node) fn try_recv(&self) -> Option<Submission> {
        self.0.state().take()
    }

    /// Takes out all writes but those of which `stays` is true, in the order in which they were next.
    pub(in crate::node) fn remove_all_but(
        &self,
        stays: impl Fn(&Submission) -> bool,
    ) -> Vec<Submission> {
        let mut state = self.0.state();
        let leaving = state.waiting.extract_if(.., |_, write| !stays(write));
        let leaving: Vec<Submission> = leaving.map(|(_, write)| write).collect();
        for write in &leaving {
            state.left(write);
        }
        leaving
    }

    /// Waits for the next write. Others of the runtime get their turn now and then, even where one always
    /// waits.
    ///
    /// Cancel safety: dropped, it has taken nothing.
    pub(in crate::node) async fn recv(&self) -> Submission {
        loop {
            tokio::task::coop::consume_budget().await;
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

    use bytes::Bytes;
    use prkdb_types::ProducerStamp;

    use super::*;
    use crate::storage::sequencer::{Condition, WriteRequest};

    const MIB: u64 = 1 << 20;

    /// Returns a write that its time tells from others.
    fn write(flow: Flow, bytes: u64, number: i64) -> Submission {
        let request = WriteRequest::Control { commands: Vec::new(), timestamp_ms: number };
        Submission { request, from: flow, bytes, deadline: None, reply: Box::new(|_| {}) }
    }

    fn number(write: &Submission) -> i64 {
        let WriteRequest::Control { timestamp_ms, .. } = &write.request else {
            panic!("{write:?}")
        };
        *timestamp_ms
    }

    fn drain(queue: &QueueReceiver) -> Vec<(Flow, i64)> {
        std::iter::from_fn(|| queue.try_recv()).map(|next| (next.from, number(&next))).collect()
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
    fn a_producer_keeps_its_order_whatever_it_comes_by() {
        let (sender, queue) = new();
        // What a stream that broke leaves in the queue, and what the next one brings.
        for (backlog, key) in [(4, "first"), (0, "second")] {
            let stream = Flow::new();
            for number in 0..backlog {
                sender.push(write(stream, MIB, number)).unwrap();
            }
            let request = WriteRequest::Delete {
                partition: 1,
                collection: 1,
                key: key.into(),
                timestamp_ms: 0,
                producer: Some(ProducerStamp { id: 7, epoch: 0, base_sequence: 0 }),
                condition: Condition::None,
            };
            sender.push(Submission { request, ..write(stream, 4 * MIB, 0) }).unwrap();
        }
        let taken = std::iter::from_fn(|| queue.try_recv());
        let keys: Vec<Bytes> = taken
            .filter_map(|write| match write.request {
                WriteRequest::Delete { key, .. } => Some(key),
                _ => None,
            })
            .collect();
        assert_eq!(keys, ["first", "second"]);
    }

    #[test]
    fn a_small_write_goes_before_the_backlog_of_another_flow() {
        let (sender, queue) = new();
        let (loader, caller) = (Flow::new(), Flow::new());
        for number in 0..16 {
            sender.push(write(loader, MIB, number)).unwrap();
        }
        for round in 0..8 {
            assert_eq!(queue.try_recv().unwrap().from, loader);
            sender.push(write(caller, 100, round)).unwrap();
            assert_eq!(queue.try_recv().unwrap().from, caller, "round {round}");
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
            *bytes.get_mut(&next.from).unwrap() += next.bytes;
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
        let first: Vec<_> = (0..20).map(|_| queue.try_recv().unwrap().from).collect();
        let of_idle = first.iter().filter(|flow| **flow == idle).count();
        assert!((9..=11).contains(&of_idle), "{of_idle} of 20");
    }

    #[test]
    fn whoever_comes_once_and_goes_does_not_hold_up_who_stays() {
        let (sender, queue) = new();
        let staying = Flow::new();
        for number in 0..8 {
            sender.push(write(staying, MIB, number)).unwrap();
        }
        for number in 0..56 {
            sender.push(write(Flow::new(), MIB, number)).unwrap();
        }
        let mut of_staying = 0;
        for number in 0..8 * 57 {
            of_staying += usize::from(queue.try_recv().unwrap().from == staying);
            sender.push(write(Flow::new(), MIB, number)).unwrap();
        }
        assert!((7..=8).contains(&of_staying), "{of_staying} of 8");
    }

    #[test]
    fn flows_of_which_nothing_waits_are_forgotten() {
        let (sender, queue) = new();
        for number in 0..10_000 {
            sender.push(write(Flow::new(), 100, number)).unwrap();
            sender.push(write(Flow::new(), MIB, number)).unwrap();
            assert_eq!(queue.0.state().flows.len(), 2);
            queue.try_recv().unwrap();
            queue.try_recv().unwrap();
        }
        assert!(queue.0.state().flows.is_empty());
    }

    #[test]
    fn a_large_write_of_long_ago_is_not_held_against_its_flow() {
        let (sender, queue) = new();
        let (caller, loader) = (Flow::new(), Flow::new());
        sender.push(write(caller, 64 * MIB, 0)).unwrap();
        queue.try_recv().unwrap();
        for number in 0..16 {
            sender.push(write(loader, MIB, number)).unwrap();
        }
        sender.push(write(caller, 100, 1)).unwrap();
        assert_eq!(queue.try_recv().unwrap().from, caller);
    }

    #[test]
    fn what_does_not_stay_is_taken_out_and_the_rest_keeps_its_order() {
        let (sender, queue) = new();
        let flow = Flow::new();
        for number in 0..10 {
            sender.push(write(Flow::Node, 1, number)).unwrap();
            sender.push(write(flow, MIB, number)).unwrap();
        }
        let removed = queue.remove_all_but(|write| write.from == Flow::Node);
        assert_eq!(removed.iter().map(number).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        sender.push(write(flow, 1, 99)).unwrap();
        let left = drain(&queue);
        assert_eq!(left.iter().filter(|(of, _)| *of == flow).count(), 1);
        let of_node = left.iter().filter(|(of, _)| *of == Flow::Node).map(|(_, number)| *number);
        assert_eq!(of_node.collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_queue_that_never_runs_empty_lets_others_have_their_turn() {
        let (sender, queue) = new();
        for number in 0..4000 {
            sender.push(write(Flow::Node, 1, number)).unwrap();
        }
        let taking = async {
            for _ in 0..4000 {
                queue.recv().await;
            }
        };
        tokio::select! {
            biased;
            () = taking => panic!("all were taken at one go"),
            () = tokio::task::yield_now() => {}
        }
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
        let mut waiting = write(Flow::Node, 1, 0);
        waiting.reply = Box::new(move |_| drop(dropped));
        sender.push(waiting).unwrap();
        drop(queue);
        assert!(is_dropped.recv().is_err(), "its reply is dropped with it");
        assert!(matches!(sender.push(write(Flow::Node, 1, 1)), Err(PushError::Closed(_))));
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
            sender.push(write(Flow::Node, 1, number)).unwrap();
            if number % 3 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let taken = tokio::time::timeout(Duration::from_secs(30), taken).await.unwrap().unwrap();
        assert_eq!(taken, (0..1000).collect::<Vec<_>>());
    }
}
