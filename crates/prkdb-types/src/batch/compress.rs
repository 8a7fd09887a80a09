//! The five codecs of the format, and the bound on what decompression may give.
//!
//! A few bytes can claim to be gigabytes. Output is therefore produced piece by piece and cut off at
//! [`DecompressLimit`]; no length in the compressed bytes is believed. What the codecs themselves
//! hold besides is bounded too: 8 MiB for zstd's window, two blocks of at most 8 MiB for lz4.

use std::{
    fmt,
    io::{self, Read, Write},
};

use bytes::{Buf, Bytes};

use super::BatchError;

/// The most a compressed byte may become.
const RATIO_MAX: usize = 100;

/// What may always come out, however few bytes went in.
const OUTPUT_FLOOR: usize = 4096;

/// zstd's window, as a power of two: 8 MiB, what every decoder should take (RFC 8878, 3.1.1.1.2).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// zstd's own default, as in Kafka's clients.
const ZSTD_LEVEL: i32 = 3;

/// The framing of snappy-java: magic, version, lowest version that can read it; then blocks of a
/// length (u32, big-endian) and that many bytes of raw snappy.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_VERSIONS: &[u8; 8] = b"\0\0\0\x01\0\0\0\x01";
const XERIAL_BLOCK: usize = 32 * 1024;

/// How the records of a batch are compressed, with Kafka's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// snappy, in the framing of snappy-java.
    Snappy,
    /// lz4, in its frame format.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Every codec, in the order of their numbers.
    pub const ALL: &[Self] = &[Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// Returns the number in a batch's attributes.
    pub fn number(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Returns the codec with this number.
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.iter().copied().find(|codec| codec.number() == number)
    }

    /// Returns the name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Returns the codec with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|codec| codec.name() == name)
    }

    /// Appends the compressed form of `plain`.
    pub(super) fn compress(self, plain: &[u8], to: &mut Vec<u8>) -> Result<(), BatchError> {
        let result = match self {
            Self::None => to.write_all(plain),
            Self::Gzip => gzip(plain, to),
            Self::Snappy => xerial(plain, to),
            Self::Lz4 => lz4(plain, to),
            Self::Zstd => zstd::stream::copy_encode(plain, to, ZSTD_LEVEL),
        };
        result.map_err(|source| BatchError::Compress { compression: self, source })
    }

    /// Returns the plain form of `packed`; the same buffer where nothing is compressed.
    pub(super) fn decompress(
        self,
        packed: Bytes,
        limit: DecompressLimit,
    ) -> Result<Bytes, BatchError> {
        let cap = limit.for_input(packed.len());
        let result = match self {
            Self::None => return Ok(packed),
            Self::Gzip => read_capped(flate2::bufread::MultiGzDecoder::new(&packed[..]), cap),
            Self::Snappy => unsnap(&packed, cap),
            Self::Lz4 => unlz4(&packed, cap),
            Self::Zstd => unzstd(&packed, cap),
        };
        match result {
            Ok(Some(plain)) => Ok(Bytes::from(plain)),
            Ok(None) => Err(BatchError::TooLarge { limit: cap }),
            Err(source) => Err(BatchError::Decompress { compression: self, source }),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How many bytes the records of a batch may have once decompressed.
///
/// Besides this limit, nothing becomes more than 100 times what it was, except that 4 KiB are always
/// allowed: a limit for a message alone would let a kilobyte cost megabytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecompressLimit {
    bytes: usize,
}

impl DecompressLimit {
    /// A limit of `bytes`, as a rule the node's limit for messages.
    pub const fn new(bytes: usize) -> Self {
        Self { bytes }
    }

    /// Returns how much `input` bytes may become.
    pub fn for_input(self, input: usize) -> usize {
        self.bytes.min(input.saturating_mul(RATIO_MAX).max(OUTPUT_FLOOR))
    }
}

fn gzip(plain: &[u8], to: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = flate2::write::GzEncoder::new(to, flate2::Compression::default());
    encoder.write_all(plain)?;
    encoder.finish().map(|_| ())
}

fn lz4(plain: &[u8], to: &mut Vec<u8>) -> io::Result<()> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    // Kafka's own decoder takes independent blocks only.
    let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, to);
    encoder.write_all(plain)?;
    encoder.finish().map(|_| ()).map_err(io::Error::other)
}

fn xerial(plain: &[u8], to: &mut Vec<u8>) -> io::Result<()> {
    to.extend_from_slice(XERIAL_MAGIC);
    to.extend_from_slice(XERIAL_VERSIONS);
    let mut encoder = snap::raw::Encoder::new();
    for block in plain.chunks(XERIAL_BLOCK) {
        let packed = encoder.compress_vec(block).map_err(io::Error::other)?;
        let length = u32::try_from(packed.len()).map_err(io::Error::other)?;
        to.extend_from_slice(&length.to_be_bytes());
        to.extend_from_slice(&packed);
    }
    Ok(())
}

/// Reads to the end, or gives `None` as soon as there are more than `cap` bytes.
fn read_capped(reader: impl Read, cap: usize) -> io::Result<Option<Vec<u8>>> {
    let mut plain = Vec::new();
    let one_more = u64::try_from(cap).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(one_more).read_to_end(&mut plain)?;
    Ok((plain.len() <= cap).then_some(plain))
}

