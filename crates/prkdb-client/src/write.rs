//! One write: its lane, its partition, its attempts.
//!
//! Every attempt of a write carries the same producer, sequence, partition and time, so that the server
//! makes the same bytes of it and applies it once. The sequence moves on only when the write was applied.

use std::sync::Arc;

use prkdb_proto::v1::{self, exchange_reply, exchange_request::Operation};
use prkdb_types::{ErrorCode, ErrorKind, Retry};
use prost::Message as _;

use crate::{
    attempts::{Attempts, Fault, Next},
    error::{ClientError, Outcome},
    kv::{Delete, Put},
    lanes::LaneGuard,
    link::Link,
    options::Transport,
    routes::Partitions,
    shared::Shared,
};

/// A put or a delete with its time.
#[derive(Debug)]
pub(crate) enum Write {
    Put(v1::PutRequest),
    Delete(v1::DeleteRequest),
}

impl Write {
    pub(crate) fn put(put: Put, now_ms: impl FnOnce() -> i64) -> Self {
        let mut request = put.request;
        request.timestamp_ms = put.timestamp_ms.unwrap_or_else(now_ms);
        Self::Put(request)
    }

    pub(crate) fn delete(delete: Delete, now_ms: impl FnOnce() -> i64) -> Self {
        let mut request = delete.request;
        request.timestamp_ms = delete.timestamp_ms.unwrap_or_else(now_ms);
        Self::Delete(request)
    }

    fn collection(&self) -> &str {
        match self {
            Self::Put(request) => &request.collection,
            Self::Delete(request) => &request.collection,
        }
    }

    fn key(&self) -> &[u8] {
        match self {
            Self::Put(request) => &request.key,
            Self::Delete(request) => &request.key,
        }
    }

    fn value_bytes(&self) -> usize {
        match self {
            Self::Put(request) => request.value.len(),
            Self::Delete(_) => 0,
        }
    }

    /// Sets what the partition and the lane decide.
    fn address_to(&mut self, partition: u32, producer: v1::Producer) {
        match self {
            Self::Put(request) => {
                request.partition = Some(partition);
                request.producer = Some(producer);
            }
            Self::Delete(request) => {
                request.partition = Some(partition);
                request.producer = Some(producer);
            }
        }
    }

    /// Makes the message of one attempt; its bytes are shared, not copied.
    fn operation(&self) -> Operation {
        match self {
            Self::Put(request) => Operation::Put(request.clone()),
            Self::Delete(request) => Operation::Delete(request.clone()),
        }
    }

    /// Returns whether the answer stands for a record: a delete that found nothing writes none.
    fn wrote(&self, reply: &v1::WriteReply) -> bool {
        match self {
            Self::Put(_) => true,
            Self::Delete(_) => reply.existed || reply.duplicate,
        }
    }
}

/// A write between its attempts.
#[derive(Debug)]
struct Course {
    write: Write,
    lane: Option<LaneGuard>,
    /// Where the last attempt went.
    place: Option<(Arc<Partitions>, u32)>,
    /// The leader that the last answer named.
    leader: Option<String>,
    /// The client's memory of the collection was wrong once; the second time the answer stands.
    asked_again: bool,
    /// The cluster had forgotten the lane's producer.
    renewed: bool,
}

impl Shared {
    /// Writes, and returns once the write is durable and applied.
    ///
    /// Cancel safety: dropping the future retires the lane where the write was under way.
    pub(crate) async fn write(
        &self,
        write: Write,
        mut attempts: Attempts,
    ) -> Result<v1::WriteReply, ClientError> {
        let mut course = Course {
            write,
            lane: None,
            place: None,
            leader: None,
            asked_again: false,
            renewed: false,
        };
        loop {
            let fault = match self.try_write(&mut course, &attempts).await {
                Ok(reply) => return Ok(course.applied(reply)),
                Err(fault) => fault,
            };
            if !attempts.is_in_doubt() && self.mend(&mut course, &fault)? {
                continue;
            }
            self.step(&mut course, &mut attempts, fault).await?;
        }
    }

