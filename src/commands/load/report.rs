//! What a run has done.

use std::time::Duration;

use serde_json::Value;

use crate::commands::{
    failure::Result,
    output::{Object, Output, readable_size},
};

/// Counts of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records put, or that would be.
    pub put: u64,
    /// Records rejected.
    pub rejected: u64,
    /// Empty lines and comments.
    pub skipped: u64,
    /// Bytes of keys and values put.
    pub bytes: u64,
    /// The first rejected record: its line from 1, and why.
    pub first_error: Option<(u64, String)>,
}

impl Tally {
    /// Prints the counts.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub fn print(
        &self,
        output: &mut Output,
        elapsed: Duration,
        is_dry: bool,
        checkpoint: Option<&str>,
    ) -> Result {
        if output.options.format.is_json() {
            let mut document = Object::document("prkdb.batch-put/1");
            self.add_to(&mut document);
            document
                .add("elapsed_ms", u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
                .add("dry_run", is_dry)
                .add("first_error", self.first_error_value())
                .add("checkpoint", checkpoint);
            return output.document(&document);
        }
        let verb = if is_dry { "would be put" } else { "put" };
        output.confirmation(&format!(
            "{} {verb}, {} rejected, {} skipped, {} in {:.2} s",
            self.put,
            self.rejected,
            self.skipped,
            readable_size(self.bytes),
            elapsed.as_secs_f64()
        ))
    }

    /// Returns the counts for the JSON form of an error.
    pub fn details(&self) -> Value {
        let mut object = Object::default();
        self.add_to(&mut object);
        object.into()
    }

    fn add_to(&self, object: &mut Object) {
        object
            .add("put", self.put)
            .add("rejected", self.rejected)
            .add("skipped", self.skipped)
            .add("bytes", self.bytes);
    }

    fn first_error_value(&self) -> Option<Object> {
        let (line, message) = self.first_error.as_ref()?;
        let mut object = Object::default();
        object.add("line", *line).add("message", message.as_str());
        Some(object)
    }
}
