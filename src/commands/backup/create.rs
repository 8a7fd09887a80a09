//! `backup create`: asks a node for its shards and writes them to a file.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal as _, Write},
    path::{Path, PathBuf},
};

use prkdb_client::{
    Client,
    wire::backup_reply::{Begin, Message},
};

use prkdb_types::ErrorCode;
use tokio::time::Instant;

use super::{
    archive::{About, AboutShard, Writer},
    restore::is_data_directory,
};
use crate::commands::{
    failure::{Failure, Result},
    output::{Object, readable_size},
    session::{self, Session},
};

/// How the file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Compress {
    /// Not at all.
    None,
    /// Zstandard.
    Zstd,
}

/// Arguments of `backup create`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  prkdb backup create nightly.backup\n  \
    prkdb backup create - --compress zstd | ssh vault 'cat > nightly.backup'")]
pub(super) struct CreateArgs {
    /// File to write; it must not exist. '-' is standard output
    file: PathBuf,
    /// How the file is compressed
    #[arg(long, value_name = "CODEC", value_enum, default_value = "none")]
    compress: Compress,
}

impl CreateArgs {
    pub(super) fn is_stdout(&self) -> bool {
        self.file.as_os_str() == "-"
    }
}

/// What was written.
struct Written {
    begin: Begin,
    files: usize,
    bytes: u64,
}

pub(super) async fn run(session: &mut Session, args: &CreateArgs) -> Result {
    session.output.refuse_special_formats()?;
    let started = Instant::now();
    if args.is_stdout() {
        if io::stdout().is_terminal() {
            let failure = Failure::usage("backup create: standard output is a terminal");
            return Err(failure.hint("name a FILE, or send it to one").into());
        }
        let client = session.client().await?;
        let out = receive(&client, BufWriter::with_capacity(1 << 20, io::stdout()), args.compress);
        let (mut out, _) = out.await?;
        return out.flush().map_err(|error| Failure::io("write standard output", &error).into());
    }
    let path = &args.file;
    let failed = |error: io::Error| Failure::io(format_args!("write {}", path.display()), &error);
    let taken = || {
        let message = format!("{}: exists already", path.display());
        Failure::file_exists(message).hint("name another file, or remove it")
    };
    if std::fs::symlink_metadata(path).is_ok() {
        return Err(taken().into());
    }
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    if let Some(ours) = whole.ancestors().find(|above| is_data_directory(above)) {
        let message = format!("{}: is a data directory", ours.display());
        return Err(Failure::usage(message).hint("write the backup elsewhere").into());
    }
    let client = session.client().await?;
    let temporary =
        tempfile::Builder::new().prefix(".prkdb-backup-").tempfile_in(dir).map_err(failed)?;
    let out = BufWriter::with_capacity(1 << 20, temporary.as_file().try_clone().map_err(failed)?);
    let (mut out, written) = receive(&client, out, args.compress).await?;
    out.flush().map_err(failed)?;
    temporary.as_file().sync_all().map_err(failed)?;
    let size = temporary.as_file().metadata().map_err(failed)?.len();
    temporary.persist_noclobber(path).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => taken(),
        _ => failed(error.error),
    })?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    report(session, path, &written, size, started)
}

/// Writes what the node sends.
async fn receive<W: Write>(client: &Client, out: W, compress: Compress) -> Result<(W, Written)> {
    match compress {
        Compress::None => receive_into(client, out).await,
        Compress::Zstd => {
            let failed = |error: io::Error| Failure::io("compress the backup", &error);
            let encoder = zstd::stream::write::Encoder::new(out, 0).map_err(failed)?;
            let (encoder, written) = receive_into(client, encoder).await?;
            Ok((encoder.finish().map_err(failed)?, written))
        }
    }
}

async fn receive_into<W: Write>(client: &Client, out: W) -> Result<(W, Written)> {
    let failed = |error: io::Error| Failure::io("write the backup", &error);
    let odd = || Failure::of(ErrorCode::Internal, "the node sent what is no backup");
    let mut stream = client.backup().await.map_err(|error| session::failure(&error))?;
    let mut out = Some(out);
    let mut writer: Option<(Writer<W>, Begin)> = None;
    while let Some(message) = stream.next().await.map_err(|error| session::failure(&error))? {
        match (message, &mut writer) {
            (Message::Begin(begin), None) => {
                let out = out.take().ok_or_else(odd)?;
                let begun = Writer::begin(out, &about(&begin)).map_err(failed)?;
                writer = Some((begun, begin));
            }
            (Message::File(file), Some((writer, _))) => {
                writer.file(file.shard, &file.name, file.bytes).map_err(failed)?;
            }
            (Message::Data(data), Some((writer, _))) => writer.data(&data).map_err(failed)?,
            (Message::End(_), Some(_)) => break,
            _ => return Err(odd().into()),
        }
    }
    let (writer, begin) = writer.ok_or_else(odd)?;
    let (out, files, bytes) = writer.finish().map_err(failed)?;
    Ok((out, Written { begin, files, bytes }))
}

fn about(begin: &Begin) -> About {
    let shards = begin.shards.iter();
    About {
        format: 1,
        version: begin.version.clone(),
        cluster_id: hex::encode(&begin.cluster_id),
        node_id: begin.node_id,
        created_ms: begin.created_ms,
        shards: shards
            .map(|at| AboutShard { shard: at.shard, term: at.term, index: at.index })
            .collect(),
    }
}

fn report(
    session: &mut Session,
    path: &Path,
    written: &Written,
    size: u64,
    started: Instant,
) -> Result {
    let shards = written.begin.shards.len();
    if session.output.options.format.is_json() {
        let mut document = Object::document("prkdb.backup-create/1");
        document
            .add("file", path.display().to_string())
            .add("cluster_id", hex::encode(&written.begin.cluster_id))
            .add("shards", u64::try_from(shards).unwrap_or(u64::MAX))
            .add("files", u64::try_from(written.files).unwrap_or(u64::MAX))
            .add("bytes", written.bytes)
            .add("file_bytes", size)
            .add("elapsed_ms", u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
        return session.output.document(&document);
    }
    let plural = if shards == 1 { "" } else { "s" };
    session.output.confirmation(&format!(
        "backed up {shards} shard{plural} to {}, {} in {:.2} s",
        path.display(),
        readable_size(size),
        started.elapsed().as_secs_f64()
    ))
}