    /// Makes one attempt.
    async fn try_write(
        &self,
        course: &mut Course,
        attempts: &Attempts,
    ) -> Result<v1::WriteReply, Fault> {
        if course.lane.is_none() {
            let take = async { self.lanes.take().await.map_err(Fault::Final) };
            course.lane = Some(attempts.within(false, take).await?);
        }
        let (partitions, partition) = self.place(course, attempts).await?;
        let address = match &course.leader {
            Some(leader) => leader.as_str(),
            None => partitions.leader(partition),
        };
        let link = attempts.within(false, self.pool.at(address)).await?;
        let Some(lane) = &mut course.lane else { return Err(Fault::Final(ClientError::Closed)) };
        course.write.address_to(partition, lane.producer(partitions.key(partition)));
        let operation = course.write.operation();
        check_size(&link, &course.write, &operation)?;
        match self.options.transport {
            Transport::Stream => {
                let ticket = link.submit(operation, attempts).await?;
                lane.set_in_flight(true);
                match link.answer(ticket, attempts).await? {
                    exchange_reply::Result::Write(reply) => Ok(reply),
                    _ => Err(link.wrong_answer("about a write")),
                }
            }
            Transport::Unary => {
                lane.set_in_flight(true);
                unary(&link, operation, attempts).await
            }
        }
    }

    /// Finds the partition and its leader. In doubt about an earlier attempt, the partition stays.
    async fn place(
        &self,
        course: &mut Course,
        attempts: &Attempts,
    ) -> Result<(Arc<Partitions>, u32), Fault> {
        let asked = attempts.within(false, self.partitions(course.write.collection())).await;
        let in_doubt = attempts.is_in_doubt();
        let partitions = match asked {
            Ok(partitions) => partitions,
            // The question was refused, which decides nothing about the write.
            Err(Fault::Refused(refusal))
                if in_doubt && refusal.code.retry() != Retry::Automatic =>
            {
                return Err(Fault::Final(attempts.unknown(refusal.message)));
            }
            Err(fault) => return Err(fault),
        };
        let partition = match &course.place {
            Some((before, partition)) if in_doubt => {
                if before.key(*partition) != partitions.key(*partition) {
                    let reason = "the collection was replaced by another of its name".to_owned();
                    return Err(Fault::Final(attempts.unknown(reason)));
                }
                *partition
            }
            _ => partitions.of(course.write.key()),
        };
        course.place = Some((Arc::clone(&partitions), partition));
        Ok((partitions, partition))
    }

    /// Mends what made a server refuse a write that was not applied: the client's memory of the collection,
    /// or a producer that the cluster has forgotten. Returns whether to try again.
    fn mend(&self, course: &mut Course, fault: &Fault) -> Result<bool, ClientError> {
        match fault.refused_with() {
            Some(
                ErrorCode::CollectionNotFound
                | ErrorCode::PartitionNotFound
                | ErrorCode::WrongPartition,
            ) if !course.asked_again => {
                let Some((partitions, _)) = course.place.take() else { return Ok(false) };
                self.routes.forget(&partitions);
                course.asked_again = true;
            }
            Some(ErrorCode::UnknownProducer) if !course.renewed => {
                let Some(lane) = &mut course.lane else { return Ok(false) };
                lane.renew()?;
                course.renewed = true;
            }
            _ => return Ok(false),
        }
        if let Some(lane) = &mut course.lane {
            lane.set_in_flight(false);
        }
        Ok(true)
    }

    /// Prepares the next attempt, or ends the write with its error.
    async fn step(
        &self,
        course: &mut Course,
        attempts: &mut Attempts,
        fault: Fault,
    ) -> Result<(), ClientError> {
        if let Some((partitions, _)) = &course.place
            && !is_about_the_write(&fault)
        {
            self.routes.forget(partitions);
        }
        let next = attempts.next(fault).await;
        if let Err(error) = &next {
            course.failed(error, attempts.is_in_doubt());
        } else if let Some(lane) = &mut course.lane {
            lane.set_in_flight(attempts.is_in_doubt());
        }
        course.leader = match next? {
            Next::Again => None,
            Next::Follow(leader) => Some(leader),
        };
        Ok(())
    }
}

