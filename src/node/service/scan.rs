//! `Kv.Scan`: keys in order over all shards of a collection, in pages.
//!
//! Every shard is read at one revision: the roots are taken when the scan begins. Values are read
//! from the log page by page, as the client takes them.

use std::{cmp::Ordering, collections::VecDeque, ops::Bound, sync::Arc};

use futures_util::stream;
use prkdb_proto::v1;
use prkdb_types::ErrorCode;
use tokio_util::sync::CancellationToken;

use super::{
    context::{Context, of_a_read},
    convert::expiry,
    kv::{Replies, consistency, read_route, stopping},
    status::to_status,
};
use crate::{
    node::{outcome::Failure, router::Route},
    storage::{KeyRange, ValueReader, kv::tree::Leaf},
};

/// A page that has this many bytes is sent. The row that got it there may be as large as a value can
/// be, and the page must still fit into a message.
const PAGE_BYTES: usize = 768 << 10;
/// What a row takes beside its key and value, at most.
const ROW_OVERHEAD_BYTES: usize = 72;
/// A page has at most this many rows.
const PAGE_ROWS: usize = 1000;

/// One shard's part of the range: its next key, and the rest.
struct Part {
    values: ValueReader,
    rest: KeyRange,
    log_time_ms: i64,
    next: Option<(Vec<u8>, Leaf)>,
}

/// A scan under way.
struct Scan {
    route: Arc<Route>,
    parts: Vec<Part>,
    order: Order,
    keys_only: bool,
    left: u64,
    found: u64,
    revisions: Vec<v1::scan_reply::ShardRevision>,
    is_done: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Forward,
    Reverse,
}

/// The smallest key that is above every key with a prefix; `None` if there is none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=kept)?.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    Some(end)
}

/// The bounds of a scan: the narrower of prefix and range.
fn bounds(request: &v1::ScanRequest) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let from = request.from.to_vec().max(request.prefix.to_vec());
    let from = if from.is_empty() { Bound::Unbounded } else { Bound::Included(from) };
    let to = (!request.to.is_empty()).then(|| request.to.to_vec());
    let end = after_prefix(&request.prefix);
    let to = match (to, end) {
        (Some(to), Some(end)) => Some(to.min(end)),
        (to, end) => to.or(end),
    };
    (from, to.map_or(Bound::Unbounded, Bound::Excluded))
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// Serves one scan.
pub(super) async fn serve(
    context: &Context,
    request: v1::ScanRequest,
    stop: CancellationToken,
) -> Result<Replies<v1::ScanReply>, Failure> {
    let route = read_route(context, &request.collection)?;
    let consistency = consistency(request.consistency)?;
    let (from, to) = bounds(&request);
    let mut parts = Vec::new();
    let mut revisions = Vec::new();
    for number in route.shards() {
        let handle = context.node.shard(number)?;
        if consistency != v1::Consistency::Stale {
            handle.read_barrier().await?;
        }
        let snapshot = handle.shard.scan(route.collection.id).ok_or_else(|| {
            let message = format!("collection '{}' is being created", request.collection);
            Failure::new(ErrorCode::NoLeader, message)
        })?;
        revisions
            .push(v1::scan_reply::ShardRevision { shard: number, revision: snapshot.revision });
        let rest = snapshot.range(as_slice(&from), as_slice(&to));
        let log_time_ms = snapshot.log_time_ms;
        let values = snapshot.values();
        parts.push(Part { values, rest, log_time_ms, next: None });
    }
    let limit = if request.limit == 0 { u64::MAX } else { request.limit };
    if request.count_only {
        // A range knows its length: no key is read, unless some are expired.
        let count: u64 = parts.into_iter().map(|part| part.rest.count() as u64).sum();
        let reply = v1::ScanReply { rows: Vec::new(), count: Some(count.min(limit)), revisions };
        return Ok(Box::pin(stream::iter([Ok(reply)])));
    }
    let order = if request.reverse { Order::Reverse } else { Order::Forward };
    for part in &mut parts {
        part.advance(order);
    }
    let scan = Scan {
        route,
        parts,
        order,
        keys_only: request.keys_only,
        left: limit,
        found: 0,
        revisions,
        is_done: false,
    };
    Ok(Box::pin(stream::unfold((scan, stop), |(mut scan, stop)| async move {
        if scan.is_done {
            return None;
        }
        // Between pages others get their turn.
        tokio::task::yield_now().await;
        let page = if stop.is_cancelled() { Err(stopping()) } else { scan.page() };
        let page = page.map_err(|failure| to_status(&of_a_read(failure)));
        scan.is_done |= page.is_err();
        Some((page, (scan, stop)))
    })))
}

