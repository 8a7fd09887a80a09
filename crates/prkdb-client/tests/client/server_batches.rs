//! The stream of batches of the scripted server.

use std::collections::VecDeque;

use prkdb_proto::v1;
use prkdb_types::Batch;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::server::{Fake, Seen, Step, limits};

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
                Some(ask::Message::Open(_)) => {
                    let credit_bytes = self.state().credit_bytes;
                    let opened = reply::Opened { limits: Some(limits()), credit_bytes };
                    let _gone = send(reply::Message::Opened(opened)).await;
                    continue;
                }
                Some(ask::Message::Batch(batch)) => batch,
                None => return,
            };
            let step = self.see(&batch);
            let bytes = batch.batch.len();
            let (id, partition) = (batch.id, batch.partition);
            let ack = reply::Ack { id, partition, ..reply::Ack::default() };
            match step {
                Step::Serve => unanswered.push_back((reply::Message::Ack(ack), bytes)),
                Step::Refuse(detail) => {
                    let failed = reply::Failed { id, partition, detail: Some(detail) };
                    unanswered.push_back((reply::Message::Failed(failed), bytes));
                }
                Step::Hold | Step::ApplyAndHold => {}
                Step::Cut | Step::ApplyAndCut => {
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
