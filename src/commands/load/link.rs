//! Where records go: a stream of batches, single puts, or nowhere.

use std::sync::Arc;

use prkdb_client::{BatchAnswer, BatchAnswers, BatchWriter, Partitions, wire};

use super::{conditional::Puts, read::Record};

/// Where records go.
pub(crate) enum Link {
    /// As batches over a stream.
    Batches {
        /// Sends.
        writer: BatchWriter,
        /// Answers.
        answers: BatchAnswers,
        /// Finds a key's partition.
        partitions: Arc<Partitions>,
    },
    /// One by one, under a condition.
    Puts(Puts),
    /// Nowhere.
    Dry,
}

impl Link {
    /// Returns how many lanes there are.
    pub(crate) fn lanes(&self) -> u32 {
        match self {
            Self::Batches { partitions, .. } => partitions.count(),
            Self::Puts(puts) => puts.lanes(),
            Self::Dry => 1,
        }
    }

    /// Returns whether a lane is a partition.
    pub(crate) fn has_partitions(&self) -> bool {
        matches!(self, Self::Batches { .. })
    }

    /// Returns the lane of a key.
    pub(crate) fn lane(&self, key: &[u8]) -> u32 {
        match self {
            Self::Batches { partitions, .. } => partitions.of(key),
            Self::Puts(puts) => puts.lane(key),
            Self::Dry => 0,
        }
    }

    /// Returns the producer's id; 0 where there is none.
    pub(crate) fn producer_id(&self) -> u64 {
        match self {
            Self::Batches { writer, .. } => writer.producer_id(),
            Self::Puts(_) | Self::Dry => 0,
        }
    }

    /// Returns why a record cannot go into the partition it names, which the server would say too.
    pub(crate) fn refusal(&self, record: &Record) -> Option<String> {
        let Self::Batches { partitions, .. } = self else { return None };
        let named = record.partition?;
        if named >= partitions.count() {
            return Some(format!("partition {named}: there are {}", partitions.count()));
        }
        let own = partitions.of(record.key.as_ref()?);
        let settings = partitions.collection().settings.unwrap_or_default();
        let is_keyed = settings.key_index() != wire::KeyIndex::Off;
        (is_keyed && own != named)
            .then(|| format!("partition {named}: the key belongs to partition {own}"))
    }
}

/// The next answer; never in a dry run.
pub(crate) async fn next_answer(link: &mut Link) -> Option<BatchAnswer> {
    match link {
        Link::Batches { answers, .. } => answers.next_ack().await,
        Link::Puts(puts) => Some(puts.next().await),
        Link::Dry => std::future::pending().await,
    }
}
