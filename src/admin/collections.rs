//! Collections: created and dropped by entries of the metadata shard and of the shards concerned.
//!
//! The metadata shard says first what there is to be; the shards are then told to host it or to let
//! go. Each command is idempotent by subject and version, so that what a crash interrupted is
//! finished by [`reconcile`] or by the same request again.

use std::sync::Arc;

use prkdb_proto::v1::{self, collections_server::Collections};
use prkdb_types::{
    CollectionChanges, CollectionName, CollectionSettings, ErrorCode, Placement, ShardCommand,
    command::PartitionPlace, headers::Ttl,
};
use tonic::{Request, Response, Status};

use super::{alter::alter, describe, settings::parse_settings, truncate};
use crate::{
    node::{
        Node,
        metrics::Method,
        outcome::{Failure, Outcome},
        security::{Action, Resource},
        service::Context,
    },
    storage::{
        kv::catalog::{CollectionEntry, NumbersGone},
        sequencer::WriteRequest,
    },
};

/// The metadata shard.
const METADATA: u32 = 0;
/// Collections of measurements: the one reserved name that clients may create.
const BENCH_PREFIX: &str = "__bench_";
/// So many commands are written at once: those of a large collection are more than one entry takes.
const COMMANDS_AT_ONCE: usize = 4096;

/// The service `Collections`.
#[derive(Clone, Debug)]
pub struct CollectionsService {
    context: Context,
}

impl CollectionsService {
    /// Returns the service of a node.
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

pub(super) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, message.into())
}

fn parse_name(name: &str) -> Result<CollectionName, Failure> {
    CollectionName::parse(name).map_err(|error| Failure::new(error.code(), error.to_string()))
}

/// Reads a name that clients may create and drop.
fn parse_own_name(name: &str) -> Result<CollectionName, Failure> {
    let name = parse_name(name)?;
    if name.is_internal() && !name.as_str().starts_with(BENCH_PREFIX) {
        return Err(invalid(format!("name '{}' is reserved", name.as_str())));
    }
    Ok(name)
}

async fn propose(node: &Node, shard: u32, commands: Vec<ShardCommand>) -> Result<(), Failure> {
    if commands.is_empty() {
        return Ok(());
    }
    let timestamp_ms = node.clock().wall_ms();
    node.write(shard, WriteRequest::Control { commands, timestamp_ms }, None).await.map(drop)
}

/// Gives every partition from `from` on a number and a shard.
pub(super) fn place(node: &Node, settings: &CollectionSettings, from: u32) -> Vec<PartitionPlace> {
    let first = node.catalog().next_partition();
    let data_shards = u32::try_from(node.shards().len()).unwrap_or(u32::MAX).saturating_sub(1);
    (from..settings.partitions)
        .map(|number| PartitionPlace {
            partition: first + (number - from),
            number,
            shard: match settings.placement {
                Placement::Spread => 1 + number % data_shards.max(1),
                Placement::Colocated => 1,
            },
        })
        .collect()
}

/// Writes one row of the catalogue.
pub(super) async fn put_row(node: &Node, row: &CollectionEntry) -> Result<(), Failure> {
    propose(node, METADATA, vec![row.command()]).await
}

/// Tells the shards what a row says of them, as far as they have not been told.
pub(super) async fn tell_shards(node: &Node, row: &CollectionEntry) -> Result<(), Failure> {
    let shards: std::collections::BTreeSet<u32> =
        row.partitions.iter().map(|place| place.shard).collect();
    for number in shards {
        let hosted = node.shard(number)?.shard.catalog();
        let commands: Vec<ShardCommand> = row
            .partitions
            .iter()
            .filter(|place| place.shard == number)
            .filter(|place| hosted.partition_version(place.partition) < row.version)
            .filter(|place| !row.is_dropped || hosted.partitions.contains_key(&place.partition))
            .map(|place| row.partition_command(place))
            .collect();
        for some in commands.chunks(COMMANDS_AT_ONCE) {
            // The row is written already: what fails here is finished by the same request or by the
            // next start, so it must not be said that nothing happened.
            propose(node, number, some.to_vec())
                .await
                .map_err(|failure| Failure { outcome: Outcome::Unknown, ..failure })?;
        }
    }
    Ok(())
}

