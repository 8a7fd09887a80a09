//! The batches of one partition that were not sent yet, and how many are under way.

use std::{collections::VecDeque, sync::Arc};

use prkdb_types::{BatchBuilder, BatchError, ProducerStamp};
use tokio::time::Instant;

use crate::{
    error::ClientError,
    producer::{Record, delivery::Fate, settings::Settings},
};

/// The most room that a batch begins with.
const CAPACITY_MAX: usize = 1 << 20;
/// Up to this size a batch is small: it goes out only while few others of its partition are under way, so
/// that a busy producer makes few batches of many records, and an idle one never waits.
const SMALL_BYTES: usize = 64 << 10;
/// How many others may be under way when a small batch goes out: one that the server works on, and one that
/// it takes up next.
const SMALL_UNDER_WAY: usize = 2;

/// The batches of one partition.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) filling: Option<Filling>,
    pub(super) full: VecDeque<Filling>,
    pub(super) under_way: usize,
    pub(super) failed: Option<ClientError>,
    is_listed: bool,
    /// How large its last batch was.
    last_bytes: usize,
}

/// A batch that was not sent yet.
#[derive(Debug)]
pub(super) struct Filling {
    pub(super) builder: BatchBuilder,
    pub(super) fate: Arc<Fate>,
    /// When it has waited long enough for more records.
    pub(super) due: Option<Instant>,
}

impl Filling {
    fn begin(last_bytes: usize, bytes_max: usize, settings: &Settings) -> Self {
        // As much as the last batch took, which is what the next one will.
        let likely = last_bytes + last_bytes / 8;
        let capacity = likely.min(settings.batch_bytes).min(CAPACITY_MAX).max(bytes_max);
        let (none, codec) = (ProducerStamp::NONE, settings.compression);
        Self {
            builder: BatchBuilder::with_capacity(none, codec, capacity),
            fate: Arc::default(),
            due: (!settings.linger.is_zero()).then(|| Instant::now() + settings.linger),
        }
    }
}

/// What a record became.
#[derive(Debug)]
pub(super) struct Encoded {
    /// Its place in its batch.
    pub(super) ordinal: u32,
    pub(super) fate: Arc<Fate>,
    /// How many bytes more there are.
    pub(super) bytes: usize,
    /// When the batch is due that it began, if it has to wait.
    pub(super) due: Option<Instant>,
}

impl Queue {
    /// Appends a record to the batch being filled, and begins one where there is none.
    pub(super) fn encode(
        &mut self,
        record: &Record<'_>,
        bytes_max: usize,
        timestamp_ms: i64,
        settings: &Settings,
    ) -> Result<Encoded, BatchError> {
        let is_first = self.filling.is_none();
        let last_bytes = self.last_bytes;
        let filling =
            self.filling.get_or_insert_with(|| Filling::begin(last_bytes, bytes_max, settings));
        let before = if is_first { 0 } else { filling.builder.len_bytes() };
        let encoded = Encoded {
            ordinal: filling.builder.count(),
            // The reference is the delivery's.
            fate: Arc::clone(&filling.fate),
            bytes: 0,
            due: filling.due.filter(|_| is_first),
        };
        match filling.builder.push(timestamp_ms, record.key, record.value, record.headers) {
            Ok(()) => Ok(Encoded { bytes: filling.builder.len_bytes() - before, ..encoded }),
            Err(error) => {
                if is_first {
                    self.filling = None;
                }
                Err(error)
            }
        }
    }

    /// Returns whether so many bytes more fit into the batch being filled.
    pub(super) fn fits(&self, bytes: usize, settings: &Settings) -> bool {
        let fits = |filling: &Filling| filling.builder.len_bytes() + bytes <= settings.batch_bytes;
        self.filling.as_ref().is_none_or(fits)
    }

    /// Returns whether the batch being filled takes nothing more.
    pub(super) fn is_full(&self, settings: &Settings) -> bool {
        self.filling.as_ref().is_some_and(|filling| {
            filling.builder.count() >= settings.batch_records
                || filling.builder.len_bytes() >= settings.batch_bytes
        })
    }

    /// Puts the batch being filled behind those that are full.
    pub(super) fn cut(&mut self) {
        if let Some(filling) = self.filling.take() {
            self.last_bytes = filling.builder.len_bytes();
            self.full.push_back(filling);
        }
    }

    /// Returns whether a batch may go out.
    pub(super) fn may_send(&self, settings: &Settings) -> bool {
        let most = settings.in_flight;
        if self.under_way >= most {
            return false;
        }
        if !self.full.is_empty() {
            return true;
        }
        self.filling.as_ref().is_some_and(|filling| {
            filling.due.is_none()
                && (self.under_way < SMALL_UNDER_WAY || filling.builder.len_bytes() > SMALL_BYTES)
        })
    }

    /// Returns whether it is to be listed among those that may send, and takes note.
    pub(super) fn list(&mut self, settings: &Settings) -> bool {
        if self.is_listed || !self.may_send(settings) {
            return false;
        }
        self.is_listed = true;
        true
    }

    /// Takes note that it is not listed any more.
    pub(super) fn unlist(&mut self) {
        self.is_listed = false;
    }
}
