//! What comes in: keys and values as arguments, in an encoding, from a file, from stdin.
//!
//! Bytes are bytes: an argument is taken as the system hands it over, also where it is not UTF-8, and
//! nothing is trimmed. A terminal is never waited for without the person's knowing it.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, IsTerminal as _, Read},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use base64::Engine as _;

use crate::commands::failure::{Failure, Result};

/// How an argument stands for bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Encoding {
    /// The argument as it is, which must be UTF-8.
    Utf8,
    /// Two hexadecimal digits for each byte.
    Hex,
    /// Base64 with the standard alphabet.
    Base64,
    /// Text with `\\ \n \r \t \0 \xNN \u{...}`.
    Escape,
    /// The argument as it is.
    #[default]
    #[value(skip)]
    Bytes,
}

/// Returns the bytes an argument stands for.
///
/// # Errors
/// A message that says what is wrong, without the argument.
pub fn decode(argument: &OsStr, encoding: Encoding) -> std::result::Result<Vec<u8>, String> {
    let bytes = argument.as_bytes();
    match encoding {
        Encoding::Bytes => Ok(bytes.to_vec()),
        Encoding::Utf8 => match std::str::from_utf8(bytes) {
            Ok(_) => Ok(bytes.to_vec()),
            Err(error) => Err(format!("not UTF-8 at byte {}", error.valid_up_to())),
        },
        Encoding::Hex => hex::decode(bytes).map_err(|error| match error {
            hex::FromHexError::OddLength => "an odd number of hexadecimal digits".to_owned(),
            other => other.to_string().to_lowercase(),
        }),
        Encoding::Base64 => base64::engine::general_purpose::STANDARD
            .decode(bytes)
            .map_err(|error| format!("not base64: {}", error.to_string().to_lowercase())),
        Encoding::Escape => unescape(bytes),
    }
}

/// Resolves C-like escapes.
///
/// # Errors
/// A message that names the position of a wrong escape.
pub fn unescape(bytes: &[u8]) -> std::result::Result<Vec<u8>, String> {
    unescape_before(bytes, &[])
}

/// Resolves C-like escapes, and a backslash before a separator, unless that is empty.
///
/// # Errors
/// As [`unescape`].
pub fn unescape_before(bytes: &[u8], separator: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (before, escape) = rest.split_at(at);
        out.extend_from_slice(before);
        if !separator.is_empty()
            && let Some(after) = escape.get(1..).and_then(|next| next.strip_prefix(separator))
        {
            out.extend_from_slice(separator);
            rest = after;
            continue;
        }
        let position = bytes.len() - escape.len();
        let wrong = || format!("wrong escape at byte {position}");
        rest = unescape_one(escape, &mut out).ok_or_else(wrong)?;
    }
    out.extend_from_slice(rest);
    Ok(out)
}

/// Resolves the escape that `bytes` begins with; returns what follows it.
fn unescape_one<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let rest = bytes.get(2..)?;
    let byte = match bytes.get(1)? {
        b'\\' => b'\\',
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'0' => 0,
        b'x' => {
            let mut byte = [0];
            hex::decode_to_slice(rest.get(..2)?, &mut byte).ok()?;
            out.extend_from_slice(&byte);
            return rest.get(2..);
        }
        b'u' => {
            let digits = rest.strip_prefix(b"{")?;
            let end = digits.iter().position(|byte| *byte == b'}')?;
            let digits = digits.get(..end).filter(|digits| (1..=6).contains(&digits.len()))?;
            if !digits.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            let number = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            let mut buffer = [0; 4];
            out.extend_from_slice(char::from_u32(number)?.encode_utf8(&mut buffer).as_bytes());
            return rest.get(end + 2..);
        }
        _ => return None,
    };
    out.push(byte);
    Some(rest)
}

/// Returns the bytes of a key argument.
///
/// # Errors
/// An empty key, or one that does not fit its encoding, is exit 2.
pub fn key(argument: &OsStr, encoding: Encoding) -> Result<Vec<u8>> {
    let key = decode(argument, encoding).map_err(|why| Failure::usage(format!("key: {why}")))?;
    if key.is_empty() {
        return Err(Failure::usage("key: must have at least one byte").into());
    }
    Ok(key)
}

/// Reads stdin to its end, at most one byte more than `limit`.
///
/// # Errors
/// A terminal is exit 2, at once; a failing read is exit 13.
pub fn stdin(what: &str, hint: &str, limit: u64) -> Result<Vec<u8>> {
    refuse_terminal(what, hint)?;
    bounded(io::stdin().lock(), "read standard input", limit)
}

/// Refuses to wait for a terminal.
///
/// # Errors
/// Exit 2.
pub fn refuse_terminal(what: &str, hint: &str) -> Result {
    if io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{what}: standard input is a terminal"))
            .hint(hint)
            .into());
    }
    Ok(())
}

/// Reads a file to its end, at most one byte more than `limit`.
///
/// # Errors
/// Exit 13.
pub fn file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path)
        .map_err(|error| Failure::io(format_args!("open {}", path.display()), &error))?;
    bounded(file, &format!("read {}", path.display()), limit)
}

/// One byte over the limit is enough to be refused, without the memory for the rest.
fn bounded(reader: impl Read, what: &str, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match reader.take(limit.saturating_add(1)).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure::io(what, &error).into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::output::escape_bytes;

    fn decoded(text: &str, encoding: Encoding) -> std::result::Result<Vec<u8>, String> {
        decode(OsStr::new(text), encoding)
    }

    #[test]
    fn each_encoding_reads_its_form() {
        assert_eq!(decoded("00ff0a", Encoding::Hex), Ok(vec![0, 0xff, 10]));
        assert_eq!(decoded("AP8K", Encoding::Base64), Ok(vec![0, 0xff, 10]));
        assert_eq!(decoded(r"\0\xff\n", Encoding::Escape), Ok(vec![0, 0xff, 10]));
        assert_eq!(decoded(r"\u{e9}\\\t\r", Encoding::Escape), Ok("é\\\t\r".as_bytes().to_vec()));
        assert_eq!(decode(OsStr::from_bytes(b"a\xff b"), Encoding::Bytes), Ok(b"a\xff b".to_vec()));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(decoded("abc", Encoding::Hex).unwrap_err().contains("odd"));
        assert!(decoded("zz", Encoding::Hex).is_err());
        assert!(decoded("A", Encoding::Base64).is_err());
        assert!(
            decode(OsStr::from_bytes(b"a\xff"), Encoding::Utf8).unwrap_err().contains("byte 1")
        );
        for wrong in [r"a\", r"\q", r"\x1", r"\xgg", r"\u{110000}", r"\u{}", r"\u{+1}", r"\u1"] {
            assert!(decoded(wrong, Encoding::Escape).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_empty_key_is_a_usage_error() {
        assert!(key(OsStr::new(""), Encoding::Bytes).is_err());
    }

    proptest! {
        #[test]
        fn escaped_bytes_are_read_back(bytes: Vec<u8>) {
            prop_assert_eq!(unescape(escape_bytes(&bytes).as_bytes()), Ok(bytes));
        }
    }
}
