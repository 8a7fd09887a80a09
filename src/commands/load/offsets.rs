//! What was written, record by record, with the offsets it got.

use prkdb_client::Acked;

use super::lane::Batch;
use crate::commands::{
    failure::Result,
    output::{Cell, Column, Kind, Listing, Output, Rows},
    talk::Talk,
};

const RECORDS: Listing = Listing {
    schema: "prkdb.produce-offsets/1",
    columns: &[
        Column::new("PARTITION", "partition", Kind::Number),
        Column::new("OFFSET", "offset", Kind::Number),
        Column::new("TIMESTAMP", "timestamp", Kind::Time),
        Column::new("KEY", "key", Kind::Bytes),
    ],
    empty: "(no records)",
};

/// Prints records as their batches are acknowledged.
pub(crate) struct Offsets<'a> {
    output: &'a mut Output,
    rows: Rows,
}

impl<'a> Offsets<'a> {
    /// Begins to print.
    ///
    /// # Errors
    /// An unknown column is exit 2.
    pub(crate) fn begin(output: &'a mut Output) -> Result<Self> {
        let rows = output.begin(RECORDS)?;
        Ok(Self { output, rows })
    }

    /// Prints the records of a batch.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub(crate) fn batch(&mut self, acked: &Acked, batch: &Batch) -> Result {
        for (offset, entry) in (acked.base_offset..).zip(&batch.entries) {
            let key = entry.record.key.clone();
            self.rows.row(
                self.output,
                &[
                    Cell::Number(u64::from(acked.partition)),
                    Cell::Number(offset),
                    Cell::Time(entry.timestamp_ms),
                    key.map_or(Cell::Absent, Cell::Bytes),
                ],
            )?;
        }
        self.output.flush()
    }

    /// Ends what is printed.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub(crate) fn end(self, talk: Talk) -> Result {
        self.rows.end(self.output, &talk)
    }
}
