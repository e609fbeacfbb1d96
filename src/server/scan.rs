//! Field values looked through eight bytes at a time: most of a request head is values, and byte by
//! byte their check would cost more than all the rest of reading it.

/// 1 in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each byte.
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Whether all bytes may stand in a field value (RFC 9110 5.5): HTAB, SP, visible characters, bytes
/// above ASCII.
pub(super) fn is_field_text(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().all(|word| {
        !may_hold_control(u64::from_le_bytes(*word)) || word.iter().all(|&byte| is_field_byte(byte))
    }) && rest.iter().all(|&byte| is_field_byte(byte))
}

const fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Whether a byte of the word is below SP, or DEL.
const fn may_hold_control(word: u64) -> bool {
    let below_space = word.wrapping_sub(ONES * b' ' as u64) & !word & HIGHS;
    (below_space | zeros(word ^ (ONES * 0x7f))) != 0
}

/// Marks bytes that are 0; bytes above the first one that is may be marked wrongly.
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_judged_as_by_itself_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for at in 0..20 {
                let mut bytes = [b'a'; 20];
                bytes[at] = byte;
                assert_eq!(is_field_text(&bytes), is_field_byte(byte), "{byte} at {at}");
            }
        }
        assert!(is_field_text(b"\t\t\t\t\t\t\t\t caf\xc3\xa9"));
    }
}
