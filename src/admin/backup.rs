//! Backups: a snapshot of every shard, sent as files.

use std::{collections::VecDeque, sync::Arc};

use futures_util::stream;
use prkdb_proto::v1::{self, backup_reply::Message};
use prkdb_types::ErrorCode;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{VERSION, snapshots};
use crate::{
    node::{Node, outcome::Failure, service::to_status},
    storage::{CopyPart, ShardCopy, SnapshotVersion},
};

/// Bytes of a file in one message.
const CHUNK_BYTES: usize = 1 << 20;

/// A backup that is being sent.
pub(super) struct Backup {
    stop: CancellationToken,
    begin: Option<v1::backup_reply::Begin>,
    /// The shards know that they are read.
    _held: Vec<Arc<SnapshotVersion>>,
    parts: VecDeque<(u32, CopyPart)>,
    /// Of the first part; `None` before its name was sent.
    position: Option<u64>,
    files: u32,
    bytes: u64,
    is_over: bool,
}

impl Backup {
    /// Takes a checkpoint of every shard.
    ///
    /// # Errors
    /// Those of the disk.
    pub(super) async fn begin(node: &Node, stop: CancellationToken) -> Result<Self, Failure> {
        let (mut shards, mut held) = (Vec::new(), Vec::new());
        let mut parts = VecDeque::new();
        for (shard, copy) in snapshots::take(node).await? {
            let ShardCopy { version, parts: files } = copy;
            shards.push(v1::backup_reply::Shard {
                shard,
                term: version.applied.term,
                index: version.applied.index,
                bytes: version.bytes,
            });
            held.push(version);
            parts.extend(files.into_iter().map(|part| (shard, part)));
        }
        let begin = v1::backup_reply::Begin {
            cluster_id: node.cluster_id().to_vec().into(),
            node_id: node.node_id(),
            version: VERSION.to_owned(),
            created_ms: node.clock().wall_ms(),
            shards,
        };
        Ok(Self {
            stop,
            begin: Some(begin),
            _held: held,
            parts,
            position: None,
            files: 0,
            bytes: 0,
            is_over: false,
        })
    }

    /// Returns the messages, read as the transport takes them.
    pub(super) fn replies(self) -> impl stream::Stream<Item = Result<v1::BackupReply, Status>> {
        stream::unfold(self, async |mut backup| {
            let reply = backup.next().transpose()?;
            backup.is_over |= reply.is_err();
            Some((reply.map_err(|failure| to_status(&failure)), backup))
        })
    }

    fn next(&mut self) -> Result<Option<v1::BackupReply>, Failure> {
        if self.is_over {
            return Ok(None);
        }
        if self.stop.is_cancelled() {
            return Err(Failure::new(ErrorCode::Stopping, "the node is stopping"));
        }
        let message = match self.begin.take() {
            Some(begin) => Message::Begin(begin),
            None => self.next_of_file()?,
        };
        Ok(Some(v1::BackupReply { message: Some(message) }))
    }

    fn next_of_file(&mut self) -> Result<Message, Failure> {
        loop {
            let Some((shard, part)) = self.parts.front() else {
                self.is_over = true;
                return Ok(Message::End(v1::backup_reply::End {
                    files: self.files,
                    bytes: self.bytes,
                }));
            };
            match &mut self.position {
                None => {
                    self.position = Some(0);
                    self.files += 1;
                    let (shard, name, bytes) = (*shard, part.name.clone(), part.len);
                    return Ok(Message::File(v1::backup_reply::File { shard, name, bytes }));
                }
                Some(position) if *position < part.len => {
                    let data =
                        part.read(*position, CHUNK_BYTES).map_err(|error| Failure::from(&error))?;
                    *position += data.len() as u64;
                    self.bytes += data.len() as u64;
                    return Ok(Message::Data(data));
                }
                Some(_) => {
                    self.parts.pop_front();
                    self.position = None;
                }
            }
        }
    }
}
