//! The stream of batches of the scripted server.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use prkdb_client::ErrorCode;
use prkdb_proto::v1;
use prkdb_types::Batch;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::server::{Fake, Seen, Step, limits, refusal};

fn sequence_of(batch: &Bytes) -> i32 {
    Batch::parse(batch.clone()).unwrap().header().base_sequence
}

fn answer(
    id: u64,
    partition: u32,
    applied: Result<(u64, bool), v1::ErrorDetail>,
) -> v1::produce_reply::Message {
    use v1::produce_reply::{Ack, Failed, Message};
    match applied {
        Ok((base_offset, duplicate)) => {
            let append_time_ms = 1_000;
            let revision = 1;
            let ack = Ack { id, partition, base_offset, revision, append_time_ms, duplicate };
            Message::Ack(ack)
        }
        Err(detail) => Message::Failed(Failed { id, partition, detail: Some(detail) }),
    }
}

impl Fake {
    pub(crate) async fn batches(
        self,
        mut requests: Streaming<v1::ProduceRequest>,
        replies: mpsc::Sender<Result<v1::ProduceReply, Status>>,
    ) {
        use v1::{produce_reply as reply, produce_request as ask};
        let send = async |message: reply::Message| {
            replies.send(Ok(v1::ProduceReply { message: Some(message) })).await
        };
        let mut unanswered = VecDeque::new();
        let mut acks = self.acks.subscribe();
        // Where a batch failed, and what must come next for its partition to go on.
        let mut failed_at = BTreeMap::new();
        self.state().waiting_bytes = 0;
        loop {
            let held = !*acks.borrow_and_update();
            while let Some(message) = (!held).then(|| unanswered.pop_front()).flatten() {
                let (message, bytes): (reply::Message, usize) = message;
                self.state().waiting_bytes -= bytes;
                if send(message).await.is_err() {
                    return;
                }
            }
            let message = tokio::select! {
                message = requests.message() => message,
                _ = acks.changed() => continue,
            };
            let batch = match message.ok().flatten().and_then(|message| message.message) {
                Some(ask::Message::Open(open)) => {
                    self.state().opened.push(open.collection_id);
                    let (limits, credit_bytes) = (Some(limits()), self.state().credit_bytes);
                    let opened = reply::Opened { limits, credit_bytes, collection_id: 9 };
                    let _gone = send(reply::Message::Opened(opened)).await;
                    continue;
                }
                Some(ask::Message::Batch(batch)) => batch,
                None => return,
            };
            let step = self.see(&batch);
            let bytes = batch.batch.len();
            let (id, partition) = (batch.id, batch.partition);
            match step {
                Step::Serve => {
                    let sequence = sequence_of(&batch.batch);
                    let applied = match failed_at.get(&partition) {
                        Some(expected) if *expected != sequence => {
                            Err(refusal(ErrorCode::OutOfOrder, v1::Outcome::NotApplied))
                        }
                        _ => {
                            failed_at.remove(&partition);
                            self.apply_batch(partition, &batch.batch)
                        }
                    };
                    unanswered.push_back((answer(id, partition, applied), bytes));
                }
                Step::Refuse(detail) => {
                    failed_at.insert(partition, sequence_of(&batch.batch));
                    let failed = reply::Failed { id, partition, detail: Some(detail) };
                    unanswered.push_back((reply::Message::Failed(failed), bytes));
                }
                Step::Hold | Step::ApplyAndHold => {}
                Step::Cut | Step::ApplyAndCut => {
                    if matches!(step, Step::ApplyAndCut) {
                        let _applied = self.apply_batch(partition, &batch.batch);
                    }
                    let _gone = replies.send(Err(Status::unavailable("cut"))).await;
                    return;
                }
            }
        }
    }

    fn see(&self, batch: &v1::produce_request::Batch) -> Step {
        let parsed = Batch::parse(batch.batch.clone()).unwrap();
        parsed.verify_crc().unwrap();
        let header = parsed.header();
        let step = {
            let mut state = self.state();
            state.batches.push(Seen {
                partition: batch.partition,
                base_sequence: header.base_sequence,
                producer_id: header.producer_id,
                bytes: batch.batch.clone(),
            });
            state.waiting_bytes += batch.batch.len();
            state.waiting_bytes_max = state.waiting_bytes_max.max(state.waiting_bytes);
            state.script.pop_front().unwrap_or(Step::Serve)
        };
        self.received.send_modify(|count| *count += 1);
        step
    }
}
