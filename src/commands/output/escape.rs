//! Stored bytes as text that is safe to show and can be read back.
//!
//! The form is the one `--encoding escape` reads: `\\ \n \r \t \0 \xNN`. Valid UTF-8 stays as it is
//! but for control characters; nothing is lost.

use std::fmt::Write as _;

/// Returns bytes as text without control characters, readable with `--encoding escape`.
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    escape_into(&mut text, bytes);
    text
}

/// Adds bytes as [`escape_bytes`] shows them.
pub fn escape_into(text: &mut String, bytes: &[u8]) {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'\\';
    if bytes.iter().all(is_plain) {
        // ASCII is UTF-8: nothing is left out.
        text.push_str(std::str::from_utf8(bytes).unwrap_or_default());
        return;
    }
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            escape_char(text, c);
        }
        for byte in chunk.invalid() {
            push_hex(text, *byte);
        }
    }
}

fn escape_char(text: &mut String, c: char) {
    match c {
        '\\' => text.push_str("\\\\"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        c if is_unsafe(c) => {
            let mut buffer = [0; 4];
            for byte in c.encode_utf8(&mut buffer).bytes() {
                push_hex(text, byte);
            }
        }
        c => text.push(c),
    }
}

/// Control characters, and those that turn the direction of text round.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

fn push_hex(text: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(text, "\\x{byte:02x}");
}

/// Returns a message on one line, without control characters; backslashes stay as they are.
pub fn one_line(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for c in message.chars() {
        if c == '\\' { text.push(c) } else { escape_char(&mut text, c) }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_and_the_rest_is_escaped() {
        assert_eq!(escape_bytes("grün \\ \t".as_bytes()), "grün \\\\ \\t");
        assert_eq!(escape_bytes(b"\x00\xff\x1b[2J\n"), "\\x00\\xff\\x1b[2J\\n");
        assert_eq!(escape_bytes("\u{85}\u{202e}".as_bytes()), "\\xc2\\x85\\xe2\\x80\\xae");
    }

    #[test]
    fn no_control_character_survives() {
        let all: Vec<u8> = (0..=255).collect();
        assert!(!escape_bytes(&all).chars().any(char::is_control));
    }
}