fn unlz4(packed: &[u8], cap: usize) -> io::Result<Option<Vec<u8>>> {
    let mut decoder = lz4_flex::frame::FrameDecoder::new(packed);
    let plain = read_capped(&mut decoder, cap)?;
    // The decoder takes the end of the input for the end of a frame.
    if plain.is_some() && !decoder.get_ref().is_empty() {
        return Err(io::Error::other("bytes follow the last frame"));
    }
    Ok(plain)
}

fn unzstd(packed: &[u8], cap: usize) -> io::Result<Option<Vec<u8>>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    read_capped(decoder, cap)
}

fn unsnap(mut packed: &[u8], cap: usize) -> io::Result<Option<Vec<u8>>> {
    let Some(blocks) = packed.strip_prefix(XERIAL_MAGIC) else {
        let mut plain = Vec::new();
        return Ok(unsnap_block(packed, cap, &mut plain)?.then_some(plain));
    };
    packed = blocks.strip_prefix(XERIAL_VERSIONS).ok_or(io::ErrorKind::Unsupported)?;
    let mut plain = Vec::new();
    while packed.has_remaining() {
        let length = packed.try_get_u32().map_err(io::Error::other)?;
        let (block, rest) = usize::try_from(length)
            .ok()
            .and_then(|length| packed.split_at_checked(length))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        packed = rest;
        if !unsnap_block(block, cap, &mut plain)? {
            return Ok(None);
        }
    }
    Ok(Some(plain))
}

/// Appends the plain form of a block, or returns false where that would go beyond `cap`.
fn unsnap_block(block: &[u8], cap: usize, to: &mut Vec<u8>) -> io::Result<bool> {
    let length = snap::raw::decompress_len(block).map_err(io::Error::other)?;
    if length > cap.saturating_sub(to.len()) {
        return Ok(false);
    }
    let plain = snap::raw::Decoder::new().decompress_vec(block).map_err(io::Error::other)?;
    to.extend_from_slice(&plain);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: DecompressLimit = DecompressLimit::new(1 << 20);

    fn packed(codec: Compression, plain: &[u8]) -> Bytes {
        let mut packed = Vec::new();
        codec.compress(plain, &mut packed).unwrap();
        Bytes::from(packed)
    }

    #[test]
    fn every_codec_gives_back_what_it_got() {
        let text: Vec<u8> = (0..100_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for codec in Compression::ALL {
            for plain in [&text[..], b"short", b""] {
                let packed = packed(*codec, plain);
                assert_eq!(codec.decompress(packed, LIMIT).unwrap(), plain, "{codec}");
            }
        }
    }

    #[test]
    fn bombs_are_cut_at_the_cap() {
        let plain = vec![0; 8 << 20];
        for codec in &Compression::ALL[1..] {
            let bomb = packed(*codec, &plain);
            for limit in [DecompressLimit::new(10_000), LIMIT] {
                let cap = limit.for_input(bomb.len());
                assert!(cap <= bomb.len() * RATIO_MAX || cap == OUTPUT_FLOOR);
                let error = codec.decompress(bomb.clone(), limit).unwrap_err();
                assert!(
                    matches!(error, BatchError::TooLarge { limit } if limit == cap),
                    "{codec}: {error}"
                );
            }
        }
    }

    #[test]
    fn a_few_bytes_may_become_the_floor_and_no_more() {
        for codec in &Compression::ALL[1..] {
            let bytes = packed(*codec, &[0; OUTPUT_FLOOR]);
            assert!(codec.decompress(bytes, LIMIT).is_ok(), "{codec}");
        }
        let more = packed(Compression::Zstd, &[0; OUTPUT_FLOOR + 1]);
        assert!(more.len() * RATIO_MAX < OUTPUT_FLOOR);
        assert!(Compression::Zstd.decompress(more, LIMIT).is_err());
    }

    #[test]
    fn raw_snappy_is_read_too() {
        let raw = snap::raw::Encoder::new().compress_vec(b"raw raw raw raw").unwrap();
        let plain = Compression::Snappy.decompress(Bytes::from(raw), LIMIT).unwrap();
        assert_eq!(plain.as_ref(), b"raw raw raw raw");
    }

    #[test]
    fn a_stated_length_is_not_allocated_before_it_is_checked() {
        // A block that claims 4 GiB - 1.
        let raw = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        let error = Compression::Snappy.decompress(raw, LIMIT).unwrap_err();
        assert!(matches!(error, BatchError::TooLarge { .. }));
        // A zstd frame with a window of 128 MiB and no content.
        let frame = Bytes::from_static(&[0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3, 1, 0, 0]);
        let error = Compression::Zstd.decompress(frame, LIMIT).unwrap_err();
        assert!(matches!(error, BatchError::Decompress { .. }));
    }

    #[test]
    fn cut_and_garbled_input_is_an_error_or_other_bytes_but_never_a_panic() {
        let plain: Vec<u8> = (0..2000_u32).flat_map(|n| (n * n).to_le_bytes()).collect();
        for codec in &Compression::ALL[1..] {
            let whole = packed(*codec, &plain);
            for cut in 0..whole.len() {
                if let Ok(found) = codec.decompress(whole.slice(..cut), LIMIT) {
                    assert!(found.len() <= plain.len(), "{codec} cut at {cut}");
                }
            }
            for at in (0..whole.len()).step_by(13) {
                let mut garbled = whole.to_vec();
                garbled[at] ^= 0x55;
                if let Ok(found) = codec.decompress(Bytes::from(garbled), LIMIT) {
                    assert!(found.len() <= LIMIT.bytes);
                }
            }
        }
    }
}
