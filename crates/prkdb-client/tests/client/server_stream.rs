//! The logs of the scripted server: appended by batches, read by fetches.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use prkdb_client::ErrorCode;
use prkdb_proto::v1::{self, position::Place, stream_server};
use prkdb_types::{Batch, DecompressLimit, sequence_after};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{
    errors::status_with,
    server::{Fake, Replies, refusal},
};

/// The number of the one collection.
pub(crate) const COLLECTION_ID: u32 = 7;

/// How the batches of a reply are cut into parts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Layout {
    /// All in one part.
    #[default]
    Together,
    /// Each as its head and its tail.
    HeadAndTail,
    /// Into pieces of so many bytes.
    Shredded(usize),
}

/// What the server does with the next fetch.
#[derive(Clone, Debug)]
pub(crate) enum FetchStep {
    /// Ends the stream with an error after so many replies.
    CutAfter(usize),
    /// Answers with this.
    Refuse(Status),
    /// Does what it should.
    Serve,
}

/// The logs and how they are read.
#[derive(Debug)]
pub(crate) struct StreamState {
    pub(crate) log: BTreeMap<u32, Vec<Batch>>,
    pub(crate) log_start: u64,
    pub(crate) partitioner: v1::Partitioner,
    pub(crate) key_index: v1::KeyIndex,
    /// Where partitions are led, if not where the others are.
    pub(crate) leaders: BTreeMap<u32, String>,
    pub(crate) layout: Layout,
    pub(crate) batches_per_reply: usize,
    pub(crate) fetch_script: VecDeque<FetchStep>,
    pub(crate) fetches: Vec<v1::FetchRequest>,
    appended: watch::Sender<()>,
    /// Of each partition and producer: the sequence that comes next and the offsets of what came.
    producers: BTreeMap<(u32, i64), (i32, BTreeMap<i32, u64>)>,
}

impl Default for StreamState {
    fn default() -> Self {
        Self {
            log: BTreeMap::new(),
            log_start: 0,
            partitioner: v1::Partitioner::Ring,
            key_index: v1::KeyIndex::Off,
            leaders: BTreeMap::new(),
            layout: Layout::default(),
            batches_per_reply: 2,
            fetch_script: VecDeque::new(),
            fetches: Vec::new(),
            appended: watch::Sender::new(()),
            producers: BTreeMap::new(),
        }
    }
}

impl StreamState {
    pub(crate) fn end(&self, partition: u32) -> u64 {
        let last = self.log.get(&partition).and_then(|log| log.last());
        last.map_or(self.log_start, Batch::next_offset)
    }

    /// Puts a batch at the end of a log, at the offset it has.
    pub(crate) fn push(&mut self, partition: u32, batch: Batch) {
        self.log.entry(partition).or_default().push(batch);
        self.appended.send_replace(());
    }

    fn find(&self, partition: u32, place: Option<Place>) -> u64 {
        match place {
            Some(Place::Offset(offset)) => offset,
            Some(Place::Earliest(_)) | None => self.log_start,
            Some(Place::Latest(_)) => self.end(partition),
            Some(Place::TimestampMs(time)) => {
                let log = self.log.get(&partition).into_iter().flatten();
                let records = log.flat_map(|batch| {
                    batch.records(DecompressLimit::new(1 << 20)).unwrap().into_iter()
                });
                let mut later = records.map(Result::unwrap).filter(|r| r.timestamp_ms >= time);
                later.next().map_or(self.end(partition), |record| record.offset)
            }
        }
    }

    fn reply(&self, partition: u32, batches: &[Batch], next_offset: u64) -> v1::FetchReply {
        let whole = || Bytes::from(batches.iter().flat_map(Batch::to_bytes).collect::<Vec<_>>());
        let parts = match self.layout {
            _ if batches.is_empty() => Vec::new(),
            Layout::Together => vec![whole()],
            Layout::HeadAndTail => {
                let split =
                    |batch: &Batch| [Bytes::copy_from_slice(batch.head()), batch.tail().clone()];
                batches.iter().flat_map(split).collect()
            }
            Layout::Shredded(size) => whole().chunks(size).map(Bytes::copy_from_slice).collect(),
        };
        v1::FetchReply {
            partition,
            high_watermark: self.end(partition),
            log_start: self.log_start,
            batches: parts,
            next_offset,
            collection_id: COLLECTION_ID,
        }
    }

