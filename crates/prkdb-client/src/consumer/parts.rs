//! The batches of one reply.
//!
//! A reply holds whole batches end to end, in parts that may end inside of a batch. Nothing is copied where
//! a part holds whole batches, nor where a part is a batch's head and the next begins with its tail; a batch
//! that is cut elsewhere is joined, and only that batch.

use bytes::{Buf, Bytes, BytesMut};
use prkdb_types::{
    Batch, BatchError,
    batch::{HEAD_LEN, HEADER_LEN},
};

/// The batches of a reply, one after the other. After an error there are no more.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    rest: Bytes,
    behind: std::vec::IntoIter<Bytes>,
}

impl Parts {
    pub(crate) fn new(parts: Vec<Bytes>) -> Self {
        Self { rest: Bytes::new(), behind: parts.into_iter() }
    }

    fn step(&mut self) -> Result<Option<Batch>, BatchError> {
        while self.rest.is_empty() {
            let Some(part) = self.behind.next() else { return Ok(None) };
            self.rest = part;
        }
        let needed = match Batch::split_first(&self.rest) {
            Ok((batch, bytes)) => {
                self.rest.advance(bytes);
                return Ok(Some(batch));
            }
            Err(BatchError::Truncated { needed, .. }) => needed,
            Err(error) => return Err(error),
        };
        match self.apart(needed) {
            Some((head, tail)) => Batch::from_parts(head, tail).map(Some),
            None => self.joined(needed).map(Some),
        }
    }

    /// Takes a batch whose head is what is left of one part and whose tail begins the next.
    fn apart(&mut self, needed: usize) -> Option<([u8; HEAD_LEN], Bytes)> {
        let head = <[u8; HEAD_LEN]>::try_from(self.rest.as_ref()).ok()?;
        let tail_len = needed.checked_sub(HEAD_LEN)?;
        let next = self.behind.as_slice().first()?;
        if next.len() < tail_len {
            return None;
        }
        self.rest = self.behind.next()?;
        Some((head, self.rest.split_to(tail_len)))
    }

    /// Copies the first batch together from as many parts as it takes.
    fn joined(&mut self, mut needed: usize) -> Result<Batch, BatchError> {
        // A length that is not there is not believed: the buffer is no larger than the parts are.
        let there = self.behind.as_slice().iter().map(Bytes::len).sum::<usize>() + self.rest.len();
        let mut bytes = BytesMut::with_capacity(needed.max(HEADER_LEN).min(there));
        loop {
            while bytes.len() < needed {
                if self.rest.is_empty() {
                    let found = bytes.len();
                    let truncated = BatchError::Truncated { needed, found };
                    self.rest = self.behind.next().ok_or(truncated)?;
                }
                let missing = (needed - bytes.len()).min(self.rest.len());
                bytes.extend_from_slice(&self.rest.split_to(missing));
            }
            let whole = bytes.split().freeze();
            match Batch::parse(whole.clone()) {
                Ok(batch) => return Ok(batch),
                // The fixed fields were not whole before: now they say how long the batch is.
                Err(BatchError::Truncated { needed: more, .. }) if more > whole.len() => {
                    needed = more;
                    bytes = BytesMut::with_capacity(needed.min(there));
                    bytes.extend_from_slice(&whole);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Iterator for Parts {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose();
        if matches!(step, Some(Err(_))) {
            *self = Self::default();
        }
        step
    }
}

#[cfg(test)]
mod tests {
    use prkdb_types::{BatchBuilder, Compression, ProducerStamp};

    use super::*;

    fn batch(base_offset: u64, records: u32) -> Batch {
        let mut builder = BatchBuilder::new(ProducerStamp::NONE, Compression::None);
        for record in 0..records {
            builder.push(7, None, Some(&record.to_be_bytes()), &[]).unwrap();
        }
        let mut batch = builder.finish().unwrap();
        batch.set_base_offset(base_offset);
        batch
    }

    fn batches() -> Vec<Batch> {
        vec![batch(0, 1), batch(1, 40), batch(41, 2), batch(50, 1)]
    }

    fn end_to_end() -> Bytes {
        Bytes::from(batches().iter().flat_map(Batch::to_bytes).collect::<Vec<u8>>())
    }

    fn read(parts: Vec<Bytes>) -> Vec<Batch> {
        Parts::new(parts).map(Result::unwrap).collect()
    }

    fn is_slice_of(batch: &Batch, buffer: &Bytes) -> bool {
        buffer.as_ptr_range().contains(&batch.tail().as_ptr())
    }

    #[test]
    fn many_batches_in_one_part_are_not_copied() {
        let whole = end_to_end();
        let found = read(vec![Bytes::new(), whole.clone(), Bytes::new()]);
        assert_eq!(found, batches());
        assert!(found.iter().all(|batch| is_slice_of(batch, &whole)));
    }

    #[test]
    fn a_head_and_its_tail_in_two_parts_are_not_copied() {
        let heads = batches();
        let parts = heads
            .iter()
            .flat_map(|batch| [Bytes::copy_from_slice(batch.head()), batch.tail().clone()]);
        let found = read(parts.collect());
        assert_eq!(found, heads);
        for (found, sent) in found.iter().zip(&heads) {
            assert!(is_slice_of(found, sent.tail()));
        }
        // A head behind whole batches, and whole batches behind its tail.
        let whole = end_to_end();
        let at = heads[0].len() + HEAD_LEN;
        let found = read(vec![whole.slice(..at), whole.slice(at..)]);
        assert_eq!(found, heads);
        assert!(found.iter().all(|batch| is_slice_of(batch, &whole)));
    }

    #[test]
    fn batches_cut_anywhere_are_joined() {
        let whole = end_to_end();
        for cut in 0..=whole.len() {
            assert_eq!(read(vec![whole.slice(..cut), whole.slice(cut..)]), batches(), "{cut}");
        }
        for size in [1, 2, 5, 11, 12, 13, 20, 21, 22, 60, 61, 62, 100] {
            let parts = whole.chunks(size).map(Bytes::copy_from_slice).collect();
            assert_eq!(read(parts), batches(), "parts of {size}");
        }
    }

    #[test]
    fn a_reply_that_ends_inside_of_a_batch_is_an_error_and_the_last_word() {
        let whole = end_to_end();
        for cut in [1, 11, 12, 21, 60, batches()[0].len() - 1] {
            for size in [7, HEAD_LEN, 1000] {
                let parts = whole[..cut].chunks(size).map(Bytes::copy_from_slice).collect();
                let mut parts = Parts::new(parts);
                let error = parts.next().unwrap().unwrap_err();
                assert!(matches!(error, BatchError::Truncated { .. }), "{error}");
                assert!(parts.next().is_none());
            }
        }
    }

    #[test]
    fn a_length_that_is_not_there_costs_no_memory() {
        let mut bytes = batch(0, 1).to_bytes().to_vec();
        bytes[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
        let mut parts = Parts::new(bytes.chunks(10).map(Bytes::copy_from_slice).collect());
        assert!(matches!(parts.next(), Some(Err(BatchError::Truncated { .. }))));
    }
}