/// The failure where no numbers are left.
pub(super) fn numbers_gone(gone: NumbersGone) -> Failure {
    Failure::new(ErrorCode::Overloaded, gone.to_string())
}

/// Creates a collection; returns its row and whether it is new.
async fn create(
    node: &Node,
    name: CollectionName,
    settings: CollectionSettings,
) -> Result<(CollectionEntry, bool), Failure> {
    let _one_at_a_time = node.admin_lock().lock().await;
    let catalog = node.catalog();
    if let Some(known) = catalog.by_name(&name) {
        if known.settings != settings {
            let message = format!("collection '{}' exists with other settings", name.as_str());
            return Err(Failure::new(ErrorCode::CollectionExists, message)
                .with_hint(format!("prkdb collection describe {}", name.as_str())));
        }
        // A creation that was interrupted is finished by the same request.
        tell_shards(node, known).await?;
        return Ok((known.clone(), false));
    }
    catalog.check_collections_left().map_err(numbers_gone)?;
    catalog.check_partitions_left(settings.partitions).map_err(numbers_gone)?;
    let row = CollectionEntry {
        id: catalog.next_collection(),
        version: 1,
        name,
        settings,
        created_ms: node.clock().wall_ms(),
        partitions: place(node, &settings, 0),
        is_dropped: false,
    };
    put_row(node, &row).await?;
    tell_shards(node, &row).await?;
    Ok((row, true))
}

/// Creates the collection `default` on a node that has no collection yet.
///
/// # Errors
/// A [`Failure`] of one of its writes.
pub async fn ensure_default(node: &Node) -> Result<(), Failure> {
    if !node.catalog().collections.is_empty() {
        return Ok(());
    }
    let settings = CollectionSettings {
        partitioner: node.config().partitioner,
        ..CollectionSettings::with_partitions(node.config().partitions)
    };
    settings.check().map_err(|error| Failure::new(error.code(), error.to_string()))?;
    create(node, CollectionName::default_name(), settings).await.map(drop)
}

/// Makes the shards host what the catalogue says: what a crash interrupted is finished.
///
/// # Errors
/// A [`Failure`] of one of its writes.
pub async fn reconcile(node: &Node) -> Result<(), Failure> {
    let _one_at_a_time = node.admin_lock().lock().await;
    for row in node.catalog().collections.values() {
        tell_shards(node, row).await?;
    }
    Ok(())
}

/// Runs a change of the catalogue to its end, whatever becomes of the call: the lock must not be given
/// back while an entry is under way.
async fn outlive<T: Send + 'static>(
    change: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let stopped = || Failure::unknown("the node stopped before the catalogue was changed");
    tokio::spawn(change).await.unwrap_or_else(|_| Err(stopped()))
}

/// Drops a collection.
async fn drop_collection(node: &Node, name: &CollectionName) -> Result<(), Failure> {
    let _one_at_a_time = node.admin_lock().lock().await;
    let catalog = node.catalog();
    let is_live = catalog.by_name(name).is_some();
    let mut gone = catalog
        .collections
        .values()
        .filter(|row| row.is_dropped && row.name.folded() == name.folded());
    if !is_live && let Some(row) = gone.next_back() {
        // A drop that was interrupted is finished by the same request.
        tell_shards(node, row).await?;
    }
    let route = node.route(name.as_str())?;
    let row = CollectionEntry {
        version: route.collection.version + 1,
        is_dropped: true,
        ..route.collection.clone()
    };
    put_row(node, &row).await?;
    tell_shards(node, &row).await
}

