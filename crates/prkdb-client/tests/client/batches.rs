//! Batches go out in order per partition, within window and credit, and again after a break.

use std::collections::BTreeMap;

use bytes::Bytes;
use prkdb_client::{
    BatchAnswer, BatchAnswers, BatchWriter, Client, ClientOptions, ErrorCode, Outcome, Slot,
    WriterOptions,
};
use prkdb_proto::v1;
use prkdb_types::{BatchBuilder, Compression};
use tokio::time::{Duration, timeout};

use crate::server::{Fake, MESSAGE_BYTES_MAX, Step, refusal};

fn encode(slot: &Slot, records: u32) -> Bytes {
    let mut builder = BatchBuilder::new(slot.stamp(), Compression::None);
    for record in 0..records {
        builder.push(1, Some(&record.to_be_bytes()), Some(b"value"), &[]).unwrap();
    }
    builder.finish().unwrap().to_bytes()
}

async fn send(writer: &BatchWriter, partition: u32, records: u32, token: u64) {
    let slot = writer.slot(partition).await.unwrap();
    let batch = encode(&slot, records);
    slot.send(batch, records, token).unwrap();
}

async fn open(fake: &Fake) -> (BatchWriter, BatchAnswers) {
    let client = fake.client().await;
    BatchWriter::open(&client, "default", WriterOptions::default()).await.unwrap()
}

/// Reads all answers and tells them by partition.
async fn answers(mut answers: BatchAnswers) -> BTreeMap<u32, Vec<(u64, &'static str)>> {
    let mut told: BTreeMap<u32, Vec<_>> = BTreeMap::new();
    while let Some(answer) = answers.next_ack().await {
        let (partition, token, what) = match answer {
            BatchAnswer::Acked(acked) => (acked.partition, acked.token, "acked"),
            BatchAnswer::Failed(failed) => (failed.partition, failed.token, "failed"),
            BatchAnswer::NotApplied(batch) => (batch.partition, batch.token, "not applied"),
        };
        told.entry(partition).or_default().push((token, what));
    }
    told
}

/// Returns what came for a partition, as base sequences.
fn sequences(fake: &Fake, partition: u32) -> Vec<i32> {
    let state = fake.state();
    let seen = state.batches.iter().filter(|seen| seen.partition == partition);
    seen.map(|seen| seen.base_sequence).collect()
}

#[tokio::test]
async fn every_batch_is_acknowledged_in_order_with_its_token() {
    let fake = Fake::start().await;
    let (writer, acks) = open(&fake).await;
    for token in 0..10 {
        send(&writer, u32::try_from(token % 2).unwrap(), 5, token).await;
    }
    writer.finish();
    let told = answers(acks).await;
    assert_eq!(told[&0], [0, 2, 4, 6, 8].map(|token| (token, "acked")));
    assert_eq!(told[&1], [1, 3, 5, 7, 9].map(|token| (token, "acked")));
    assert_eq!(sequences(&fake, 0), [0, 5, 10, 15, 20]);
    let id = i64::try_from(writer.producer_id()).unwrap();
    assert!(fake.state().batches.iter().all(|seen| seen.producer_id == id));
}

#[tokio::test]
async fn a_writer_goes_on_as_the_producer_and_from_the_sequences_it_is_given() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    let options = WriterOptions {
        producer_id: Some(77),
        sequences: BTreeMap::from([(1, (1 << 31) - 2)]),
        ..WriterOptions::default()
    };
    let (writer, acks) = BatchWriter::open(&client, "default", options).await.unwrap();
    send(&writer, 1, 5, 0).await;
    send(&writer, 1, 5, 1).await;
    drop(writer);
    assert_eq!(answers(acks).await[&1].len(), 2);
    assert_eq!(sequences(&fake, 1), [i32::MAX - 1, 3], "sequences wrap at 2^31");
    assert_eq!(fake.state().batches[0].producer_id, 77);
}

#[tokio::test]
async fn after_a_cut_everything_without_an_answer_is_sent_again_in_order() {
    let fake = Fake::start().await;
    let (writer, acks) = open(&fake).await;
    fake.hold_acks();
    fake.script(std::iter::repeat_n(Step::Serve, 5).chain([Step::Cut]));
    for token in 0..6 {
        send(&writer, u32::try_from(token % 2).unwrap(), 2, token).await;
    }
    fake.received(12).await;
    fake.release_acks();
    writer.finish();
    let told = answers(acks).await;
    assert_eq!(told[&0], [0, 2, 4].map(|token| (token, "acked")));
    assert_eq!(told[&1], [1, 3, 5].map(|token| (token, "acked")));
    let seen = fake.state().batches.clone();
    assert_eq!(seen[..6], seen[6..], "the same bytes in the same order");
    assert_eq!(fake.state().opened, [0, 9], "and into no other collection of that name");
}

#[tokio::test]
async fn at_most_sixteen_batches_of_a_partition_wait() {
    let fake = Fake::start().await;
    let (writer, acks) = open(&fake).await;
    fake.hold_acks();
    for token in 0..16 {
        send(&writer, 0, 1, token).await;
    }
    fake.received(16).await;
    assert!(timeout(Duration::ZERO, writer.slot(0)).await.is_err(), "the window is full");
    send(&writer, 1, 1, 16).await;
    fake.release_acks();
    send(&writer, 0, 1, 17).await;
    writer.finish();
    assert_eq!(answers(acks).await[&0].len(), 17);
}

