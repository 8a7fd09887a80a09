//! `snapshot inspect`.

use std::{
    fs::File,
    io::{self, Read as _},
    path::PathBuf,
};

use prkdb_types::ErrorCode;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::id;
use crate::{
    commands::{
        failure::{Failure, Result, without_numbers},
        output::{Cell, Column, Kind, Listing, Object},
        session::Session,
    },
    node::Members,
    storage::{
        SnapshotFile, SnapshotReport,
        disk::{ReadOnlyDisk, RealDisk},
        inspect_snapshot,
    },
};

const FILES: Listing = Listing {
    schema: "prkdb.snapshot-inspect/1",
    columns: &[
        Column::new("FILE", "file", Kind::Text),
        Column::new("SIZE", "size", Kind::Size),
        Column::new("SHA256", "sha256", Kind::Text),
    ],
    empty: "(no files)",
};
/// The manifest's name in a shard's directory.
const MANIFEST: &str = "MANIFEST";

/// Arguments of `snapshot inspect`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  prkdb snapshot inspect ./data/shard-0000000001/MANIFEST\n  \
    prkdb snapshot inspect ./data/shard-0000000001 -o json")]
pub(super) struct InspectArgs {
    /// The manifest of a shard, or the directory it is in
    file: PathBuf,
}

/// Checks the manifest and the checkpoint, and adds up each file as far as it belongs to the snapshot.
pub(super) fn run(session: &mut Session, args: &InspectArgs) -> Result {
    let path = if args.file.is_dir() { args.file.join(MANIFEST) } else { args.file.clone() };
    let disk = ReadOnlyDisk::new(std::sync::Arc::new(RealDisk));
    let SnapshotReport { version, shard, cluster_id, files } = inspect_snapshot(&disk, &path)
        .map_err(|error| Failure::of(error.code(), without_numbers(&error.to_string())))?;
    let members = version.membership.as_ref().map(|(_, bytes)| Members::decode(bytes));
    let members = members.transpose().map_err(|error| {
        Failure::of(ErrorCode::Corrupt, format!("{}: membership: {error}", path.display()))
    })?;
    let Members { voters, learners } = members.unwrap_or_default();
    let mut sums = Vec::with_capacity(files.len());
    for file in &files {
        sums.push((name(file), file.len, sum(file)?));
    }
    let (id, cluster_id) = (id(shard, version.generation), hex::encode(cluster_id));
    let sha256 = hex::encode(Sha256::digest(&version.manifest));
    if session.output.options.format.is_json() {
        let files: Vec<Value> = sums
            .iter()
            .map(|(name, len, sum)| json!({"file": name, "size_bytes": len, "sha256": sum}))
            .collect();
        let mut document = Object::document(FILES.schema);
        document
            .add("id", id)
            .add("cluster_id", cluster_id)
            .add("shard", shard)
            .add("term", version.applied.term)
            .add("index", version.applied.index)
            .add("voters", texts(&voters))
            .add("learners", texts(&learners))
            .add("size_bytes", version.bytes)
            .add("sha256", sha256)
            .add("files", files);
        return session.output.document(&document);
    }
    let list = |ids: &[u64]| texts(ids).join(",");
    let learners = match learners.as_slice() {
        [] => String::new(),
        some => format!(", learners {}", list(some)),
    };
    session.talk.notice(&format!(
        "snapshot {id} of cluster {cluster_id}: term {}, index {}, voters {}{learners}",
        version.applied.term,
        version.applied.index,
        list(&voters)
    ));
    let rows = sums
        .into_iter()
        .map(|(name, len, sum)| vec![Cell::Text(name), Cell::Size(len), Cell::Text(sum)])
        .collect();
    session.output.list(FILES, rows, &session.talk)
}

fn texts(ids: &[u64]) -> Vec<String> {
    ids.iter().map(u64::to_string).collect()
}

fn name(file: &SnapshotFile) -> String {
    let name = file.path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn sum(file: &SnapshotFile) -> std::result::Result<String, Failure> {
    let failed =
        |error: &io::Error| Failure::io(format_args!("read {}", file.path.display()), error);
    let opened = File::open(&file.path).map_err(|error| failed(&error))?;
    let mut hasher = Sha256::new();
    let read = io::copy(&mut opened.take(file.len), &mut hasher).map_err(|error| failed(&error))?;
    if read == file.len {
        return Ok(hex::encode(hasher.finalize()));
    }
    let message = format!("{}: {read} of {} bytes are there", file.path.display(), file.len);
    Err(Failure::of(ErrorCode::Corrupt, message))
}
