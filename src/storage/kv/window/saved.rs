//! The producers' windows in a checkpoint, the longest silent first: the order of forgetting is kept.

use std::collections::VecDeque;

use prkdb_types::limits::PRODUCER_WINDOW_BATCHES;

use super::{ProducerKey, Remembered, Touched, Window, Windows};
use crate::storage::checkpoint::codec::{Malformed, Put as _, Take};

impl Windows {
    /// Adds all windows to sections of about `bytes` bytes each.
    pub(in crate::storage) fn save(&self, bytes: usize) -> Vec<Vec<u8>> {
        let mut sections = Vec::new();
        let mut section = Vec::new();
        for key in self.by_touch.values() {
            let Some(touched) = self.by_producer.get(key) else { continue };
            touched.save(*key, &mut section);
            if section.len() >= bytes {
                sections.push(std::mem::take(&mut section));
            }
        }
        if !section.is_empty() {
            sections.push(section);
        }
        sections
    }

    /// Adds the windows of a section behind those that are there.
    pub(in crate::storage) fn load(&mut self, mut from: Take<'_>) -> Result<(), Malformed> {
        while !from.is_empty() {
            let (key, mut touched) = Touched::load(&mut from)?;
            touched.touch = self.next_touch;
            self.next_touch += 1;
            self.bytes += touched.window.bytes();
            self.by_touch.insert(touched.touch, key);
            if self.by_producer.insert(key, touched).is_some() {
                return Err(Malformed);
            }
        }
        Ok(())
    }
}

impl Touched {
    fn save(&self, key: ProducerKey, to: &mut Vec<u8>) {
        to.put_number(key.partition.into());
        to.put_signed(key.producer);
        to.put_signed(self.window.epoch.into());
        to.put_signed(self.at_ms);
        to.put_number(self.window.batches.len() as u64);
        for batch in &self.window.batches {
            to.put_signed(batch.sequence.into());
            to.put_number(batch.count.into());
            to.extend_from_slice(&batch.crc.to_le_bytes());
            to.put_number(batch.base_offset);
            to.put_number(batch.entry);
            to.put_signed(batch.append_time_ms);
        }
    }

    fn load(from: &mut Take<'_>) -> Result<(ProducerKey, Self), Malformed> {
        let key = ProducerKey { partition: from.narrow()?, producer: from.signed()? };
        let epoch = i16::try_from(from.signed()?).map_err(|_| Malformed)?;
        let at_ms = from.signed()?;
        let mut batches = VecDeque::new();
        for _ in 0..from.count()? {
            batches.push_back(Remembered {
                sequence: i32::try_from(from.signed()?).map_err(|_| Malformed)?,
                count: from.narrow()?,
                crc: u32::from_le_bytes(from.array()?),
                base_offset: from.number()?,
                entry: from.number()?,
                append_time_ms: from.signed()?,
            });
        }
        if batches.len() > PRODUCER_WINDOW_BATCHES {
            return Err(Malformed);
        }
        Ok((key, Self { window: Window { epoch, batches }, touch: 0, at_ms }))
    }
}
