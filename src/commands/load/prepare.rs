//! What a run needs of the server: the collection, its limits, an open stream.

use std::{path::Path, sync::Arc};

use prkdb_client::{
    BatchAnswers, BatchWriter, Client, ClientError, ErrorCode, Purpose, WriterOptions, wire,
};

use super::{
    args::BATCH_RECORDS_MAX,
    checkpoint::{self, Input, State, Target},
    conditional::Puts,
    job::{Job, Kind},
    lane::Cut,
    link::Link,
    pipeline::{Options, Stamps},
};
use crate::commands::{
    failure::{Failure, Result},
    output::readable_size,
    session::{self, Session},
};

/// What all lanes together may collect: with many partitions, batches are smaller.
const OPEN_BYTES_MAX: u64 = 64 << 20;
/// Header of a batch and of its message, which count against the server's limit.
const MESSAGE_OVERHEAD: u64 = 1024;

/// What a run needs beside its input.
pub(crate) struct Prepared {
    /// Where records go.
    pub link: Link,
    /// How they go there.
    pub options: Options,
    /// Where an earlier run stopped, or where this one begins to note how far it is.
    pub state: Option<State>,
}

/// Asks the server for what a run needs.
///
/// # Errors
/// 3 where the collection does not exist, 7 where a checkpoint does not fit.
pub(crate) async fn prepare(session: &Session, job: &Job<'_>) -> Result<Prepared> {
    let mut options = options(session, job);
    if job.run.dry_run {
        return Ok(Prepared { link: Link::Dry, options, state: None });
    }
    let client = session.client().await?;
    let metadata = metadata(session, &client, job).await?;
    let limits = metadata.limits.unwrap_or_default();
    limit(&mut options, &limits);
    if let Kind::Puts { if_absent: true } = job.kind {
        options.cut = Cut { records: 1, bytes: usize::MAX };
        let unlimited = client.with_deadline(None);
        let now_ms = session.options.clock.now_ms();
        let puts = Puts::new(unlimited, job.collection.clone(), now_ms, job.sending.window);
        return Ok(Prepared { link: Link::Puts(puts), options, state: None });
    }
    let failed = |error| session::failure(&error);
    let partitions = client.partitions(&job.collection).await.map_err(failed)?;
    check_partition(job, partitions.count())?;
    let bytes = batch_bytes(job, &limits, partitions.count())?;
    options.cut.bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    options.cut.records = batch_records(job, &limits, partitions.collection());
    let target = target(&metadata, partitions.collection(), &options.cut);
    let state = state(session, job, target)?;
    let mut writer = WriterOptions { purpose: purpose(job.kind), ..WriterOptions::default() };
    if let Some(state) = &state {
        options.stamps = Stamps::Fixed(state.producer.timestamp_ms);
        if job.run.resume {
            writer.producer_id = Some(state.producer.id);
            let lanes = state.producer.lanes.iter();
            writer.sequences = lanes.map(|lane| (lane.partition, lane.sequence)).collect();
        }
    }
    let (writer, answers) = open_writer(session, &client, &job.collection, writer).await?;
    Ok(Prepared { link: Link::Batches { writer, answers, partitions }, options, state })
}

/// Returns how a run goes before a server said anything.
pub(crate) fn options(session: &Session, job: &Job<'_>) -> Options {
    Options {
        input: job.input.name(),
        cut: Cut {
            records: usize::try_from(job.sending.batch_records).unwrap_or(usize::MAX),
            bytes: usize::try_from(job.run.batch_bytes).unwrap_or(usize::MAX),
        },
        window: usize::from(job.sending.window),
        rate: job.run.rate,
        stops_at_error: job.stops_at_error(),
        max_errors: job.run.max_errors,
        skip: job.run.skip,
        stamps: match job.kind {
            Kind::Puts { .. } => Stamps::Fixed(session.options.clock.now_ms()),
            // The clock is shared.
            Kind::Events { .. } => Stamps::Clock(Arc::clone(&session.options.clock)),
        },
        compression: job.sending.compression,
        linger: job.sending.linger.filter(|_| job.run.checkpoint.is_none()),
        // What no node can be told to take.
        max_key: 64 << 10,
        max_value: 16 << 20,
        keeps_raw: job.run.rejects.is_some(),
    }
}

pub(super) fn purpose(kind: Kind) -> Purpose {
    match kind {
        Kind::Puts { .. } => Purpose::Puts,
        Kind::Events { .. } => Purpose::Events,
    }
}

/// Asks for the collection, and creates it where that is asked for.
async fn metadata(
    session: &Session,
    client: &Client,
    job: &Job<'_>,
) -> Result<wire::MetadataReply> {
    let create = match job.kind {
        Kind::Events { create, .. } => create,
        Kind::Puts { .. } => None,
    };
    let asked = client.metadata(&[&job.collection]).await;
    match (asked, create) {
        (Ok(metadata), _) => Ok(metadata),
        (Err(error), Some(partitions)) if is_missing(&error) => {
            create_collection(session, client, &job.collection, partitions).await?;
            let asked = client.metadata(&[&job.collection]).await;
            asked.map_err(|error| session::failure(&error).into())
        }
        (Err(error), None) if is_missing(&error) && matches!(job.kind, Kind::Events { .. }) => {
            Err(session::failure(&error).hint("pass --create to create the collection").into())
        }
        (Err(error), _) => Err(session::failure(&error).into()),
    }
}

