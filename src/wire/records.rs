//! Record batches (magic 2, KIP-98), walked in place: headers without a copy, records without an
//! allocation unless the batch is compressed. What a peer claims (a length, a count, a
//! decompressed size) is never believed before the bytes are there.
//!
//! A batch that passes is forwarded byte for byte; only the proxy's own records are written here.

use thiserror::Error;

mod codec;
mod varint;
mod write;

#[cfg(test)]
mod tests;

pub use codec::{REQUEST_PLAIN_BYTES_MAX, SCRATCH_KEPT_BYTES, Scratch};
pub use varint::put_zigzag;
use varint::{take_i32, take_i64};
pub use write::{Writer, write};

/// Bytes of a batch header, from the base offset to the record count.
pub const BATCH_HEADER_BYTES: usize = 61;
/// Bytes before the part that the batch length counts: base offset and the length itself.
pub const BATCH_PREFIX_BYTES: usize = 12;
/// The only format that may be produced since Kafka 3 (KIP-724); 0 and 1 are message sets.
pub const MAGIC: i8 = 2;
/// Largest decompressed records section, bytes.
pub const BATCH_PLAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How many bytes one compressed byte may become, once [`RATIO_FREE_BYTES`] are exceeded.
pub const RATIO_MAX: usize = 1000;
/// Decompressed bytes below which the ratio does not matter: repeated small events compress
/// extremely well without being an attack.
pub const RATIO_FREE_BYTES: usize = 1024 * 1024;

/// The attribute bits that name a codec.
const CODEC_BITS: i16 = 0x07;

/// Why bytes are not a batch of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages say it
pub enum RecordsError {
    #[error("record batch is cut off: {needed} bytes needed, {left} left")]
    Truncated { needed: u64, left: usize },
    #[error("record batch length {0} is impossible")]
    BatchLength(i32),
    #[error("record batch has magic {0}, expected 2")]
    Magic(i8),
    #[error("record batch names compression codec {0}, which does not exist")]
    Codec(u8),
    #[error("record batch checksum does not match its content")]
    Checksum,
    #[error("record batch claims {0} records")]
    Count(i32),
    #[error("record batch holds fewer records than the {0} its header counts")]
    MissingRecords(i32),
    #[error("record batch holds bytes after its last record")]
    LeftOver,
    #[error("record {0} is malformed: {1}")]
    Record(u32, &'static str),
    #[error("compressed records cannot be decompressed as {0}")]
    Compressed(&'static str),
    #[error("records decompress to more than {0} bytes")]
    Bomb(usize),
    #[error("the records of one request decompress to more than {0} bytes")]
    RequestBomb(usize),
}

impl RecordsError {
    /// Whether the content contradicts its checksum: Kafka's CORRUPT_MESSAGE. Everything else is
    /// INVALID_RECORD.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Checksum)
    }
}

/// How the records section is compressed (attribute bits 0 to 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are Kafka's
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// Every codec, in the order of their numbers.
    pub const EVERY: [Codec; 5] = [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ];

    /// The bit that stands for it in [`Summary::codecs`].
    pub fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Kafka's name, as in `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// How far decompression may go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest decompressed records section, bytes.
    pub plain_bytes_max: usize,
    /// Largest decompressed size as a multiple of the compressed one, above
    /// [`RATIO_FREE_BYTES`].
    pub ratio_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            plain_bytes_max: BATCH_PLAIN_BYTES_MAX,
            ratio_max: RATIO_MAX,
        }
    }
}

impl Limits {
    /// The most that `compressed_bytes` may become.
    fn plain_bytes_for(&self, compressed_bytes: usize) -> usize {
        compressed_bytes
            .saturating_mul(self.ratio_max)
            .max(RATIO_FREE_BYTES)
            .min(self.plain_bytes_max)
    }
}

/// One record batch of magic 2, complete in memory.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    // at least BATCH_HEADER_BYTES; outside this module exactly as long as the batch says
    raw: &'a [u8],
}

