//! One module for each parser of bytes from disk or network, and for each format that is read.
//!
//! A target takes any bytes, gives them to the parser, and demands of what comes out what must hold. What
//! lies behind a checksum is reached by making the checksum right first ([`seal`]); what lies in a
//! directory, by editing one that was written ([`edits`]).

mod source;

mod seal;

mod base;
mod edits;
mod loads;
mod readers;

mod entry;
mod page;

mod recovery;
mod shard_files;

mod log_operations;
mod shard_operations;

mod catalogue;
mod identity;
mod membership;

mod batch;
mod decompress;

mod answers;
mod services;

mod archive;
mod arguments;
mod config;
mod json;
mod lines;
mod run_checkpoint;
mod table;
mod template;
mod values;

use crate::harness::{Memory, Target};

/// Directories on a simulated disk, which keeps what was written and what is synced.
const DIRECTORY: Memory = Memory { per_byte: 64, fixed: 16 << 20 };
/// A row of JSON is copied into a record, and a header of it takes two strings.
const JSON: Memory = Memory { per_byte: 16, fixed: 64 << 10 };
/// A row has up to 16,384 columns, and the first one keeps a name for each.
const TABLE: Memory = Memory { per_byte: 16, fixed: 4 << 20 };
/// Up to a hundred times the input comes out of a codec, which has windows of 8 MiB.
const CODEC: Memory = Memory { per_byte: 256, fixed: 24 << 20 };
/// A node with its caches.
const NODE: Memory = Memory { per_byte: 256, fixed: 160 << 20 };
/// The tree of all commands.
const COMMANDS: Memory = Memory { per_byte: 64, fixed: 8 << 20 };

macro_rules! targets {
    ($($name:literal $run:path, $seeds:path, $memory:expr;)*) => {
        /// All of them.
        pub const ALL: &[Target] =
            &[$(Target { name: $name, run: $run, seeds: $seeds, memory: $memory }),*];
    };
}

targets! {
    "entry" entry::run, entry::seeds, Memory::DECODER;
    "page" page::run, page::seeds, Memory::DECODER;
    "recovery" recovery::run, recovery::seeds, DIRECTORY;
    "segments" shard_files::segments, shard_files::seeds, DIRECTORY;
    "manifest" shard_files::manifest, shard_files::seeds, DIRECTORY;
    "checkpoint" shard_files::checkpoint, shard_files::seeds, DIRECTORY;
    "sidecar" shard_files::sidecar, shard_files::seeds, DIRECTORY;
    "log_operations" log_operations::run, log_operations::seeds, DIRECTORY;
    "shard_operations" shard_operations::run, shard_operations::seeds, DIRECTORY;
    "identity" identity::run, identity::seeds, Memory::DECODER;
    "catalogue" catalogue::run, catalogue::seeds, DIRECTORY;
    "membership" membership::run, membership::seeds, DIRECTORY;
    "batch" batch::run, batch::seeds, CODEC;
    "decompress" decompress::run, decompress::seeds, CODEC;
    "answers" answers::run, answers::seeds, DIRECTORY;
    "service_kv" services::kv, services::kv_seeds, NODE;
    "service_stream" services::stream, services::stream_seeds, NODE;
    "service_control" services::control, services::control_seeds, NODE;
    "lines" lines::run, lines::seeds, Memory::DECODER;
    "table" table::run, table::seeds, TABLE;
    "json" json::run, json::seeds, JSON;
    "values" values::run, values::seeds, DIRECTORY;
    "template" template::run, template::seeds, DIRECTORY;
    "config" config::run, config::seeds, COMMANDS;
    "run_checkpoint" run_checkpoint::run, run_checkpoint::seeds, DIRECTORY;
    "archive" archive::run, archive::seeds, DIRECTORY;
    "arguments" arguments::run, arguments::seeds, COMMANDS;
}

/// Returns the target with a name.
pub fn named(name: &str) -> Option<&'static Target> {
    ALL.iter().find(|target| target.name == name)
}