#[tonic::async_trait]
impl Collections for CollectionsService {
    async fn list(
        &self,
        request: Request<v1::ListCollectionsRequest>,
    ) -> Result<Response<v1::ListCollectionsReply>, Status> {
        let with_internal = request.into_inner().internal;
        let listed = async {
            self.context.authorise(Action::Observe, Resource::Cluster)?;
            let catalog = self.context.node.catalog();
            let collections = catalog
                .live()
                .filter(|row| with_internal || !row.name.is_internal())
                .map(|row| describe::state(&self.context.node, row))
                .collect();
            Ok(v1::ListCollectionsReply { collections })
        };
        self.context.answer_read(Method::ListCollections, listed).await
    }

    async fn create(
        &self,
        request: Request<v1::CreateCollectionRequest>,
    ) -> Result<Response<v1::CreateCollectionReply>, Status> {
        let request = request.into_inner();
        let node = &self.context.node;
        let created = async {
            self.context.authorise(Action::Manage, Resource::Collection(&request.name))?;
            let name = parse_own_name(&request.name)?;
            let settings = parse_settings(request.settings)?;
            let work = Arc::clone(node);
            let (row, changed) =
                outlive(async move { create(&work, name, settings).await }).await?;
            let collection = Some(describe::collection(node, &row));
            Ok(v1::CreateCollectionReply { collection, changed })
        };
        self.context.answer(Method::CreateCollection, created).await
    }

    async fn describe(
        &self,
        request: Request<v1::DescribeCollectionRequest>,
    ) -> Result<Response<v1::DescribeCollectionReply>, Status> {
        let name = request.into_inner().name;
        let described = async {
            let route = self.context.route(Action::Observe, &name)?;
            let state = Some(describe::state(&self.context.node, &route.collection));
            Ok(v1::DescribeCollectionReply { state })
        };
        self.context.answer_read(Method::DescribeCollection, described).await
    }

    async fn alter(
        &self,
        request: Request<v1::AlterCollectionRequest>,
    ) -> Result<Response<v1::AlterCollectionReply>, Status> {
        let v1::AlterCollectionRequest { name, partitions, ttl_ms, retention_ms, retention_bytes } =
            request.into_inner();
        // On the wire no time is one without end.
        let ttl = ttl_ms.map(|ms| if ms == 0 { Ttl::Never } else { Ttl::Ms(ms) });
        let changes = CollectionChanges { partitions, ttl, retention_ms, retention_bytes };
        let node = &self.context.node;
        let altered = async {
            self.context.authorise(Action::Manage, Resource::Collection(&name))?;
            let (work, name) = (Arc::clone(node), parse_own_name(&name)?);
            let (row, changed) = outlive(async move { alter(&work, &name, changes).await }).await?;
            let collection = Some(describe::collection(node, &row));
            Ok(v1::AlterCollectionReply { collection, changed })
        };
        self.context.answer(Method::AlterCollection, altered).await
    }

    async fn truncate(
        &self,
        request: Request<v1::TruncateCollectionRequest>,
    ) -> Result<Response<v1::TruncateCollectionReply>, Status> {
        let request = request.into_inner();
        let truncated = async {
            self.context.authorise(Action::Manage, Resource::Collection(&request.name))?;
            parse_own_name(&request.name)?;
            truncate::serve(&self.context.node, &request).await
        };
        self.context.answer(Method::TruncateCollection, truncated).await
    }

    async fn drop(
        &self,
        request: Request<v1::DropCollectionRequest>,
    ) -> Result<Response<v1::DropCollectionReply>, Status> {
        let name = request.into_inner().name;
        let dropped = async {
            self.context.authorise(Action::Manage, Resource::Collection(&name))?;
            let (work, name) = (Arc::clone(&self.context.node), parse_own_name(&name)?);
            outlive(async move { drop_collection(&work, &name).await }).await?;
            Ok(v1::DropCollectionReply {})
        };
        self.context.answer(Method::DropCollection, dropped).await
    }
}