impl<'a> Batch<'a> {
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.raw[at..at + N]);
        bytes
    }

    /// Offset of the first record; a producer writes 0.
    pub fn base_offset(&self) -> i64 {
        i64::from_be_bytes(self.field(0))
    }

    /// Bytes after the length field, as the batch says.
    pub fn length(&self) -> i32 {
        i32::from_be_bytes(self.field(8))
    }

    /// Epoch of the partition leader; not covered by the checksum.
    pub fn partition_leader_epoch(&self) -> i32 {
        i32::from_be_bytes(self.field(12))
    }

    /// Always [`MAGIC`]: other formats never become a `Batch`.
    pub fn magic(&self) -> i8 {
        i8::from_be_bytes(self.field(16))
    }

    /// CRC-32C of everything from the attributes on, as the batch says.
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(self.field(17))
    }

    /// All attribute bits.
    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes(self.field(21))
    }

    /// How the records section is compressed; codes 5 to 7 do not exist.
    pub fn codec(&self) -> Result<Codec, RecordsError> {
        match self.attributes() & CODEC_BITS {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 => Ok(Codec::Lz4),
            4 => Ok(Codec::Zstd),
            other => Err(RecordsError::Codec(other as u8)),
        }
    }

    /// Whether timestamps are the broker's (attribute bit 3); a producer may not set it.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes() & 0x08 != 0
    }

    /// Whether the batch belongs to a transaction (attribute bit 4).
    pub fn is_transactional(&self) -> bool {
        self.attributes() & 0x10 != 0
    }

    /// Whether the batch holds control records (attribute bit 5); only brokers write these.
    pub fn is_control(&self) -> bool {
        self.attributes() & 0x20 != 0
    }

    /// Offset of the last record relative to the first.
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(self.field(23))
    }

    /// Milliseconds since the epoch to which the records' timestamps are relative.
    pub fn base_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.field(27))
    }

    /// Largest timestamp in the batch, milliseconds since the epoch.
    pub fn max_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.field(35))
    }

    /// The producer's id; -1 without idempotence.
    pub fn producer_id(&self) -> i64 {
        i64::from_be_bytes(self.field(43))
    }

    /// The producer's epoch; -1 without idempotence.
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(self.field(51))
    }

    /// Sequence number of the first record; -1 without idempotence.
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(self.field(53))
    }

    /// How many records the header counts.
    pub fn count(&self) -> i32 {
        i32::from_be_bytes(self.field(57))
    }

    /// Whether the count agrees with the last offset delta, as Kafka asks of a producer.
    pub fn count_agrees(&self) -> bool {
        self.count() > 0 && i64::from(self.last_offset_delta()) + 1 == i64::from(self.count())
    }

    /// The records section as it stands, compressed or not.
    pub fn section(&self) -> &'a [u8] {
        &self.raw[BATCH_HEADER_BYTES..]
    }

    /// The whole batch.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Whether the checksum fits the content.
    pub fn check_crc(&self) -> Result<(), RecordsError> {
        if crc32c::crc32c(&self.raw[21..]) == self.crc() {
            Ok(())
        } else {
            Err(RecordsError::Checksum)
        }
    }
}

/// The batches of a `records` field, in order; ends after the first error. A fetched set may end
/// in a part of a batch, which is then [`RecordsError::Truncated`].
pub fn batches(bytes: &[u8]) -> impl Iterator<Item = Result<Batch<'_>, RecordsError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let one = split(rest).and_then(|(raw, tail)| {
            rest = tail;
            match magic_of(raw) {
                MAGIC => Ok(Batch { raw }),
                other => Err(RecordsError::Magic(other)),
            }
        });
        if one.is_err() {
            rest = &[];
        }
        Some(one)
    })
}

/// What the headers of a `records` field say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many batches; Kafka wants exactly one in each produced partition.
    pub batches: u32,
    /// Whether any of them belongs to a transaction.
    pub transactional: bool,
    /// Whether any of them is a control batch.
    pub control: bool,
    /// Whether all of them have magic 2.
    pub magic_ok: bool,
    /// Records counted by the headers; batches of an older magic count as none.
    pub records: u64,
    /// How they are compressed: bit n stands for the codec with number n, as attributes have it.
    pub codecs: u8,
    /// Whether any of them has no producer id, and so cannot be told from its own repetition.
    pub repeatable: bool,
    /// Bytes of the largest records section as it stands, compressed or not.
    pub section_bytes_max: usize,
}

