//! The windows without a stream.

use std::collections::BTreeMap;

use bytes::Bytes;
use prkdb_proto::v1::produce_reply::Ack;
use prkdb_types::ErrorCode;

use crate::{
    batch::{BatchAnswer, window::Windows},
    error::{ClientError, Outcome, Refusal},
};

/// Windows with a credit of 100 bytes and batches of at most 80.
fn windows() -> Windows {
    let mut windows = Windows::new(BTreeMap::new());
    windows.begin_stream(100, 80);
    windows
}

fn push(windows: &mut Windows, partition: u32, bytes: usize, token: u64) {
    let turn = windows.try_turn(partition).unwrap().unwrap();
    windows.push(turn, Bytes::from(vec![1; bytes]), 1, token).unwrap();
}

fn ack(windows: &mut Windows, partition: u32, id: u64) -> Vec<u64> {
    tokens(&windows.ack(Ack { id, partition, ..Ack::default() }))
}

fn tokens(answers: &[BatchAnswer]) -> Vec<u64> {
    let token = |answer: &BatchAnswer| match answer {
        BatchAnswer::Acked(acked) => acked.token,
        BatchAnswer::Failed(failed) => failed.token,
        BatchAnswer::NotApplied(batch) => batch.token,
    };
    answers.iter().map(token).collect()
}

fn refused() -> ClientError {
    ClientError::Request { code: ErrorCode::WrongPartition, message: "wrong".to_owned() }
}

/// Takes everything that may be sent and returns the ids.
fn sent(windows: &mut Windows) -> Vec<u64> {
    let mut ids = Vec::new();
    while windows.may_send() {
        ids.extend(windows.next_to_send().map(|batch| batch.id));
    }
    ids
}

#[test]
fn acknowledgements_are_told_in_order_per_partition() {
    let mut windows = windows();
    for token in 10..13 {
        push(&mut windows, 0, 10, token);
    }
    push(&mut windows, 1, 10, 20);
    assert_eq!(sent(&mut windows), [0, 1, 2, 3]);
    assert_eq!(ack(&mut windows, 0, 1), [0; 0]);
    assert_eq!(ack(&mut windows, 1, 3), [20]);
    assert_eq!(ack(&mut windows, 0, 0), [10, 11]);
    assert_eq!(ack(&mut windows, 0, 0), [0; 0], "an answer is told once");
    assert_eq!(ack(&mut windows, 0, 2), [12]);
    windows.finish();
    assert!(windows.is_done());
}

#[test]
fn the_credit_holds_back_what_would_exceed_it() {
    let mut windows = windows();
    push(&mut windows, 0, 60, 0);
    push(&mut windows, 0, 60, 1);
    assert_eq!(sent(&mut windows), [0]);
    assert!(windows.try_turn(1).unwrap().is_none(), "no room for more");
    windows.add_credit(20);
    assert_eq!(sent(&mut windows), [1]);
    ack(&mut windows, 0, 0);
    assert!(windows.try_turn(1).unwrap().is_some());
}

#[test]
fn one_batch_alone_goes_out_whatever_its_size() {
    let mut windows = Windows::new(BTreeMap::new());
    windows.begin_stream(0, 80);
    push(&mut windows, 0, 80, 0);
    assert!(windows.try_turn(0).unwrap().is_none());
    assert_eq!(sent(&mut windows), [0]);
}

#[test]
fn a_new_stream_is_given_what_has_no_answer_in_the_order_it_came() {
    let mut windows = windows();
    for (partition, token) in [(1, 0), (0, 1), (1, 2), (0, 3)] {
        push(&mut windows, partition, 10, token);
    }
    sent(&mut windows);
    ack(&mut windows, 0, 3);
    ack(&mut windows, 1, 0);
    windows.begin_stream(100, 80);
    assert_eq!(sent(&mut windows), [1, 2], "3 is answered and waits for 1");
    assert_eq!(ack(&mut windows, 0, 1), [1, 3]);
}