fn is_missing(error: &ClientError) -> bool {
    error.code().kind() == prkdb_client::ErrorKind::NotFound
}

/// Creates a collection with the settings of `collection create`; another may have been faster.
async fn create_collection(
    session: &Session,
    client: &Client,
    name: &str,
    partitions: u32,
) -> Result {
    let settings = wire::CollectionSettings { partitions, ..wire::CollectionSettings::default() };
    match session.writing(client.create_collection(name, settings)).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == ErrorCode::CollectionExists => Ok(()),
        Err(error) => Err(session::failure(&error).into()),
    }
}

/// Opens the stream of batches. The deadline counts until then; batches have none.
///
/// # Errors
/// 5 where it is not open in time; else what the server answers.
pub(crate) async fn open_writer(
    session: &Session,
    client: &Client,
    collection: &str,
    options: WriterOptions,
) -> Result<(BatchWriter, BatchAnswers)> {
    let unlimited = client.with_deadline(None);
    let opening = BatchWriter::open(&unlimited, collection, options);
    let opened = match session.timeout {
        None => opening.await,
        Some(timeout) => tokio::time::timeout(timeout, opening)
            .await
            .map_err(|_| session.deadline_passed("open a stream of batches"))?,
    };
    opened.map_err(|error| session::failure(&error).into())
}

/// Takes the limits of a server over.
pub(crate) fn limit(options: &mut Options, limits: &wire::Limits) {
    if limits.max_key_bytes > 0 {
        options.max_key = limits.max_key_bytes;
    }
    if limits.max_value_bytes > 0 {
        options.max_value = limits.max_value_bytes;
    }
}

/// A partition that the command line names must be there.
fn check_partition(job: &Job<'_>, partitions: u32) -> Result {
    match job.shape.partition {
        Some(named) if named >= partitions => {
            let message = format!(
                "partition {named} of collection '{}': there are {partitions}",
                job.collection
            );
            Err(Failure::of(ErrorCode::PartitionNotFound, message).into())
        }
        _ => Ok(()),
    }
}

fn batch_bytes(job: &Job<'_>, limits: &wire::Limits, partitions: u32) -> Result<u64> {
    let most = limits.max_message_bytes.saturating_sub(MESSAGE_OVERHEAD);
    if most > 0 && job.run.batch_bytes > most {
        let (asked, most) = (readable_size(job.run.batch_bytes), readable_size(most));
        let message = format!("--batch-bytes: {asked} is more than the server takes, {most}");
        return Err(Failure::usage(message).into());
    }
    Ok(job.run.batch_bytes.min(OPEN_BYTES_MAX / u64::from(partitions.max(1))))
}

/// A key index keeps the place of a record in its batch in few bits.
fn batch_records(job: &Job<'_>, limits: &wire::Limits, collection: &wire::Collection) -> usize {
    let settings = collection.settings.unwrap_or_default();
    let most = match (settings.key_index(), limits.max_keyed_batch_records) {
        (wire::KeyIndex::Off, _) => u32::MAX,
        (_, 0) => BATCH_RECORDS_MAX,
        (_, most) => most,
    };
    usize::try_from(job.sending.batch_records.min(most)).unwrap_or(usize::MAX)
}

fn target(metadata: &wire::MetadataReply, collection: &wire::Collection, cut: &Cut) -> Target {
    let settings = collection.settings.unwrap_or_default();
    Target {
        cluster_id: hex::encode(&metadata.cluster_id),
        collection: collection.name.clone(),
        collection_id: collection.id,
        partitions: settings.partitions,
        partitioner: settings.partitioner,
        batch_records: u32::try_from(cut.records).unwrap_or(u32::MAX),
        batch_bytes: u64::try_from(cut.bytes).unwrap_or(u64::MAX),
    }
}

/// The state of the checkpoint to resume, or of one that begins.
fn state(session: &Session, job: &Job<'_>, target: Target) -> Result<Option<State>> {
    let Some(path) = &job.run.checkpoint else { return Ok(None) };
    let input = Input::of(&job.input.file)?;
    let fingerprint = serde_json::Value::from(job.fingerprint());
    if job.run.resume {
        let state = checkpoint::read(path)?;
        state.check(&input, &target, &fingerprint)?;
        return Ok(Some(state));
    }
    if Path::new(path).exists() {
        let message = format!("checkpoint {}: exists already", path.display());
        return Err(Failure::checkpoint_mismatch(message)
            .hint("go on with --resume, or remove it to begin anew")
            .into());
    }
    let now_ms = session.options.clock.now_ms();
    Ok(Some(State::new(&input, target, fingerprint, now_ms)))
}