#[tokio::test]
async fn a_partition_has_one_slot_at_a_time_and_an_unused_one_comes_back() {
    let fake = Fake::start().await;
    let (writer, acks) = open(&fake).await;
    let slot = writer.slot(0).await.unwrap();
    assert!(timeout(Duration::ZERO, writer.slot(0)).await.is_err());
    drop(slot);
    send(&writer, 0, 1, 0).await;
    writer.finish();
    assert_eq!(answers(acks).await[&0], [(0, "acked")]);
    assert_eq!(sequences(&fake, 0), [0]);
}

#[tokio::test]
async fn the_credit_bounds_what_is_under_way() {
    let fake = Fake::start().await;
    fake.state().credit_bytes = 500;
    let (writer, acks) = open(&fake).await;
    let told = tokio::spawn(answers(acks));
    for token in 0..50 {
        send(&writer, u32::try_from(token % 4).unwrap(), 8, token).await;
    }
    writer.finish();
    assert_eq!(told.await.unwrap().values().map(Vec::len).sum::<usize>(), 50);
    let most = fake.state().waiting_bytes_max;
    assert!((1..=500).contains(&most), "{most} bytes were under way");
}

#[tokio::test]
async fn a_failure_halts_its_partition_until_the_caller_resumes_it() {
    let fake = Fake::start().await;
    let (writer, mut acks) = open(&fake).await;
    fake.hold_acks();
    let wrong = refusal(ErrorCode::WrongPartition, v1::Outcome::NotApplied);
    fake.script([Step::Serve, Step::Refuse(wrong)]);
    for token in 0..4 {
        send(&writer, 0, 3, token).await;
    }
    send(&writer, 1, 3, 4).await;
    fake.received(5).await;
    fake.release_acks();
    assert!(matches!(acks.next_ack().await, Some(BatchAnswer::Acked(acked)) if acked.token == 0));
    let Some(BatchAnswer::Failed(failed)) = acks.next_ack().await else { panic!("no failure") };
    assert_eq!((failed.token, failed.base_sequence), (1, 3));
    assert_eq!(failed.error.outcome(), Some(Outcome::NotApplied));
    for token in [2, 3] {
        let answer = acks.next_ack().await;
        assert!(matches!(answer, Some(BatchAnswer::NotApplied(batch)) if batch.token == token));
    }
    let halted = writer.slot(0).await.unwrap_err();
    assert!(halted.to_string().contains("partition 0"), "{halted}");
    writer.resume(0).unwrap();
    send(&writer, 0, 3, 5).await;
    writer.finish();
    let told = answers(acks).await;
    assert_eq!(told[&0], [(5, "acked")]);
    assert_eq!(told[&1], [(4, "acked")]);
    assert_eq!(sequences(&fake, 0), [0, 3, 6, 9, 3]);
}

#[tokio::test]
async fn a_failure_that_passes_by_itself_is_tried_again() {
    let fake = Fake::start().await;
    let (writer, acks) = open(&fake).await;
    fake.script([Step::Refuse(refusal(ErrorCode::Overloaded, v1::Outcome::NotApplied))]);
    send(&writer, 0, 3, 0).await;
    send(&writer, 0, 3, 1).await;
    writer.finish();
    assert_eq!(answers(acks).await[&0], [(0, "acked"), (1, "acked")]);
}

#[tokio::test]
async fn retries_run_out_with_an_unknown_outcome_for_what_was_sent() {
    let fake = Fake::start().await;
    let client = Client::connect(ClientOptions { retries: 1, ..fake.options() }).await.unwrap();
    let (writer, mut acks) =
        BatchWriter::open(&client, "default", WriterOptions::default()).await.unwrap();
    fake.script([Step::Cut, Step::Cut]);
    send(&writer, 0, 3, 0).await;
    let Some(BatchAnswer::Failed(failed)) = acks.next_ack().await else { panic!("no failure") };
    assert_eq!(failed.error.outcome(), Some(Outcome::Unknown));
    assert_eq!(failed.error.exit_code(), 5);
    assert!(acks.next_ack().await.is_none());
    assert_eq!(writer.slot(0).await.unwrap_err().exit_code(), 4, "why the writer ended");
}

#[tokio::test]
async fn a_batch_that_cannot_be_taken_is_refused_before_it_is_sent() {
    let fake = Fake::start().await;
    let (writer, acks) = open(&fake).await;
    let slot = writer.slot(0).await.unwrap();
    let bytes = Bytes::from(vec![0; usize::try_from(MESSAGE_BYTES_MAX).unwrap()]);
    assert_eq!(slot.send(bytes, 1, 0).unwrap_err().code(), ErrorCode::MessageTooLarge);
    let slot = writer.slot(0).await.unwrap();
    assert_eq!(slot.send(Bytes::new(), 0, 0).unwrap_err().code(), ErrorCode::BatchInvalid);
    writer.finish();
    assert!(answers(acks).await.is_empty());
    assert_eq!(writer.slot(0).await.unwrap_err().to_string(), "the batch writer is closed");
}