#[test]
fn a_failure_takes_the_rest_of_its_partition_with_it() {
    let mut windows = windows();
    for token in 0..4 {
        push(&mut windows, 0, 10, token);
    }
    push(&mut windows, 1, 10, 4);
    let early = windows.try_turn(0).unwrap().unwrap();
    windows.next_to_send();
    windows.next_to_send();
    let answers = windows.fail(0, 1, "batch-put", refused());
    assert_eq!(tokens(&answers), [0; 0], "0 has no answer yet and comes first");
    assert!(matches!(windows.try_turn(0), Err(ClientError::Halted { partition: 0 })));
    let late = windows.push(early, Bytes::from_static(b"late"), 1, 9);
    assert!(matches!(late, Err(ClientError::Halted { partition: 0 })));
    windows.resume(0).unwrap();
    windows.give_back(early);
    let turn = windows.try_turn(0).unwrap().unwrap();
    assert_eq!(turn.base_sequence, 1, "the place of the batch that failed");
    assert_eq!(sent(&mut windows), [4], "what was not applied is not sent any more");
    assert_eq!(ack(&mut windows, 0, 3), [0; 0], "its answer stands");
    assert_eq!(ack(&mut windows, 0, 0), [0, 1, 2, 3]);
}

#[test]
fn the_end_tells_what_was_sent_from_what_was_not() {
    let mut windows = windows();
    for token in 0..3 {
        push(&mut windows, 0, 10, token);
    }
    windows.next_to_send();
    windows.next_to_send();
    windows.not_applied(0, 1);
    let outcomes: Vec<Option<Outcome>> = windows
        .end("batch-put", &ClientError::Unreachable { attempts: Vec::new() })
        .into_iter()
        .map(|answer| match answer {
            BatchAnswer::Failed(failed) => failed.error.outcome(),
            other => panic!("{other:?}"),
        })
        .collect();
    let not_applied = Some(Outcome::NotApplied);
    assert_eq!(outcomes, [Some(Outcome::Unknown), not_applied, not_applied]);
    assert!(windows.is_done());
    assert!(windows.try_turn(0).is_err());
}

/// A refusal of the server that says that this attempt is not applied.
fn not_taken(code: ErrorCode) -> ClientError {
    ClientError::Refused(Box::new(Refusal {
        code,
        message: "no".to_owned(),
        hint: String::new(),
        leader_address: String::new(),
        outcome: Some(Outcome::NotApplied),
        current_version: None,
        conflict: None,
        detailed: true,
    }))
}

/// Returns tokens and outcomes; what is not applied because of one before it is told by no error.
fn outcomes(answers: Vec<BatchAnswer>) -> Vec<(u64, Option<Outcome>)> {
    let outcome = |answer| match answer {
        BatchAnswer::Failed(failed) => (failed.token, failed.error.outcome()),
        BatchAnswer::NotApplied(batch) => (batch.token, None),
        BatchAnswer::Acked(acked) => panic!("{acked:?}"),
    };
    answers.into_iter().map(outcome).collect()
}

/// Two batches that a stream which broke was given, and one that it was not.
fn in_doubt() -> Windows {
    let mut windows = windows();
    for token in 0..3 {
        push(&mut windows, 0, 10, token);
    }
    windows.next_to_send();
    windows.next_to_send();
    windows.begin_stream(100, 80);
    assert_eq!(sent(&mut windows), [0, 1, 2]);
    windows
}

#[test]
fn a_server_that_cannot_take_a_repeat_says_nothing_about_the_first_attempt() {
    let unknown = Some(Outcome::Unknown);
    for code in [ErrorCode::DiskFull, ErrorCode::UnknownProducer] {
        let answers = in_doubt().fail(0, 0, "batch-put", not_taken(code));
        assert_eq!(outcomes(answers), [(0, unknown), (1, unknown), (2, None)], "{}", code.name());
    }
}

#[test]
fn a_judgement_is_about_both_attempts() {
    let answers = in_doubt().fail(0, 0, "batch-put", not_taken(ErrorCode::BatchInvalid));
    assert_eq!(outcomes(answers), [(0, Some(Outcome::NotApplied)), (1, None), (2, None)]);
}

#[test]
fn what_no_stream_before_was_given_is_not_applied_where_it_is_refused() {
    let mut windows = windows();
    push(&mut windows, 0, 10, 0);
    push(&mut windows, 0, 10, 1);
    sent(&mut windows);
    let answers = windows.fail(0, 0, "batch-put", not_taken(ErrorCode::DiskFull));
    assert_eq!(outcomes(answers), [(0, Some(Outcome::NotApplied)), (1, None)]);
}

#[test]
fn a_refusal_that_passes_leaves_the_doubt_about_an_earlier_stream() {
    let mut windows = in_doubt();
    windows.not_applied(0, 0);
    windows.begin_stream(100, 80);
    sent(&mut windows);
    let answers = windows.fail(0, 0, "batch-put", not_taken(ErrorCode::DiskFull));
    let unknown = Some(Outcome::Unknown);
    assert_eq!(outcomes(answers), [(0, unknown), (1, unknown), (2, None)]);
}
