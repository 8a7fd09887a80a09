//! The batch of one that a write of one key becomes.

use bytes::Bytes;
use prkdb_types::{
    Batch, ProducerStamp,
    headers::{self, Ttl, TtlText},
};

use super::{Verdict, refused};

/// What a write of one key is encoded from, beside its value.
pub(super) struct Record<'a> {
    pub(super) timestamp_ms: i64,
    pub(super) key: &'a [u8],
    pub(super) ttl: Option<Ttl>,
    pub(super) headers: &'a [(String, Bytes)],
}

impl Record<'_> {
    pub(super) fn batch(
        &self,
        producer: Option<ProducerStamp>,
        value: Option<&[u8]>,
    ) -> Result<Batch, Verdict> {
        let stamp = producer.unwrap_or(ProducerStamp::NONE);
        let text = self.ttl.map(TtlText::new);
        let ttl = text.as_ref().map(|text| (headers::TTL_MS, text.as_bytes()));
        let others = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_ref()));
        // Allocates nothing where there are none.
        let headers: Vec<(&str, &[u8])> = others.chain(ttl).collect();
        Batch::single(stamp, self.timestamp_ms, Some(self.key), value, &headers)
            .map_err(|error| refused(error.code(), error.to_string()))
    }
}
