//! Values of JSON as the bytes they stand for.

use base64::Engine as _;
use serde_json::value::RawValue;

/// A string is its text, everything else its JSON without spaces between its parts.
///
/// # Errors
/// What is wrong about the string.
pub(super) fn value_bytes(value: &RawValue) -> Result<Vec<u8>, String> {
    if value.get().starts_with('"') {
        let text: String = serde_json::from_str(value.get()).map_err(|error| error.to_string())?;
        return Ok(text.into_bytes());
    }
    let mut compact = Vec::with_capacity(value.get().len());
    let mut is_inside = false;
    let mut is_escaped = false;
    for byte in value.get().bytes() {
        if !is_inside && byte.is_ascii_whitespace() {
            continue;
        }
        compact.push(byte);
        is_inside ^= byte == b'"' && !is_escaped;
        is_escaped = is_inside && byte == b'\\' && !is_escaped;
    }
    Ok(compact)
}

/// Reads base64 of the field `name`.
///
/// # Errors
/// What is wrong.
pub(super) fn base64(name: &str, text: &str) -> Result<Vec<u8>, String> {
    let engine = base64::engine::general_purpose::STANDARD;
    engine.decode(text).map_err(|error| format!("{name}: {}", error.to_string().to_lowercase()))
}

/// Says what is wrong with a line: the line is named before it, only the column says more.
pub(super) fn wrong(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.find(" at line 1 column").unwrap_or(text.len());
    format!("{} at column {}", text.get(..end).unwrap_or(&text), error.column())
}
