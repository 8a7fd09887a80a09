//! `consume` from its arguments to its exit code.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use prkdb_client::{Client, ClientError, Consumer, ConsumerOptions, ErrorCode, FetchedBatch, wire};

use super::{args::Args, place::At, print::Printer};
use crate::commands::{
    failure::{Failure, Result, Stop},
    output::Output,
    run::{Signals, end_a_stuck_process, threaded_runtime},
    session::{self, Session},
};

/// Runs `consume`.
///
/// # Errors
/// 3 where the collection or a partition does not exist, 1 where an offset is not there, 130 or 143 after
/// a signal.
pub fn run(session: &mut Session, args: &Args) -> Result {
    if session.output.options.sort.is_some() {
        return Err(Failure::usage("consume --sort: records come in their own order").into());
    }
    let mut printer = Printer::begin(&mut session.output, &args.collection, args.format.clone())?;
    let runtime = threaded_runtime()?;
    runtime.spawn(end_a_stuck_process());
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let opening = open(session, args);
        let consumer = tokio::select! {
            opened = opening => opened?,
            code = signals.next() => return Err(Stop::Quiet(code)),
        };
        let limit = args.count.into_iter().chain(session.output.options.limit).min();
        let mut reading = Reading { consumer, left: limit.unwrap_or(u64::MAX), signals };
        let ended = reading.print(&mut session.output, &mut printer).await;
        // What was printed is whole, however it ends.
        let printed = printer.end(&mut session.output, session.talk);
        ended.and(printed)
    })
}

/// Finds out where partitions end, and opens the consumer. The deadline counts until then.
async fn open(session: &Session, args: &Args) -> Result<Consumer> {
    let client = session.client().await?;
    let until = until(&client, args).await?;
    let start = args.from.start();
    let options = ConsumerOptions {
        start,
        partitions: args.partitions.iter().map(|partition| (*partition, start)).collect(),
        until,
    };
    let unlimited = client.with_deadline(None);
    let opening = Consumer::open(&unlimited, &args.collection, options);
    let opened = match session.timeout {
        None => opening.await,
        Some(timeout) => tokio::time::timeout(timeout, opening)
            .await
            .map_err(|_| session.deadline_passed("consume"))?,
    };
    match opened {
        Ok(consumer) => Ok(consumer),
        Err(error) => Err(session::failure(&error).into()),
    }
}

/// Before which offset each partition ends; empty where they are followed.
async fn until(client: &Client, args: &Args) -> Result<BTreeMap<u32, u64>> {
    let failed = |error: ClientError| session::failure(&error);
    let mut until: BTreeMap<u32, u64> = BTreeMap::new();
    if args.until.is_none() && !args.exit_at_end {
        return Ok(until);
    }
    let bounds = client.list_offsets(&args.collection, Vec::new()).await.map_err(failed)?;
    check_start(args, &bounds)?;
    let is_at_end = args.exit_at_end || args.until == Some(At::Latest);
    for bound in &bounds {
        let end = match args.until {
            Some(At::Offset(offset)) => offset,
            _ => u64::MAX,
        };
        let now = if is_at_end { bound.log_end } else { u64::MAX };
        until.insert(bound.partition, end.min(now));
    }
    if let Some(time @ At::Time(_)) = args.until {
        let ask = |bound: &wire::list_offsets_reply::Item| wire::list_offsets_request::Item {
            partition: bound.partition,
            position: Some(time.position()),
        };
        let items = bounds.iter().map(ask).collect();
        for found in client.list_offsets(&args.collection, items).await.map_err(failed)? {
            // Where no record has reached the time yet, it is where the partition ends now.
            if let Some(end) = until.get_mut(&found.partition) {
                *end = (*end).min(found.offset);
            }
        }
    }
    Ok(until)
}

/// A partition that ends before it begins is not asked for, and so would not be refused by the server.
fn check_start(args: &Args, bounds: &[wire::list_offsets_reply::Item]) -> Result {
    let At::Offset(offset) = args.from else { return Ok(()) };
    let is_read = |bound: &&wire::list_offsets_reply::Item| {
        args.partitions.is_empty() || args.partitions.contains(&bound.partition)
    };
    let is_outside = |bound: &&wire::list_offsets_reply::Item| {
        !(bound.log_start..=bound.log_end).contains(&offset)
    };
    match bounds.iter().filter(is_read).find(is_outside) {
        Some(bound) => {
            let wire::list_offsets_reply::Item { partition, log_start, log_end, .. } = bound;
            let message = format!(
                "offset {offset} of partition {partition}: there are {log_start} to {log_end}"
            );
            Err(Failure::of(ErrorCode::OffsetOutOfRange, message).into())
        }
        None => Ok(()),
    }
}

/// A consumer that is being read.
struct Reading {
    consumer: Consumer,
    /// Records that may still be printed.
    left: u64,
    signals: Signals,
}

impl Reading {
    /// Prints records until the end, the limit or a signal.
    async fn print(&mut self, output: &mut Output, printer: &mut Printer) -> Result {
        while self.left > 0 {
            // One look, and what was printed is handed over before the wait.
            let batch = if let Some(batch) = self.consumer.next_batch().now_or_never() {
                batch
            } else {
                printer.flush(output)?;
                tokio::select! {
                    batch = self.consumer.next_batch() => batch,
                    code = self.signals.next() => return Err(Stop::Quiet(code)),
                }
            };
            match batch.map_err(|error| session::failure(&error))? {
                Some(batch) => self.print_batch(&batch, output, printer)?,
                None => break,
            }
        }
        Ok(())
    }

    fn print_batch(
        &mut self,
        batch: &FetchedBatch,
        output: &mut Output,
        printer: &mut Printer,
    ) -> Result {
        for record in batch.records() {
            let record = record.map_err(|error| session::failure(&error))?;
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            printer.record(output, batch.partition, &record)?;
        }
        Ok(())
    }
}
