//! What a run has done.

use std::time::Duration;

use serde_json::Value;

use super::job::{Job, Kind};
use crate::commands::{
    failure::Result,
    output::{Object, Output, readable_size},
};

/// Counts of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records written, or that would be.
    pub written: u64,
    /// Records rejected.
    pub rejected: u64,
    /// Empty lines and comments.
    pub skipped: u64,
    /// Bytes of keys, values and headers written.
    pub bytes: u64,
    /// The partitions that got records, with their first and last offset.
    pub partitions: Vec<(u32, u64, u64)>,
    /// The first rejected record: its line from 1, and why.
    pub first_error: Option<(u64, String)>,
}

impl Tally {
    /// Prints the counts.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub(crate) fn print(
        &self,
        output: &mut Output,
        job: &Job<'_>,
        elapsed: Duration,
        checkpoint: Option<&str>,
    ) -> Result {
        if output.options.format.is_json() {
            let mut document = Object::document(&format!("prkdb.{}/1", job.kind.command()));
            if let Kind::Events { .. } = job.kind {
                document.add("collection", job.collection.as_str());
            }
            self.add_to(&mut document, job.kind);
            document.add("elapsed_ms", u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
            if let Kind::Events { .. } = job.kind {
                document.add("partitions", self.partition_objects());
            }
            document
                .add("dry_run", job.run.dry_run)
                .add("first_error", self.first_error_value())
                .add("checkpoint", checkpoint);
            return output.document(&document);
        }
        let line = match job.kind {
            Kind::Puts { .. } => self.put_line(elapsed, job.run.dry_run),
            Kind::Events { .. } => self.produced_line(elapsed, job.run.dry_run),
        };
        output.confirmation(&line)
    }

    fn put_line(&self, elapsed: Duration, is_dry: bool) -> String {
        let verb = if is_dry { "would be put" } else { "put" };
        format!(
            "{} {verb}, {} rejected, {} skipped, {} in {:.2} s",
            self.written,
            self.rejected,
            self.skipped,
            readable_size(self.bytes),
            elapsed.as_secs_f64()
        )
    }

    /// Returns the line for people about events.
    pub(crate) fn produced_line(&self, elapsed: Duration, is_dry: bool) -> String {
        let counted = |count: u64, what: &str| {
            let plural = if count == 1 { "" } else { "s" };
            format!("{count} {what}{plural}")
        };
        let partitions = u64::try_from(self.partitions.len()).unwrap_or(u64::MAX);
        let records = counted(self.written, "record");
        let what = if is_dry {
            format!("{records} would be produced")
        } else {
            format!("{records} in {}", counted(partitions, "partition"))
        };
        let left_out = if self.rejected > 0 || self.skipped > 0 {
            format!("; {} rejected, {} skipped", self.rejected, self.skipped)
        } else {
            String::new()
        };
        let (size, seconds) = (readable_size(self.bytes), elapsed.as_secs_f64());
        format!("{what}, {size} in {seconds:.2} s{left_out}")
    }

    /// Returns the counts for the JSON form of an error.
    pub(crate) fn details(&self, kind: Kind) -> Value {
        let mut object = Object::default();
        self.add_to(&mut object, kind);
        object.into()
    }

    fn add_to(&self, object: &mut Object, kind: Kind) {
        match kind {
            Kind::Puts { .. } => object.add("put", self.written),
            Kind::Events { .. } => object.add("produced", self.written),
        };
        object.add("rejected", self.rejected).add("skipped", self.skipped).add("bytes", self.bytes);
    }

    fn partition_objects(&self) -> Vec<Object> {
        let one = |(number, first, last): &(u32, u64, u64)| {
            let mut object = Object::default();
            object.add("partition", *number).add("first_offset", *first).add("last_offset", *last);
            object
        };
        self.partitions.iter().map(one).collect()
    }

    fn first_error_value(&self) -> Option<Object> {
        let (line, message) = self.first_error.as_ref()?;
        let mut object = Object::default();
        object.add("line", *line).add("message", message.as_str());
        Some(object)
    }
}
