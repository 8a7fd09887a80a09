//! One read: its server, its attempts. A read leaves no trace, so every break is followed by a repeat.

use std::sync::Arc;

use prkdb_proto::v1::{self, exchange_reply, exchange_request::Operation};
use tonic::Response;

use crate::{
    attempts::{Attempts, Fault, Next},
    error::ClientError,
    link::Link,
    options::Transport,
    routes::Partitions,
    shared::Shared,
    write::check_message,
};

impl Shared {
    /// Reads one key.
    pub(crate) async fn get(
        &self,
        request: v1::GetRequest,
        attempts: Attempts,
    ) -> Result<v1::GetReply, ClientError> {
        let route = Route {
            collection: request.collection.clone(),
            key: request.key.clone(),
            consistency: request.consistency(),
        };
        match self.read(&route, &Operation::Get(request), attempts).await? {
            exchange_reply::Result::Get(reply) => Ok(reply),
            _ => Err(wrong_answer()),
        }
    }

    /// Reads many keys; the replies are in the order asked.
    pub(crate) async fn multi_get(
        &self,
        request: v1::MultiGetRequest,
        attempts: Attempts,
    ) -> Result<Vec<v1::GetReply>, ClientError> {
        let asked = request.keys.len();
        let Some(first) = request.keys.first() else { return Ok(Vec::new()) };
        let route = Route {
            collection: request.collection.clone(),
            key: first.clone(),
            consistency: request.consistency(),
        };
        match self.read(&route, &Operation::MultiGet(request), attempts).await? {
            exchange_reply::Result::MultiGet(reply) if reply.replies.len() == asked => {
                Ok(reply.replies)
            }
            _ => Err(wrong_answer()),
        }
    }

    async fn read(
        &self,
        route: &Route,
        operation: &Operation,
        mut attempts: Attempts,
    ) -> Result<exchange_reply::Result, ClientError> {
        let mut leader = None;
        loop {
            let known = self.routes.known(&route.collection);
            let address = match (&leader, &known) {
                (Some(leader), _) => String::clone(leader),
                (None, Some(partitions)) => route.address(partitions),
                (None, None) => String::new(),
            };
            let fault = match self.try_read(&address, operation.clone(), &attempts).await {
                Ok(result) => return Ok(result),
                Err(fault) => fault,
            };
            if let Some(partitions) = known {
                self.routes.forget(&partitions);
            }
            leader = match attempts.next(fault).await? {
                Next::Again => None,
                Next::Follow(leader) => Some(leader),
            };
        }
    }

    async fn try_read(
        &self,
        address: &str,
        operation: Operation,
        attempts: &Attempts,
    ) -> Result<exchange_reply::Result, Fault> {
        let link = attempts.within(false, self.pool.at(address)).await?;
        check_message(&link, &operation)?;
        match self.options.transport {
            Transport::Stream => {
                let ticket = link.submit(operation, attempts).await?;
                link.answer(ticket, attempts).await
            }
            Transport::Unary => unary(&link, operation, attempts).await,
        }
    }
}

/// What decides which server is asked.
struct Route {
    collection: String,
    key: bytes::Bytes,
    consistency: v1::Consistency,
}

impl Route {
    /// Returns the leader's address where the read needs the leader; else none.
    fn address(&self, partitions: &Arc<Partitions>) -> String {
        match self.consistency {
            v1::Consistency::Linearizable => partitions.leader(partitions.of(&self.key)).to_owned(),
            v1::Consistency::Stale | v1::Consistency::Follower => String::new(),
        }
    }
}

async fn unary(
    link: &Link,
    operation: Operation,
    attempts: &Attempts,
) -> Result<exchange_reply::Result, Fault> {
    let call = async {
        let mut kv = link.kv();
        match operation {
            Operation::Get(request) => kv
                .get(attempts.request(request))
                .await
                .map(Response::into_inner)
                .map(exchange_reply::Result::Get)
                .map_err(|status| link.fault(status)),
            Operation::MultiGet(request) => kv
                .multi_get(attempts.request(request))
                .await
                .map(Response::into_inner)
                .map(exchange_reply::Result::MultiGet)
                .map_err(|status| link.fault(status)),
            Operation::Put(_) | Operation::Delete(_) => Err(link.wrong_answer("about a read")),
        }
    };
    attempts.within(true, call).await
}

fn wrong_answer() -> ClientError {
    ClientError::Protocol {
        address: "the server".to_owned(),
        reason: "the answer does not fit the keys asked for".to_owned(),
    }
}