impl Summary {
    /// Of no batch at all.
    pub const EMPTY: Summary = Summary {
        batches: 0,
        transactional: false,
        control: false,
        magic_ok: true,
        records: 0,
        codecs: 0,
        repeatable: false,
        section_bytes_max: 0,
    };

    /// Counts a batch of magic 2 in, by its header.
    fn add(&mut self, batch: &Batch) {
        self.batches += 1;
        self.transactional |= batch.is_transactional();
        self.control |= batch.is_control();
        self.records += u64::try_from(batch.count()).unwrap_or(0);
        self.codecs |= 1 << (batch.attributes() & CODEC_BITS);
        self.repeatable |= batch.producer_id() < 0;
        let bytes = usize::try_from(batch.length()).unwrap_or(0);
        let section_bytes = bytes.saturating_sub(BATCH_HEADER_BYTES - BATCH_PREFIX_BYTES);
        self.section_bytes_max = self.section_bytes_max.max(section_bytes);
    }

    /// What both say together.
    pub fn and(self, other: Summary) -> Summary {
        Summary {
            batches: self.batches.saturating_add(other.batches),
            transactional: self.transactional || other.transactional,
            control: self.control || other.control,
            magic_ok: self.magic_ok && other.magic_ok,
            records: self.records.saturating_add(other.records),
            codecs: self.codecs | other.codecs,
            repeatable: self.repeatable || other.repeatable,
            section_bytes_max: self.section_bytes_max.max(other.section_bytes_max),
        }
    }
}

/// Reads the headers only: no checksum, no decompression, no allocation. Cheap enough for every
/// produced partition. An empty field has no batches.
pub fn inspect(bytes: &[u8]) -> Result<Summary, RecordsError> {
    match heads(bytes) {
        (summary, None) => Ok(summary),
        (_, Some(error)) => Err(error),
    }
}

/// As [`inspect`], with what the headers say up to the first error: a broker takes what stands
/// before a batch that is cut off and forgets the rest, so that an error hides nothing.
pub fn heads(bytes: &[u8]) -> (Summary, Option<RecordsError>) {
    let mut summary = Summary::EMPTY;
    let mut rest = bytes;
    while !rest.is_empty() {
        let (raw, tail) = match split(rest) {
            Ok(both) => both,
            Err(error) => return (summary, Some(error)),
        };
        rest = tail;
        if magic_of(raw) == MAGIC {
            summary.add(&Batch { raw });
        } else {
            summary.batches += 1;
            summary.magic_ok = false;
        }
    }
    (summary, None)
}

/// What [`inspect`] would say of records that are one batch, of which only the header is at hand.
/// `None`: they are not one batch of magic 2.
pub fn inspect_head(head: &[u8; BATCH_HEADER_BYTES], bytes: usize) -> Option<Summary> {
    let batch = Batch { raw: head };
    let whole = usize::try_from(batch.length()).is_ok_and(|n| n + BATCH_PREFIX_BYTES == bytes);
    let mut summary = Summary::EMPTY;
    summary.add(&batch);
    (whole && batch.magic() == MAGIC).then_some(summary)
}

/// Cuts the first batch off. The offset, the length and the place of the magic byte are the same
/// in every format, so that batches of an older magic can be stepped over.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), RecordsError> {
    // the smallest thing that holds a magic byte
    const LEAST: usize = 17;
    let (Some(length), true) = (bytes.get(8..12), bytes.len() >= LEAST) else {
        return Err(RecordsError::Truncated {
            needed: LEAST as u64,
            left: bytes.len(),
        });
    };
    let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
    let least = match magic_of(bytes) {
        MAGIC => BATCH_HEADER_BYTES,
        _ => LEAST,
    };
    let total = usize::try_from(length)
        .ok()
        .and_then(|n| n.checked_add(BATCH_PREFIX_BYTES))
        .filter(|n| *n >= least)
        .ok_or(RecordsError::BatchLength(length))?;
    bytes
        .split_at_checked(total)
        .ok_or(RecordsError::Truncated {
            needed: total as u64,
            left: bytes.len(),
        })
}

fn magic_of(batch: &[u8]) -> i8 {
    batch.get(16).map_or(-1, |b| i8::from_be_bytes([*b]))
}

