//! What a command asks of the engine.

use std::time::Duration;

use prkdb_types::Compression;

use super::{
    args::{InputArgs, OnError, RunArgs},
    parsing::Parsing,
    read::Shape,
};
use crate::commands::output::Object;

/// A run, as its command line describes it.
pub(crate) struct Job<'a> {
    /// What is read.
    pub input: &'a InputArgs,
    /// How it goes.
    pub run: &'a RunArgs,
    /// How the input is read.
    pub parsing: Parsing,
    /// What is said of every record.
    pub shape: Shape,
    /// Where records go.
    pub collection: String,
    /// How they are sent.
    pub sending: Sending,
    /// What they are.
    pub kind: Kind,
}

/// How records are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    /// Most records in a batch.
    pub batch_records: u32,
    /// Batches under way for each partition.
    pub window: u16,
    /// How batches are compressed.
    pub compression: Compression,
    /// How long a record that came by a pipe waits for others; `None` = until its batch is full.
    pub linger: Option<Duration>,
}

/// What records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The next values of keys.
    Puts {
        /// Only of keys without one.
        if_absent: bool,
    },
    /// Events.
    Events {
        /// The partitions of the collection, if it is to be created.
        create: Option<u32>,
        /// Whether each record is printed with its offset.
        prints_offsets: bool,
    },
}

impl Kind {
    /// Returns the command's name.
    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::Puts { .. } => "batch-put",
            Self::Events { .. } => "produce",
        }
    }
}

impl Job<'_> {
    /// Returns whether the first rejected record ends the run.
    pub(crate) fn stops_at_error(&self) -> bool {
        self.run.on_error == OnError::Stop
    }

    /// Returns what decides how records are read, cut and encoded, for a checkpoint to compare.
    pub(crate) fn fingerprint(&self) -> Object {
        let mut object = Object::default();
        object
            .add("command", self.kind.command())
            .add("parsing", format!("{:?}", self.parsing))
            .add("records", format!("{:?}", self.shape))
            .add("skip", self.run.skip)
            .add("batch_size", self.sending.batch_records)
            .add("batch_bytes", self.run.batch_bytes)
            .add("compression", self.sending.compression.name());
        object
    }
}
