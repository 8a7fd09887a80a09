//! Receiving a backup.

use std::sync::Arc;

use prkdb_proto::v1::{self, backup_reply::Message};
use tonic::{Status, Streaming};

use crate::{
    attempts::{Attempts, Next},
    detail,
    error::ClientError,
    shared::Shared,
};

/// The messages of a backup, in order: what it is of, then each file's name and its bytes, then the end. The
/// deadline covers its beginning; the rest may take as long as it takes. It has a connection of its own, so that
/// a writer that is slow holds up nothing else.
#[derive(Debug)]
pub struct BackupStream {
    replies: Streaming<v1::BackupReply>,
    address: String,
    is_over: bool,
}

impl BackupStream {
    /// Opens the stream, with retries: nothing was handed out yet.
    pub(crate) async fn open(shared: &Shared, mut attempts: Attempts) -> Result<Self, ClientError> {
        let mut address = String::new();
        loop {
            let attempt = async {
                let link = shared.pool.apart(&address).await?;
                let opened = link.admin().backup(v1::BackupRequest {}).await;
                let replies = opened.map_err(|status| link.fault(status))?.into_inner();
                Ok(Self { replies, address: link.address().to_owned(), is_over: false })
            };
            let fault = match attempts.within(true, attempt).await {
                Ok(stream) => return Ok(stream),
                Err(fault) => fault,
            };
            address = match attempts.next(fault).await? {
                Next::Again => String::new(),
                Next::Follow(leader) => leader,
            };
        }
    }

    /// Returns the next message; `None` behind the end.
    ///
    /// # Errors
    /// What the server answered, or that the stream was cut short.
    pub async fn next(&mut self) -> Result<Option<Message>, ClientError> {
        if self.is_over {
            return Ok(None);
        }
        match self.replies.message().await {
            Ok(Some(reply)) => {
                self.is_over = matches!(reply.message, Some(Message::End(_)));
                Ok(reply.message)
            }
            Ok(None) => Err(self.broken(Status::unavailable("the backup was cut short"))),
            Err(status) if detail::is_transport(&status) => Err(self.broken(status)),
            Err(status) => Err(ClientError::from_status(&status)),
        }
    }

    fn broken(&self, status: Status) -> ClientError {
        ClientError::Broken {
            operation: "backup",
            address: self.address.clone(),
            source: Arc::new(status),
        }
    }
}