/// One record, borrowed from the batch or from the scratch buffer.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Offset relative to the batch's base offset.
    pub offset_delta: i32,
    /// Milliseconds relative to the batch's base timestamp.
    pub timestamp_delta: i64,
    /// The key; `None` is a null key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Bytes of the record as it stands uncompressed, as its own length says it.
    pub bytes: usize,
    header_count: u32,
    header_bytes: &'a [u8],
}

/// A header of a record. Names may repeat; order matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name; UTF-8 by convention, not checked.
    pub name: &'a [u8],
    /// The value; may be null.
    pub value: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// How many headers the record has.
    pub fn header_count(&self) -> u32 {
        self.header_count
    }

    /// The headers in the order written, repeated names included.
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let mut rest = self.header_bytes;
        // the bytes were walked once already, so no error is left to be met
        (0..self.header_count).map_while(move |_| take_header(&mut rest).ok())
    }
}

/// The records of one batch.
#[derive(Debug)]
pub struct Records<'s> {
    rest: &'s [u8],
    count: i32,
    next: i32,
    done: bool,
}

/// Walks the records of `batch`, decompressing into `scratch` where need be. The iterator gives
/// exactly as many records as the header counts, or ends with an error; nothing may be left over.
/// Does not look at the checksum ([`Batch::check_crc`]).
pub fn records<'s>(
    batch: &Batch<'s>,
    scratch: &'s mut Scratch,
    limits: &Limits,
) -> Result<Records<'s>, RecordsError> {
    let count = batch.count();
    if count < 0 {
        return Err(RecordsError::Count(count));
    }
    let rest = match batch.codec()? {
        Codec::None => batch.section(),
        codec => {
            let section = batch.section();
            scratch.decompress(codec, section, limits.plain_bytes_for(section.len()))?
        }
    };
    Ok(Records {
        rest,
        count,
        next: 0,
        done: false,
    })
}

impl<'s> Iterator for Records<'s> {
    type Item = Result<Record<'s>, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if self.next == self.count {
            self.done = true;
            return (!self.rest.is_empty()).then_some(Err(RecordsError::LeftOver));
        }
        let index = self.next as u32;
        self.next += 1;
        let record = if self.rest.is_empty() {
            Err(RecordsError::MissingRecords(self.count))
        } else {
            take_record(&mut self.rest).map_err(|what| RecordsError::Record(index, what))
        };
        self.done = record.is_err();
        Some(record)
    }
}

/// A part of a record that does not hold; says which.
type Part<T> = Result<T, &'static str>;

fn take_record<'a>(rest: &mut &'a [u8]) -> Part<Record<'a>> {
    let length = take_i32(rest).ok_or("bad length")?;
    let mut body = take_bytes(rest, length).ok_or("bad length")?;
    let bytes = body.len();
    // record attributes: no bit is in use
    body = body.get(1..).ok_or("no attributes")?;
    let timestamp_delta = take_i64(&mut body).ok_or("bad timestamp")?;
    let offset_delta = take_i32(&mut body).ok_or("bad offset")?;
    let key = take_nullable(&mut body).ok_or("bad key length")?;
    let value = take_nullable(&mut body).ok_or("bad value length")?;
    let header_count = take_i32(&mut body).ok_or("bad header count")?;
    let header_count = u32::try_from(header_count).map_err(|_| "negative header count")?;
    let header_bytes = body;
    for _ in 0..header_count {
        take_header(&mut body)?;
    }
    if !body.is_empty() {
        return Err("bytes after the last header");
    }
    Ok(Record {
        offset_delta,
        timestamp_delta,
        key,
        value,
        bytes,
        header_count,
        header_bytes,
    })
}

fn take_header<'a>(rest: &mut &'a [u8]) -> Part<Header<'a>> {
    let name_length = take_i32(rest).ok_or("bad header name length")?;
    let name = take_bytes(rest, name_length).ok_or("bad header name length")?;
    let value = take_nullable(rest).ok_or("bad header value length")?;
    Ok(Header { name, value })
}

fn take_bytes<'a>(rest: &mut &'a [u8], length: i32) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = tail;
    Some(head)
}

/// Length -1 is null; any other negative length is an error.
fn take_nullable<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match take_i32(rest)? {
        -1 => Some(None),
        length => take_bytes(rest, length).map(Some),
    }
}
