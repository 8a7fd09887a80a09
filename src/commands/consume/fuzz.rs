//! What mutated bytes are given to: places and formats of records.

use prkdb_types::RecordView;

use super::{place::At, template::Template};

/// Reads where a partition begins and where it ends; returns both as they are shown.
pub fn place(text: &str) -> (Result<String, String>, Result<String, String>) {
    let shown = |at: At| format!("{at:?} {:?}", at.position());
    (text.parse().map(shown), At::end(text).map(shown))
}

/// Reads a format, and prints a record with it: for a file, and for a terminal.
///
/// # Errors
/// What is wrong with the format.
pub fn template(text: &str, record: &RecordView<'_>) -> Result<(Vec<u8>, Vec<u8>), String> {
    let template = Template::parse(text)?;
    let (mut plain, mut escaped) = (Vec::new(), Vec::new());
    template.add(&mut plain, "events", 3, record);
    template.add_escaped(&mut escaped, "events", 3, record);
    Ok((plain, escaped))
}
