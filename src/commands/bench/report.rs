//! Figures, and how they are printed.

use std::{path::Path, time::Duration};

use super::{
    latencies::{Latencies, Slow},
    load::Seen,
};
use crate::commands::{
    failure::{Failure, Result},
    output::{Cell, Column, Format, Kind, Listing, Object},
    session::Session,
};

const LISTING: Listing = Listing {
    schema: "prkdb.bench/1",
    columns: &[
        Column::new("FIGURE", "figure", Kind::Text),
        Column::new("VALUE", "value", Kind::Number),
        Column::new("UNIT", "unit", Kind::Text),
        Column::new("P50-US", "p50_us", Kind::Number),
        Column::new("P90-US", "p90_us", Kind::Number),
        Column::new("P99-US", "p99_us", Kind::Number),
        Column::new("P99.9-US", "p999_us", Kind::Number),
        Column::new("MAX-US", "max_us", Kind::Number),
        Column::new("RATIO", "ratio", Kind::Number),
        Column::new("LIMIT", "limit", Kind::Text),
    ],
    empty: "(no figures)",
};

/// One measured figure.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    /// What was measured.
    pub name: String,
    /// How much, in `unit`.
    pub value: f64,
    /// `1/s` or `B/s`.
    pub unit: &'static str,
    /// Percentiles 50, 90, 99, 99.9 and the maximum, in microseconds.
    pub latencies_us: Option<[u64; 5]>,
    /// The slowest operations.
    pub slowest: Vec<Slow>,
    /// The share of a limit, and which.
    pub ratio: Option<(f64, String)>,
}

impl Figure {
    /// Operations in a second.
    pub(super) fn rate(name: &str, value: f64) -> Self {
        Self {
            name: name.to_owned(),
            value,
            unit: "1/s",
            latencies_us: None,
            slowest: Vec::new(),
            ratio: None,
        }
    }

    /// Bytes in a second.
    pub(super) fn bytes(name: &str, bytes: u64, elapsed: Duration) -> Self {
        Self { unit: "B/s", ..Self::rate(name, per_second(bytes, elapsed)) }
    }

    /// Adds percentiles, and the slowest.
    pub(super) fn with_latencies(self, seen: &Seen) -> Self {
        self.with_percentiles(&seen.latencies)
    }

    /// Adds percentiles, and the slowest.
    pub(super) fn with_percentiles(mut self, latencies: &Latencies) -> Self {
        let us = |percent| micros(latencies.percentile(percent));
        self.latencies_us = Some([us(50.0), us(90.0), us(99.0), us(99.9), us(100.0)]);
        self.slowest = latencies.slowest();
        self
    }

    /// Compares it with a limit.
    pub(super) fn against(mut self, limit: &Self) -> Self {
        self.ratio = Some((self.value / limit.value.max(f64::MIN_POSITIVE), limit.name.clone()));
        self
    }

    fn row(&self) -> Vec<Cell> {
        let latency = |index: usize| match self.latencies_us.and_then(|all| all.get(index).copied())
        {
            Some(us) => Cell::Number(us),
            None => Cell::Absent,
        };
        vec![
            Cell::Text(self.name.clone()),
            Cell::Float(rounded(self.value)),
            Cell::from(self.unit),
            latency(0),
            latency(1),
            latency(2),
            latency(3),
            latency(4),
            self.ratio
                .as_ref()
                .map_or(Cell::Absent, |(ratio, _)| Cell::Float(rounded(ratio * 100.0) / 100.0)),
            self.ratio.as_ref().map_or(Cell::Absent, |(_, name)| Cell::Text(name.clone())),
        ]
    }

    fn object(&self) -> Object {
        let mut object = Object::default();
        object
            .add("figure", self.name.as_str())
            .add("value", rounded(self.value))
            .add("unit", self.unit);
        let latencies = self.latencies_us.map(|[p50, p90, p99, p999, max]| {
            let mut object = Object::default();
            object
                .add("p50", p50)
                .add("p90", p90)
                .add("p99", p99)
                .add("p999", p999)
                .add("max", max);
            object
        });
        let slowest = self.slowest.iter().map(|slow| {
            let mut object = Object::default();
            object.add("us", micros(slow.took)).add("ended_ms", slow.ended_ms);
            object
        });
        object.add("latency_us", latencies).add("slowest", slowest.collect::<Vec<_>>());
        let (ratio, limit) = self.ratio.clone().unzip();
        object.add("ratio", ratio.map(|ratio| rounded(ratio * 100.0) / 100.0)).add("limit", limit);
        object
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// Tenths are enough for a measurement.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Returns so many in a second.
pub(super) fn per_second(count: u64, elapsed: Duration) -> f64 {
    // Exact up to 2^53, which is more than a run counts.
    let high = f64::from(u32::try_from(count >> 32).unwrap_or(u32::MAX)) * 4_294_967_296.0;
    let low = f64::from(u32::try_from(count & 0xffff_ffff).unwrap_or(u32::MAX));
    (high + low) / elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// What a run has to tell.
pub(super) struct Report {
    /// `limits`, `put`, `get`, `mixed`, `produce` or `consume`.
    pub bench: &'static str,
    /// The settings of the run, for the document.
    pub settings: Object,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// Operations that failed.
    pub errors: u64,
    /// What was expected, and whether it holds.
    pub expectations: Vec<(String, bool)>,
}

impl Report {
    fn document(&self) -> Object {
        let expectation = |(what, is_met): &(String, bool)| {
            let mut object = Object::default();
            object.add("expected", what.as_str()).add("met", *is_met);
            object
        };
        let mut document = Object::document("prkdb.bench/1");
        document
            .add("bench", self.bench)
            .add("settings", self.settings.clone())
            .add("figures", self.figures.iter().map(Figure::object).collect::<Vec<_>>())
            .add("errors", self.errors)
            .add("expectations", self.expectations.iter().map(expectation).collect::<Vec<_>>());
        document
    }

    /// Prints the result, and writes it to a file if one is named.
    ///
    /// # Errors
    /// 1 where an expectation is not met or operations failed, 13 where the file cannot be written.
    pub(super) fn finish(&self, session: &mut Session, file: Option<&Path>) -> Result {
        let document = self.document();
        if let Some(path) = file {
            let mut bytes = serde_json::to_vec_pretty(&document).unwrap_or_default();
            bytes.push(b'\n');
            std::fs::write(path, bytes)
                .map_err(|error| Failure::io(format_args!("write {}", path.display()), &error))?;
        }
        if session.output.options.format == Format::Json {
            session.output.document(&document)?;
        } else {
            let rows = self.figures.iter().map(Figure::row).collect();
            session.output.list(LISTING, rows, &session.talk)?;
            for (what, is_met) in &self.expectations {
                session.talk.notice(&format!("{}: {what}", if *is_met { "PASS" } else { "FAIL" }));
            }
        }
        session.output.flush()?;
        let missed: Vec<&str> = self
            .expectations
            .iter()
            .filter(|(_, is_met)| !is_met)
            .map(|(what, _)| what.as_str())
            .collect();
        if !missed.is_empty() {
            let message = format!("missed: {}", missed.join("; "));
            return Err(Failure::measurement(message).into());
        }
        Ok(())
    }
}