    /// Takes what lies behind the places, one reply for each partition that has something.
    fn next_replies(&self, places: &mut BTreeMap<u32, u64>) -> Vec<v1::FetchReply> {
        let mut replies = Vec::new();
        for (partition, place) in places {
            let log = self.log.get(partition).map_or(&[][..], Vec::as_slice);
            let behind = log.iter().filter(|batch| batch.next_offset() > *place);
            let found: Vec<Batch> = behind.take(self.batches_per_reply).cloned().collect();
            let Some(last) = found.last() else { continue };
            *place = last.next_offset();
            replies.push(self.reply(*partition, &found, *place));
        }
        replies
    }
}

impl Fake {
    /// Appends a batch as its producer's next; returns its offset and whether it was there before.
    #[expect(clippy::result_large_err, reason = "the message is what is sent")]
    pub(crate) fn apply_batch(
        &self,
        partition: u32,
        bytes: &Bytes,
    ) -> Result<(u64, bool), v1::ErrorDetail> {
        let mut batch = Batch::parse(bytes.clone()).unwrap();
        let header = batch.header();
        let stream = &mut self.state().stream;
        let offset = stream.end(partition);
        let (next, known) = stream
            .producers
            .entry((partition, header.producer_id))
            .or_insert_with(|| (header.base_sequence, BTreeMap::new()));
        if let Some(offset) = known.get(&header.base_sequence) {
            return Ok((*offset, true));
        }
        if header.base_sequence != *next {
            return Err(refusal(ErrorCode::OutOfOrder, v1::Outcome::NotApplied));
        }
        *next = sequence_after(header.base_sequence, header.record_count());
        known.insert(header.base_sequence, offset);
        batch.set_base_offset(offset);
        stream.push(partition, batch);
        Ok((offset, false))
    }

    async fn follow(
        self,
        request: v1::FetchRequest,
        cut_after: Option<usize>,
        replies: mpsc::Sender<Result<v1::FetchReply, Status>>,
    ) {
        let mut appended = self.state().stream.appended.subscribe();
        let (mut places, mut ready) = {
            let stream = &self.state().stream;
            let mut places = BTreeMap::new();
            let mut ready = Vec::new();
            for start in request.starts {
                let number = start.partition;
                let offset = stream.find(number, start.from.and_then(|from| from.place));
                places.insert(number, offset);
                if offset < stream.log_start || offset > stream.end(number) {
                    let detail = refusal(ErrorCode::OffsetOutOfRange, v1::Outcome::Unspecified);
                    ready.push(Err(status_with(Code::OutOfRange, &detail)));
                } else {
                    ready.push(Ok(stream.reply(number, &[], offset)));
                }
            }
            (places, ready)
        };
        let mut sent = 0;
        loop {
            for reply in ready {
                if cut_after == Some(sent) {
                    let _gone = replies.send(Err(Status::unavailable("cut"))).await;
                    return;
                }
                sent += 1;
                if replies.send(reply).await.is_err() {
                    return;
                }
            }
            appended.mark_unchanged();
            ready = self.state().stream.next_replies(&mut places).into_iter().map(Ok).collect();
            if ready.is_empty() {
                tokio::select! {
                    changed = appended.changed() => changed.unwrap(),
                    () = replies.closed() => return,
                }
            }
        }
    }
}

#[tonic::async_trait]
impl stream_server::Stream for Fake {
    type ProduceStream = Replies<v1::ProduceReply>;

    async fn produce(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        let (replies, receiver) = mpsc::channel(512);
        tokio::spawn(self.clone().batches(request.into_inner(), replies));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type FetchStream = Replies<v1::FetchReply>;

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let request = request.into_inner();
        assert!(request.follow, "a consumer follows");
        let step = {
            let stream = &mut self.state().stream;
            stream.fetches.push(request.clone());
            stream.fetch_script.pop_front().unwrap_or(FetchStep::Serve)
        };
        let cut_after = match step {
            FetchStep::Refuse(status) => return Err(status),
            FetchStep::CutAfter(replies) => Some(replies),
            FetchStep::Serve => None,
        };
        let (replies, receiver) = mpsc::channel(1);
        tokio::spawn(self.clone().follow(request, cut_after, replies));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsReply>, Status> {
        let state = self.state();
        let stream = &state.stream;
        let mut asked = request.into_inner().items;
        if asked.is_empty() {
            let every = |partition| v1::list_offsets_request::Item { partition, position: None };
            asked = (0..state.partitions).map(every).collect();
        }
        let items = asked.into_iter().map(|item| v1::list_offsets_reply::Item {
            partition: item.partition,
            log_start: stream.log_start,
            log_end: stream.end(item.partition),
            offset: stream.find(item.partition, item.position.and_then(|at| at.place)),
            timestamp_ms: None,
        });
        Ok(Response::new(v1::ListOffsetsReply { items: items.collect() }))
    }
}
