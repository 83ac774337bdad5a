//! Base64 as RFC 4648 section 4 has it, with or without padding.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// With padding.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| {
            bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0))
        });
        for place in 0..4 {
            let index = usize::try_from(bits >> (18 - 6 * place) & 0x3f).expect("6 bits");
            let c = if place <= chunk.len() {
                DIGITS.get(index).copied().unwrap_or(b'=')
            } else {
                b'='
            };
            text.push(char::from(c));
        }
    }
    text
}

/// Without padding, as age writes it.
pub fn encode_bare(bytes: &[u8]) -> String {
    let mut text = encode(bytes);
    text.truncate(text.trim_end_matches('=').len());
    text
}

/// Takes padded text.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let bare = text
        .strip_suffix("==")
        .or_else(|| text.strip_suffix('='))
        .unwrap_or(text);
    let is_padded = text.len().is_multiple_of(4);
    decode_bare(bare).filter(|_| is_padded)
}

/// Takes text without padding; unused bits must be zero.
pub fn decode_bare(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for c in text.bytes() {
        let digit = DIGITS.iter().position(|digit| *digit == c)?;
        bits = (bits << 6 | u32::try_from(digit).ok()?) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    let is_whole = count < 6 && bits & ((1 << count) - 1) == 0;
    is_whole.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_vectors_of_its_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
            let bare = text.trim_end_matches('=');
            assert_eq!(encode_bare(bytes.as_bytes()), bare);
            assert_eq!(decode_bare(bare).as_deref(), Some(bytes.as_bytes()));
        }
    }

    #[test]
    fn there_is_one_way_to_write_bytes() {
        for bad in [
            "Zg", "Zg=", "Zh==", "Zg==Zg==", "Z===", "Zm8", "Zm9=", "Z g=", "A",
        ] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
