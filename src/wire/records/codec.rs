//! Decompression of a records section into a buffer that is used again and again. Every codec
//! stops at the caller's byte cap; no codec reserves memory by a size that the data claims.

use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;
use zstd::zstd_safe::DCtx;

use super::{Codec, RecordsError};

/// Bytes of buffer that stay allocated between batches; more is given back by
/// [`Scratch::trim`].
pub const SCRATCH_KEPT_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that the batches of one request may decompress to together; see
/// [`Scratch::begin_request`]. A frame of 100 MiB can otherwise hold enough small bombs, each below
/// the caps of a batch, to keep a worker busy for minutes.
pub const REQUEST_PLAIN_BYTES_MAX: usize = 512 * 1024 * 1024;
/// First guess of a decompressed size, as a multiple of the compressed one.
const GROWTH: usize = 8;
/// Least room offered to a decompressor, bytes.
const ROOM_BYTES_MIN: usize = 64 * 1024;
/// The most that snappy can expand: a copy of 64 bytes takes two to three bytes.
const SNAPPY_RATIO_MAX: usize = 32;
/// How xerial's snappy streams begin (snappy-java); version and compatible version follow.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\x00";
/// Magic, version and compatible version.
const XERIAL_HEADER_BYTES: usize = 16;
/// How an LZ4 frame begins; skippable and legacy frames are refused, as in Kafka.
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// ZSTD_error_dstSize_tooSmall, a number that zstd promises to keep, as zstd returns it.
const ZSTD_ROOM_TOO_SMALL: usize = 70usize.wrapping_neg();

/// Buffers for looking into compressed batches; one for each worker. Holds at most
/// [`super::BATCH_PLAIN_BYTES_MAX`] (or the caller's cap) while in use.
#[derive(Default)]
pub struct Scratch {
    plain: Vec<u8>,
    zstd: Option<DCtx<'static>>,
    // `None` before the first request: then only the caps of a batch hold
    request_bytes_left: Option<usize>,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // never the content: payloads do not belong into logs
        f.debug_struct("Scratch")
            .field("capacity_bytes", &self.plain.capacity())
            .finish()
    }
}

impl Scratch {
    /// An empty scratch; allocates on first use.
    pub fn new() -> Self {
        Self::default()
    }

    /// Grants the next request [`REQUEST_PLAIN_BYTES_MAX`] over all of its batches. Whoever serves
    /// requests calls it at the start of each; a batch beyond the grant is a bomb.
    pub fn begin_request(&mut self) {
        self.request_bytes_left = Some(REQUEST_PLAIN_BYTES_MAX);
    }

    /// Gives back what goes beyond [`SCRATCH_KEPT_BYTES`] and forgets the content.
    pub fn trim(&mut self) {
        self.plain.clear();
        self.plain.shrink_to(SCRATCH_KEPT_BYTES);
    }

    /// Bytes of buffer held now.
    pub fn capacity_bytes(&self) -> usize {
        self.plain.capacity()
    }

    /// Decompresses `section` to at most `plain_bytes_max` bytes.
    pub(super) fn decompress(
        &mut self,
        codec: Codec,
        section: &[u8],
        plain_bytes_max: usize,
    ) -> Result<&[u8], RecordsError> {
        self.plain.clear();
        let max = plain_bytes_max.min(self.request_bytes_left.unwrap_or(usize::MAX));
        let done = match codec {
            Codec::None => self.copy(section, max),
            Codec::Gzip => self.stream(MultiGzDecoder::new(section), codec, max),
            Codec::Lz4 => self.lz4(section, max),
            Codec::Snappy => self.snappy(section, max),
            Codec::Zstd => self.zstd(section, max),
        };
        if let Some(left) = &mut self.request_bytes_left {
            // work was done whether or not it led to anything
            *left -= match done {
                Ok(()) => self.plain.len(),
                Err(RecordsError::Bomb(_)) => max,
                Err(_) => self.plain.capacity().min(max),
            };
        }
        match done {
            Ok(()) => Ok(&self.plain),
            Err(RecordsError::Bomb(_)) if max < plain_bytes_max => {
                Err(RecordsError::RequestBomb(REQUEST_PLAIN_BYTES_MAX))
            }
            Err(error) => Err(error),
        }
    }

    fn copy(&mut self, section: &[u8], max: usize) -> Result<(), RecordsError> {
        if section.len() > max {
            return Err(RecordsError::Bomb(max));
        }
        self.plain.extend_from_slice(section);
        Ok(())
    }

