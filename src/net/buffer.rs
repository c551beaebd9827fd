//! Large buffers, held only while bytes flow. A connection that waits holds none; one that
//! moves bytes borrows from its thread's pool. Large ones matter: with 256 KiB a byte copier
//! moved twice what it moved with 8 KiB (fewer system calls for the same bytes).

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of a buffer when it is handed out; only the pages that are written become resident.
pub const BUFFER_BYTES: usize = 256 * 1024;
/// Largest buffer that goes back into the pool; a larger one was for a single frame.
const KEPT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Room below which an empty buffer is not worth reading into.
const SHORT_BYTES: usize = BUFFER_BYTES / 4;
/// Buffers that a thread keeps for the next connection that needs one.
const KEPT_MAX: usize = 8;

thread_local! {
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room.
pub fn take() -> BytesMut {
    POOL.with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| BytesMut::with_capacity(BUFFER_BYTES))
}

/// Gives a buffer back; its contents are gone.
pub fn give(mut buffer: BytesMut) {
    buffer.clear();
    // A buffer of which a slice is still in use cannot be had back: it is dropped.
    let reclaimed = buffer.try_reclaim(BUFFER_BYTES);
    if reclaimed && buffer.capacity() <= KEPT_BYTES_MAX {
        POOL.with_borrow_mut(|pool| {
            if pool.len() < KEPT_MAX {
                pool.push(buffer);
            }
        });
    }
}

/// Reads once into `buffer`, of which `missing` bytes are still to come; 0: the end. An empty
/// buffer is lent by the pool only for as long as there are bytes to read: while this waits, it
/// has none. (Asking for readiness first and reading then would cost a second system call, since
/// only a read that finds nothing clears the readiness.)
pub async fn read<R: AsyncRead + Unpin>(
    reader: &mut R,
    buffer: &mut BytesMut,
    missing: usize,
) -> io::Result<usize> {
    poll_fn(|cx| {
        // An empty buffer begins at the front again: what has been taken out of it leaves room
        // only behind itself, for ever shorter reads.
        if buffer.is_empty() && buffer.capacity() < SHORT_BYTES {
            give(std::mem::take(buffer));
            *buffer = take();
        }
        grow(buffer, missing);
        let read = pin!(reader.read_buf(buffer)).poll(cx);
        if read.is_pending() && buffer.is_empty() {
            give(std::mem::take(buffer));
        }
        read
    })
    .await
}

/// Makes room for more bytes of a message of which `missing` are still to come: as much as has
/// arrived already, so that memory follows the bytes that are there and not those claimed.
pub fn grow(buffer: &mut BytesMut, missing: usize) {
    let room = missing.min(buffer.len().max(BUFFER_BYTES)).max(1);
    if buffer.capacity() - buffer.len() < room {
        buffer.reserve(room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_follows_what_arrived_not_what_is_claimed() {
        let mut buffer = BytesMut::new();
        grow(&mut buffer, 100 << 20);
        assert!(
            buffer.capacity() <= 2 * BUFFER_BYTES,
            "{}",
            buffer.capacity()
        );
        buffer.extend_from_slice(&vec![0; 1 << 20]);
        grow(&mut buffer, 100 << 20);
        assert!(buffer.capacity() <= 4 << 20, "{}", buffer.capacity());
    }

    #[test]
    fn a_buffer_comes_back_with_room() {
        // Given a buffer that has been used to its end
        let mut buffer = take();
        buffer.extend_from_slice(&vec![0; BUFFER_BYTES]);
        let _ = buffer.split_to(BUFFER_BYTES);
        // When
        give(buffer);
        // Then
        assert!(take().capacity() >= BUFFER_BYTES);
    }

    #[test]
    fn a_buffer_in_use_elsewhere_does_not_come_back() {
        let mut buffer = take();
        buffer.extend_from_slice(b"payload");
        let shared = buffer.split_to(3).freeze();
        give(buffer);
        let other = take();
        assert!(other.is_empty());
        assert_eq!(&shared[..], b"pay");
    }
}
