//! What one simulated file holds.
//!
//! Pages are shared between all images of a disk and copied when one is written. A page that is not
//! there reads as zeros and has no blocks; an allocated one has blocks and counts as used room.

#![expect(clippy::indexing_slicing, reason = "a page out of range is a defect of the simulation")]

use std::{
    io::IoSlice,
    sync::{Arc, LazyLock},
};

use crc_fast::{CrcAlgorithm, checksum};

/// Bytes of a page, the unit of copying and of used room.
pub(super) const PAGE_BYTES: usize = 4096;

/// Bytes of a sector, the unit of loss.
pub(super) const SECTOR_BYTES: usize = 512;

const SECTORS_PER_PAGE: usize = PAGE_BYTES / SECTOR_BYTES;
const _: () = assert!(SECTORS_PER_PAGE * SECTOR_BYTES == PAGE_BYTES);

/// The longest file, so that a mad position is an error and not a mad allocation.
pub(super) const FILE_BYTES_MAX: usize = 1 << 32;

pub(super) type Page = Arc<[u8; PAGE_BYTES]>;

static ZERO_PAGE: LazyLock<Page> = LazyLock::new(|| Arc::new([0; PAGE_BYTES]));
static ZERO_PAGE_HASH: LazyLock<u64> = LazyLock::new(|| page_hash(&ZERO_PAGE));

/// One sector as a write left it.
#[derive(Clone, Debug)]
pub(super) struct Sector {
    pub(super) index: usize,
    /// The whole page at that moment; only this sector of it is meant.
    page: Page,
    /// Where the file ended at least, should this sector be all that survives.
    end: usize,
}

