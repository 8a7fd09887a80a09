//! What mutated bytes are given to: decoders of the storage engine that are not part of its interface.
//!
//! Each returns what it made of the bytes and what it would write for it.

use std::path::Path;

use prkdb_types::ShardCommand;

use super::{
    checkpoint::codec::Take,
    dir::{Holder, Identity},
    kv::catalog::Catalog,
};

/// Reads the line of an `IDENTITY`.
pub fn identity(line: &[u8]) -> Option<(Identity, String)> {
    let identity = Identity::parse(Path::new("IDENTITY"), line).ok()?;
    let line = identity.line().ok()?;
    Some((identity, line))
}

/// Reads the text of a `LOCK`.
pub fn holder(text: &str) -> (Holder, String) {
    let holder = Holder::from_text(text);
    let text = holder.to_text();
    (holder, text)
}

/// Applies metadata records in order, as far as they are understood.
pub fn catalog<'a>(records: impl Iterator<Item = &'a [u8]>) -> Catalog {
    let mut catalog = Catalog::default();
    for record in records {
        if let Ok(command) = ShardCommand::parse_record(record) {
            // One that is not understood changes nothing.
            let _applied = catalog.apply(&command);
        }
    }
    catalog
}

/// Writes a catalogue as a checkpoint has it.
pub fn save_catalog(catalog: &Catalog) -> Vec<u8> {
    let mut section = Vec::new();
    catalog.save(&mut section);
    section
}

/// Reads a catalogue as a checkpoint has it.
pub fn load_catalog(section: &[u8]) -> Option<Catalog> {
    let mut from = Take(section);
    let catalog = Catalog::load(&mut from).ok()?;
    from.is_empty().then_some(catalog)
}