    /// Reads one byte beyond the cap at most: enough to know that it is exceeded.
    fn stream(&mut self, from: impl Read, codec: Codec, max: usize) -> Result<(), RecordsError> {
        let read = from.take(max as u64 + 1).read_to_end(&mut self.plain);
        self.settle(read, codec, max)
    }

    fn settle(
        &self,
        read: io::Result<usize>,
        codec: Codec,
        max: usize,
    ) -> Result<(), RecordsError> {
        match read {
            _ if self.plain.len() > max => Err(RecordsError::Bomb(max)),
            Ok(_) => Ok(()),
            // the cause is about the data only and would say nothing to its sender
            Err(_) => Err(RecordsError::Compressed(codec.name())),
        }
    }

    fn lz4(&mut self, section: &[u8], max: usize) -> Result<(), RecordsError> {
        let broken = RecordsError::Compressed(Codec::Lz4.name());
        if !section.starts_with(&LZ4_MAGIC) || !ends_lz4(section) {
            return Err(broken);
        }
        let mut frame = FrameDecoder::new(section);
        let read = (&mut frame)
            .take(max as u64 + 1)
            .read_to_end(&mut self.plain);
        self.settle(read, Codec::Lz4, max)?;
        // a reader that stops at the end of the frame would not see what follows
        if frame.into_inner().is_empty() {
            Ok(())
        } else {
            Err(broken)
        }
    }

    fn snappy(&mut self, section: &[u8], max: usize) -> Result<(), RecordsError> {
        let broken = RecordsError::Compressed(Codec::Snappy.name());
        if !section.starts_with(XERIAL_MAGIC) {
            return self.snappy_block(section, max);
        }
        let mut rest = section.get(XERIAL_HEADER_BYTES..).ok_or(broken)?;
        while !rest.is_empty() {
            let (length, tail) = rest.split_first_chunk::<4>().ok_or(broken)?;
            let length = u32::from_be_bytes(*length) as usize;
            let (block, tail) = tail.split_at_checked(length).ok_or(broken)?;
            self.snappy_block(block, max)?;
            rest = tail;
        }
        Ok(())
    }

    fn snappy_block(&mut self, block: &[u8], max: usize) -> Result<(), RecordsError> {
        let broken = RecordsError::Compressed(Codec::Snappy.name());
        let claimed = snap::raw::decompress_len(block).map_err(|_| broken)?;
        if claimed > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
            // more than the format can hold: not reserved, not even tried
            return Err(broken);
        }
        let start = self.plain.len();
        let end = start.saturating_add(claimed);
        if end > max {
            return Err(RecordsError::Bomb(max));
        }
        self.plain.resize(end, 0);
        match snap::raw::Decoder::new().decompress(block, &mut self.plain[start..]) {
            Ok(written) if written == claimed => Ok(()),
            _ => Err(broken),
        }
    }

    /// In one piece rather than streaming: a streaming decoder reserves the window that the
    /// frame claims (up to 128 MiB), this one writes straight into the capped buffer.
    fn zstd(&mut self, section: &[u8], max: usize) -> Result<(), RecordsError> {
        let broken = RecordsError::Compressed(Codec::Zstd.name());
        if self.zstd.is_none() {
            self.zstd = Some(DCtx::try_create().ok_or(broken)?);
        }
        let Some(context) = self.zstd.as_mut() else {
            return Err(broken);
        };
        let mut room = section
            .len()
            .saturating_mul(GROWTH)
            .max(ROOM_BYTES_MIN)
            .max(self.plain.capacity())
            .min(max);
        loop {
            self.plain.clear();
            self.plain.reserve_exact(room);
            match context.decompress(&mut self.plain, section) {
                // the buffer may be larger than was asked for
                Ok(written) if written > max => return Err(RecordsError::Bomb(max)),
                Ok(_) => return Ok(()),
                Err(ZSTD_ROOM_TOO_SMALL) if self.plain.capacity() >= max => {
                    return Err(RecordsError::Bomb(max));
                }
                Err(ZSTD_ROOM_TOO_SMALL) => room = (self.plain.capacity() * 4).min(max),
                Err(_) => return Err(broken),
            }
        }
    }
}

/// Whether the frame's end mark is there, with or without a content checksum behind it: the
/// decoder takes the end of input between blocks for the end of the frame.
fn ends_lz4(section: &[u8]) -> bool {
    const CONTENT_CHECKSUM: u8 = 0x04;
    let Some(flags) = section.get(4) else {
        return false;
    };
    let behind = if flags & CONTENT_CHECKSUM == 0 { 0 } else { 4 };
    section
        .len()
        .checked_sub(4 + behind)
        .and_then(|at| section.get(at..at + 4))
        == Some(&[0; 4])
}
