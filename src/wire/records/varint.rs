//! Zig-zag varints of the record format: at most 5 bytes for 32 bits and 10 for 64, and no bit
//! beyond the type's width (a lenient reader would drop it, and two readers would disagree).

/// Takes a 32-bit number off the front.
pub(super) fn take_i32(rest: &mut &[u8]) -> Option<i32> {
    // nearly every length and delta fits one byte
    if let [first @ 0..=0x7f, tail @ ..] = *rest {
        *rest = tail;
        let n = i32::from(*first);
        return Some((n >> 1) ^ -(n & 1));
    }
    let n = u32::try_from(take_raw(rest, 5)?).ok()?;
    Some(((n >> 1) as i32) ^ -((n & 1) as i32))
}

/// Takes a 64-bit number off the front.
pub(super) fn take_i64(rest: &mut &[u8]) -> Option<i64> {
    let n = take_raw(rest, 10)?;
    Some(((n >> 1) as i64) ^ -((n & 1) as i64))
}

/// Writes a number as `take_i64` reads it; Avro's `int` and `long` are written the same way.
pub fn put_zigzag(n: i64, out: &mut Vec<u8>) {
    let mut raw = ((n << 1) ^ (n >> 63)).cast_unsigned();
    while raw > 0x7f {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

fn take_raw(rest: &mut &[u8], bytes_max: usize) -> Option<u64> {
    let mut n = 0u64;
    for (i, byte) in rest.iter().take(bytes_max).enumerate() {
        // the tenth byte has room for one bit
        if i == 9 && *byte > 1 {
            return None;
        }
        n |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *rest = &rest[i + 1..];
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zigzag(n: i64) -> Vec<u8> {
        let mut out = Vec::new();
        put_zigzag(n, &mut out);
        out
    }

    #[test]
    fn numbers_come_back() {
        for n in [
            0,
            -1,
            1,
            63,
            64,
            -64,
            -65,
            300,
            i64::from(i32::MAX),
            i64::from(i32::MIN),
        ] {
            let bytes = zigzag(n);
            assert_eq!(take_i32(&mut &bytes[..]), Some(n as i32));
            assert_eq!(take_i64(&mut &bytes[..]), Some(n));
        }
        for n in [i64::MAX, i64::MIN, 1 << 40] {
            let bytes = zigzag(n);
            assert_eq!(take_i32(&mut &bytes[..]), None);
            assert_eq!(take_i64(&mut &bytes[..]), Some(n));
        }
    }

    #[test]
    fn too_long_too_wide_and_cut_off_are_refused() {
        let overlong_32 = [0x80, 0x80, 0x80, 0x80, 0x80, 0x00];
        assert_eq!(take_i32(&mut &overlong_32[..]), None);
        assert_eq!(take_i64(&mut &overlong_32[..]), Some(0));
        let wide_32 = [0xff, 0xff, 0xff, 0xff, 0x1f];
        assert_eq!(take_i32(&mut &wide_32[..]), None);
        let wide_64 = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x03];
        assert_eq!(take_i64(&mut &wide_64[..]), None);
        assert_eq!(take_i64(&mut &[0x80, 0x80][..]), None);
        assert_eq!(take_i32(&mut &[][..]), None);
    }
}
