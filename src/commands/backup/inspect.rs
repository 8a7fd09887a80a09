//! `backup verify` and `backup inspect`.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::archive::{self, Archive, Fault};
use crate::commands::{
    failure::{Failure, Result},
    output::{Cell, Column, Kind, Listing, Object, readable_size},
    session::Session,
};
use prkdb_types::ErrorCode;

const PARTS: Listing = Listing {
    schema: "prkdb.backup-inspect/1",
    columns: &[
        Column::new("FILE", "file", Kind::Text),
        Column::new("SIZE", "size", Kind::Size),
        Column::new("SHA256", "sha256", Kind::Text),
    ],
    empty: "(no files)",
};

/// Arguments of `backup verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  prkdb backup verify nightly.backup\n  \
    cat nightly.backup | prkdb backup verify -")]
pub(super) struct VerifyArgs {
    /// File to read; '-' is standard input
    file: PathBuf,
}

/// Arguments of `backup inspect`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  prkdb backup inspect nightly.backup\n  \
    prkdb backup inspect nightly.backup -o json")]
pub(super) struct InspectArgs {
    /// File to read; '-' is standard input
    file: PathBuf,
}

/// Reads a backup whole and checks every file in it.
pub(super) fn checked(path: &Path) -> Result<Archive> {
    if path.as_os_str() == "-" {
        checked_in(path, io::stdin().lock())
    } else {
        checked_in(path, open(path)?)
    }
}

/// Opens a backup.
pub(super) fn open(path: &Path) -> Result<File> {
    let opened = File::open(path);
    opened.map_err(|error| Failure::io(format_args!("open {}", path.display()), &error).into())
}

/// As [`checked`], of a backup that is open.
pub(super) fn checked_in(path: &Path, input: impl Read) -> Result<Archive> {
    let found = archive::read(input, |_, _, _| Ok(()));
    found.map_err(|fault| failure(path, fault).into())
}

/// Turns what is wrong with a backup into what is told.
pub(super) fn failure(path: &Path, fault: Fault) -> Failure {
    let file = path.display();
    match fault {
        Fault::Io(error) => Failure::io(format_args!("read backup {file}"), &error),
        Fault::Damaged(what) => Failure::of(ErrorCode::Corrupt, format!("backup {file}: {what}")),
        Fault::Format(found) => Failure::of(
            ErrorCode::NewerFormat,
            format!("backup {file}: format {found} needs a newer prkdb"),
        ),
    }
}

pub(super) fn verify(session: &mut Session, args: &VerifyArgs) -> Result {
    session.output.refuse_special_formats()?;
    let Archive { about, sums } = checked(&args.file)?;
    let bytes = sums.iter().map(|sum| sum.bytes).sum();
    if session.output.options.format.is_json() {
        let mut document = Object::document("prkdb.backup-verify/1");
        document
            .add("file", args.file.display().to_string())
            .add("cluster_id", about.cluster_id)
            .add("files", u64::try_from(sums.len()).unwrap_or(u64::MAX))
            .add("bytes", bytes);
        return session.output.document(&document);
    }
    let (files, size) = (sums.len(), readable_size(bytes));
    session.output.confirmation(&format!("{}: sound, {files} files, {size}", args.file.display()))
}

pub(super) fn inspect(session: &mut Session, args: &InspectArgs) -> Result {
    let Archive { about, sums } = checked(&args.file)?;
    let shards: Vec<String> = about
        .shards
        .iter()
        .map(|at| format!("shard {} at revision {}", at.shard, at.index))
        .collect();
    session.talk.notice(&format!(
        "cluster {} node {}, made by {}: {}",
        about.cluster_id,
        about.node_id,
        about.version,
        shards.join(", ")
    ));
    let rows = sums
        .into_iter()
        .map(|sum| vec![Cell::Text(sum.name), Cell::Size(sum.bytes), Cell::Text(sum.sha256)])
        .collect();
    session.output.list(PARTS, rows, &session.talk)
}
