//! The clipboard of the user's machine, through the terminal (OSC 52): works over ssh.

use std::io::{self, Write as _, stdout};

/// The most bytes that common terminals accept.
const MAX: usize = 70_000;

/// Copies a text. The terminal does not confirm it.
pub(super) fn copy(text: &str) -> io::Result<()> {
    let end = (0..=text.len().min(MAX))
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    let mut out = stdout().lock();
    write!(out, "\x1b]52;c;{}\x07", base64(&text.as_bytes()[..end]))?;
    out.flush()
}

/// Base64 of RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let word = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            if digit > three.len() {
                out.push('=');
            } else {
                let index = word >> (18 - 6 * digit) & 63;
                out.push(char::from(DIGITS[usize::try_from(index).unwrap_or(0)]));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_matches_the_rfc() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(super::base64(text.as_bytes()), expected);
        }
    }
}