impl Course {
    fn applied(&mut self, reply: v1::WriteReply) -> v1::WriteReply {
        let wrote = self.write.wrote(&reply);
        self.settle(wrote);
        reply
    }

    /// Leaves the lane as the last answer says; in doubt it is retired.
    fn failed(&mut self, error: &ClientError, in_doubt: bool) {
        match error.outcome() {
            Some(Outcome::Applied) => self.settle(true),
            Some(Outcome::NotApplied) if !in_doubt && !error.has_lost_count() => self.settle(false),
            _ => {
                if let Some(lane) = &mut self.lane {
                    lane.set_in_flight(true);
                }
            }
        }
    }

    fn settle(&mut self, wrote: bool) {
        let (Some(lane), Some((partitions, partition))) = (&mut self.lane, &self.place) else {
            return;
        };
        lane.set_in_flight(false);
        if wrote {
            lane.advance(partitions.key(*partition));
        }
    }
}

/// Returns whether a fault is a judgement on the write, which says nothing against the route.
fn is_about_the_write(fault: &Fault) -> bool {
    match fault.refused_with() {
        Some(code) => matches!(code.kind(), ErrorKind::Invalid | ErrorKind::Conflict),
        None => false,
    }
}

async fn unary(
    link: &Link,
    operation: Operation,
    attempts: &Attempts,
) -> Result<v1::WriteReply, Fault> {
    let call = async {
        let mut kv = link.kv();
        let answer = match operation {
            Operation::Put(request) => kv.put(attempts.request(request)).await,
            Operation::Delete(request) => kv.delete(attempts.request(request)).await,
            _ => return Err(link.wrong_answer("about a write")),
        };
        answer.map(tonic::Response::into_inner).map_err(|status| link.fault(status))
    };
    attempts.within(true, call).await
}

/// Refuses here what the server would refuse, since a message above its limit ends the stream for all.
fn check_size(link: &Link, write: &Write, operation: &Operation) -> Result<(), Fault> {
    let refuse = |code, what: &str, bytes: usize, limit: u64| {
        let message = format!("{what} of {bytes} bytes is above the server's limit of {limit}");
        Err(Fault::Final(ClientError::Request { code, message }))
    };
    let above = |bytes: usize, limit: u64| u64::try_from(bytes).is_ok_and(|bytes| bytes > limit);
    if let Some(limits) = link.greeting().and_then(|greeting| greeting.limits) {
        let (key, value) = (write.key().len(), write.value_bytes());
        if limits.max_key_bytes > 0 && above(key, limits.max_key_bytes) {
            return refuse(ErrorCode::KeyTooLarge, "a key", key, limits.max_key_bytes);
        }
        if limits.max_value_bytes > 0 && above(value, limits.max_value_bytes) {
            return refuse(ErrorCode::ValueTooLarge, "a value", value, limits.max_value_bytes);
        }
    }
    check_message(link, operation)
}

/// Refuses a message that the server would not take.
pub(crate) fn check_message(link: &Link, operation: &Operation) -> Result<(), Fault> {
    let bytes = match operation {
        Operation::Put(request) => request.encoded_len(),
        Operation::Get(request) => request.encoded_len(),
        Operation::Delete(request) => request.encoded_len(),
        Operation::MultiGet(request) => request.encoded_len(),
    };
    // Id, timeout and the operation's own frame come on top.
    let bytes = bytes.saturating_add(ENVELOPE_BYTES);
    let limit = link.message_bytes_max();
    if u64::try_from(bytes).is_ok_and(|bytes| bytes <= limit) {
        return Ok(());
    }
    let message = format!("a message of {bytes} bytes is above the server's limit of {limit}");
    Err(Fault::Final(ClientError::Request { code: ErrorCode::MessageTooLarge, message }))
}

/// What a request has around its operation, at most: three tags, two numbers and a length.
const ENVELOPE_BYTES: usize = 32;