impl Part {
    fn advance(&mut self, order: Order) {
        self.next = match order {
            Order::Forward => self.rest.next(),
            Order::Reverse => self.rest.next_back(),
        };
    }
}

impl Scan {
    /// Returns the part whose key comes next.
    fn next_part(&self) -> Option<usize> {
        let keyed = self.parts.iter().enumerate();
        let keyed = keyed.filter_map(|(at, part)| Some((at, &part.next.as_ref()?.0)));
        let by_key = |a: &(usize, &Vec<u8>), b: &(usize, &Vec<u8>)| a.1.cmp(b.1);
        let chosen = match self.order {
            Order::Forward => keyed.min_by(by_key),
            Order::Reverse => keyed.max_by(|a, b| match by_key(a, b) {
                Ordering::Equal => b.0.cmp(&a.0),
                other => other,
            }),
        };
        chosen.map(|(at, _)| at)
    }

    fn page(&mut self) -> Result<v1::ScanReply, Failure> {
        let mut rows = VecDeque::with_capacity(64);
        let mut bytes = 0;
        while rows.len() < PAGE_ROWS && bytes < PAGE_BYTES && self.left > 0 {
            let Some(part) = self.next_part().and_then(|at| self.parts.get_mut(at)) else { break };
            let Some((key, leaf)) = part.next.take() else { break };
            part.advance(self.order);
            let mut row = row(&self.route, &mut part.values, key, leaf, self.keys_only)?;
            (row.expires_at_ms, row.ttl_ms) = expiry(leaf.expires_ms, part.log_time_ms);
            bytes += row.key.len() + row.value.len() + ROW_OVERHEAD_BYTES;
            rows.push_back(row);
            self.left -= 1;
            self.found += 1;
        }
        self.is_done = self.left == 0 || self.next_part().is_none();
        Ok(v1::ScanReply {
            rows: rows.into(),
            count: self.is_done.then_some(self.found),
            revisions: std::mem::take(&mut self.revisions),
        })
    }
}

fn row(
    route: &Route,
    values: &mut ValueReader,
    key: Vec<u8>,
    leaf: Leaf,
    keys_only: bool,
) -> Result<v1::scan_reply::Row, Failure> {
    // Numbers in frames rise with those in the collection: they are given out together.
    let places = &route.collection.partitions;
    let at = places.binary_search_by_key(&leaf.partition, |place| place.partition).ok();
    let number = at.and_then(|at| places.get(at));
    let mut row = v1::scan_reply::Row {
        key: key.into(),
        value: bytes::Bytes::new(),
        version: leaf.version,
        partition: number.map_or(0, |place| place.number),
        timestamp_ms: 0,
        ..v1::scan_reply::Row::default()
    };
    if !keys_only {
        let found = values.read(leaf).map_err(|error| Failure::from(&error))?;
        row.value = found.value;
        row.timestamp_ms = found.timestamp_ms;
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_key_that_lacks_it() {
        assert_eq!(after_prefix(b""), None);
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"\xff"), None);
    }

    #[test]
    fn the_narrower_of_prefix_and_range_bounds_a_scan() {
        let request = v1::ScanRequest {
            prefix: "b".into(),
            from: "a".into(),
            to: "bz".into(),
            ..v1::ScanRequest::default()
        };
        let expected = (Bound::Included(b"b".to_vec()), Bound::Excluded(b"bz".to_vec()));
        assert_eq!(bounds(&request), expected);
    }
}
