//! How the pipeline sends what its lanes have cut.

use prkdb_client::{ClientError, Slot};
use prkdb_types::limits::PRODUCER_WINDOW_BATCHES;

use super::{
    lane::Lane,
    link::{Link, next_answer},
    pipeline::{PUTS_WAITING, Pipeline},
};
use crate::commands::{
    failure::{Failure, Result},
    session,
};

impl Pipeline<'_> {
    /// Sends a lane's batches as far as its window goes, and up to where sending stops.
    pub(super) async fn send_waiting(&mut self, partition: usize) -> Result {
        if let Link::Puts(_) = self.link {
            self.start_put(partition);
            let waiting =
                |lanes: &[Lane]| lanes.iter().map(|lane| lane.waiting.len()).sum::<usize>();
            while self.stop_at.is_none() && waiting(&self.lanes) >= PUTS_WAITING {
                self.answer().await?;
            }
            return Ok(());
        }
        while self.has_next(partition) {
            if !self.lane(partition).returned.is_empty() {
                // Halted: the rest of its answers comes first.
                self.answer().await?;
                continue;
            }
            let lane = self.lane(partition);
            let under_way = lane.in_flight.len();
            if self.save.is_some()
                && under_way + self.lane(partition).unsaved >= PRODUCER_WINDOW_BATCHES
            {
                self.checkpoint()?;
            }
            if under_way >= self.options.window {
                self.answer().await?;
                continue;
            }
            if let Some(slot) = self.slot(partition).await? {
                self.send(partition, slot)?;
            }
        }
        Ok(())
    }

    fn has_next(&mut self, partition: usize) -> bool {
        let stop_at = self.stop_at;
        self.lane(partition).has_next(stop_at)
    }

    /// Sends the next put of a lane, if none is under way.
    pub(super) fn start_put(&mut self, lane: usize) {
        let Link::Puts(puts) = &mut self.link else { return };
        let number = u32::try_from(lane).unwrap_or(u32::MAX);
        let stop_at = self.stop_at;
        let may_send = |lane: &&mut Lane| lane.in_flight.is_empty() && lane.has_next(stop_at);
        let Some(lane) = self.lanes.get_mut(lane).filter(may_send) else { return };
        if let Some(batch) = lane.waiting.pop_front() {
            puts.start(number, &batch);
            lane.in_flight.push_back(batch);
        }
    }

    /// Waits for a slot while answers are taken; none where the partition halted meanwhile, or sending stopped
    /// before its next batch.
    async fn slot(&mut self, partition: usize) -> Result<Option<Slot>> {
        let Link::Batches { writer, .. } = &self.link else { return Ok(None) };
        let writer = writer.clone();
        let number = u32::try_from(partition).unwrap_or(u32::MAX);
        let slot = writer.slot(number);
        tokio::pin!(slot);
        loop {
            tokio::select! {
                slot = &mut slot => match slot {
                    Ok(slot) => return Ok(Some(slot)),
                    Err(ClientError::Halted { .. }) => {
                        self.answer().await?;
                        return Ok(None);
                    }
                    Err(error) => return Err(session::failure(&error).into()),
                },
                answer = next_answer(&mut self.link) => {
                    self.take(answer)?;
                    if !self.lane(partition).returned.is_empty() || !self.has_next(partition) {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn send(&mut self, partition: usize, slot: Slot) -> Result {
        let stamp = slot.stamp();
        let compression = self.options.compression;
        let Some(batch) = self.lane(partition).waiting.pop_front() else { return Ok(()) };
        let records = u32::try_from(batch.entries.len()).unwrap_or(u32::MAX);
        let encoded = batch
            .encode(stamp, compression)
            .map_err(|error| Failure::of(error.code(), format!("encode a batch: {error}")))?;
        match slot.send(encoded, records, 0) {
            Ok(()) => self.lane(partition).in_flight.push_back(batch),
            // It halted since; the batch waits for the answers like those before it.
            Err(ClientError::Halted { .. }) => self.lane(partition).waiting.push_front(batch),
            Err(error) => return Err(session::failure(&error).into()),
        }
        Ok(())
    }
}