/// Bytes and blocks of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pages: Vec<Option<Page>>,
    len: usize,
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the bytes of its blocks.
    pub(super) fn used(&self) -> u64 {
        pages_to_bytes(self.pages.iter().flatten().count())
    }

    /// Returns the bytes of the blocks it would need more to hold `len` bytes from `from`.
    pub(super) fn missing(&self, from: usize, len: usize) -> u64 {
        let range = pages_of(from, len);
        let wanted = range.len();
        let present = self.pages.iter().take(range.end).skip(range.start).flatten().count();
        pages_to_bytes(wanted - present)
    }

    /// Returns how many of `len` bytes from `from` can be held with `room` bytes more of blocks.
    pub(super) fn fits(&self, from: usize, len: usize, room: u64) -> usize {
        if self.missing(from, len) <= room {
            return len;
        }
        let (mut left, mut fits) = (room, 0);
        while fits < len {
            let step = (PAGE_BYTES - split(from + fits).1).min(len - fits);
            let missing = self.missing(from + fits, step);
            if missing > left {
                break;
            }
            left -= missing;
            fits += step;
        }
        fits
    }

    pub(super) fn read(&self, position: usize, into: &mut [u8]) -> usize {
        let count = self.len.saturating_sub(position).min(into.len());
        let mut done = 0;
        while done < count {
            let (page, within) = split(position + done);
            let step = (PAGE_BYTES - within).min(count - done);
            let to = &mut into[done..done + step];
            match self.pages.get(page).and_then(Option::as_ref) {
                Some(page) => to.copy_from_slice(&page[within..within + step]),
                None => to.fill(0),
            }
            done += step;
        }
        count
    }

    /// Writes the slices end to end, at most `limit` bytes of them, and returns the sectors as they
    /// are now.
    pub(super) fn write(
        &mut self,
        position: usize,
        slices: &[IoSlice<'_>],
        limit: usize,
    ) -> Vec<Sector> {
        let mut at = position;
        let stop = position + limit;
        for slice in slices {
            let mut rest: &[u8] = slice;
            while !rest.is_empty() && at < stop {
                let (page, within) = split(at);
                let step = (PAGE_BYTES - within).min(rest.len()).min(stop - at);
                let (now, later) = rest.split_at(step);
                self.page_mut(page)[within..within + step].copy_from_slice(now);
                rest = later;
                at += step;
            }
        }
        self.len = self.len.max(at);
        self.sectors(position, at)
    }

    fn sectors(&self, from: usize, to: usize) -> Vec<Sector> {
        let range = if from == to { 0..0 } else { from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES) };
        range
            .filter_map(|index| {
                let page = self.pages.get(index / SECTORS_PER_PAGE)?.clone()?;
                Some(Sector { index, page, end: self.len.min((index + 1) * SECTOR_BYTES) })
            })
            .collect()
    }

    /// Puts one sector of a lost write in its place.
    pub(super) fn apply_sector(&mut self, sector: &Sector) {
        let start = (sector.index % SECTORS_PER_PAGE) * SECTOR_BYTES;
        let range = start..start + SECTOR_BYTES;
        self.page_mut(sector.index / SECTORS_PER_PAGE)[range.clone()]
            .copy_from_slice(&sector.page[range]);
        self.extend(sector.end);
    }

    /// Makes the file at least this long; what is new reads as zeros.
    pub(super) fn extend(&mut self, len: usize) {
        if len > self.len {
            self.set_len(len);
        }
    }

    pub(super) fn set_len(&mut self, len: usize) {
        if len < self.len || self.pages.len() > len.div_ceil(PAGE_BYTES) {
            self.pages.truncate(len.div_ceil(PAGE_BYTES));
            let (page, within) = split(len);
            if within != 0
                && let Some(Some(page)) = self.pages.get_mut(page)
            {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.len = len;
    }

    pub(super) fn allocate(&mut self, from: usize, len: usize) {
        let range = pages_of(from, len);
        self.reserve(range.end);
        for page in &mut self.pages[range] {
            page.get_or_insert_with(|| Arc::clone(&ZERO_PAGE));
        }
        self.len = self.len.max(from + len);
    }

    /// Turns one bit over; does nothing behind the end.
    pub(super) fn flip(&mut self, position: usize, bit: u8) {
        if position < self.len {
            let (page, within) = split(position);
            self.page_mut(page)[within] ^= 1 << (bit % 8);
        }
    }

    /// Returns a hash of length and bytes; whether zeros have blocks makes no difference.
    pub(super) fn hash(&self) -> u64 {
        let mut hash = mix(0, byte_count(self.len));
        for index in 0..self.len.div_ceil(PAGE_BYTES) {
            let page = self.pages.get(index).and_then(Option::as_ref);
            // Blocks that were only allocated share one page: a large empty file costs no reading.
            let written = page.filter(|page| !Arc::ptr_eq(page, &ZERO_PAGE));
            hash = mix(hash, written.map_or(*ZERO_PAGE_HASH, |page| page_hash(page)));
        }
        hash
    }

    fn page_mut(&mut self, index: usize) -> &mut [u8; PAGE_BYTES] {
        self.reserve(index + 1);
        Arc::make_mut(self.pages[index].get_or_insert_with(|| Arc::clone(&ZERO_PAGE)))
    }

    fn reserve(&mut self, pages: usize) {
        if self.pages.len() < pages {
            self.pages.resize(pages, None);
        }
    }
}

/// Returns a number that depends on both, and on their order.
pub(super) fn mix(hash: u64, more: u64) -> u64 {
    let mut mixed = (hash.rotate_left(5) ^ more).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn page_hash(page: &[u8; PAGE_BYTES]) -> u64 {
    checksum(CrcAlgorithm::Crc64Nvme, page)
}

fn split(position: usize) -> (usize, usize) {
    (position / PAGE_BYTES, position % PAGE_BYTES)
}

fn pages_of(from: usize, len: usize) -> std::ops::Range<usize> {
    if len == 0 { 0..0 } else { from / PAGE_BYTES..(from + len).div_ceil(PAGE_BYTES) }
}

fn pages_to_bytes(pages: usize) -> u64 {
    byte_count(pages * PAGE_BYTES)
}

/// Converts a count of bytes in memory to one in a file.
pub(super) fn byte_count(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits 64 bits")
}
