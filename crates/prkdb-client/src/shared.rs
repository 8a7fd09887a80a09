//! What all clones of a client share, and the calls that are neither single operations nor batches.

use std::sync::Arc;

use prkdb_proto::v1;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::{
    attempts::{Attempts, Effect, Fault, Next},
    error::ClientError,
    lanes::Lanes,
    link::Link,
    options::ClientOptions,
    pool::Pool,
    routes::{Partitions, Routes},
};

/// What all clones of a client share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Arc<ClientOptions>,
    pub(crate) pool: Pool,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) routes: Routes,
}

impl Shared {
    pub(crate) fn new(options: ClientOptions) -> Self {
        let options = Arc::new(options);
        Self {
            pool: Pool::new(Arc::clone(&options)),
            options,
            lanes: Lanes::new(),
            routes: Routes::default(),
        }
    }

    /// Begins to count the attempts of an operation.
    pub(crate) fn attempts(
        &self,
        operation: &'static str,
        effect: Effect,
        deadline: Option<Instant>,
    ) -> Attempts {
        Attempts::new(operation, effect, deadline, self.options.retries)
    }

    /// Sends one call until it is answered for good.
    pub(crate) async fn call<Ask, Answer, Call>(
        &self,
        attempts: Attempts,
        message: Ask,
        call: impl Fn(Arc<Link>, Request<Ask>) -> Call,
    ) -> Result<Answer, ClientError>
    where
        Ask: Clone,
        Call: Future<Output = Result<Response<Answer>, Status>>,
    {
        self.call_at(attempts, String::new(), message, call).await
    }

    /// As [`Shared::call`], at an address first; empty = wherever the client sends its calls.
    pub(crate) async fn call_at<Ask, Answer, Call>(
        &self,
        mut attempts: Attempts,
        mut address: String,
        message: Ask,
        call: impl Fn(Arc<Link>, Request<Ask>) -> Call,
    ) -> Result<Answer, ClientError>
    where
        Ask: Clone,
        Call: Future<Output = Result<Response<Answer>, Status>>,
    {
        loop {
            let fault = match self.call_once(&attempts, &address, &message, &call).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            address = match attempts.next(fault).await? {
                Next::Again => String::new(),
                Next::Follow(leader) => leader,
            };
        }
    }

    async fn call_once<Ask, Answer, Call>(
        &self,
        attempts: &Attempts,
        address: &str,
        message: &Ask,
        call: &impl Fn(Arc<Link>, Request<Ask>) -> Call,
    ) -> Result<Answer, Fault>
    where
        Ask: Clone,
        Call: Future<Output = Result<Response<Answer>, Status>>,
    {
        let link = attempts.within(false, self.pool.at(address)).await?;
        let request = attempts.request(message.clone());
        let answer = async {
            match call(Arc::clone(&link), request).await {
                Ok(response) => Ok(response.into_inner()),
                Err(status) => Err(link.fault(status)),
            }
        };
        attempts.within(true, answer).await
    }

    /// Returns the partitions of a collection, from memory or from the home server, in one attempt.
    pub(crate) async fn partitions(&self, collection: &str) -> Result<Arc<Partitions>, Fault> {
        if let Some(known) = self.routes.known(collection) {
            return Ok(known);
        }
        let _turn = self.routes.turn().await;
        if let Some(known) = self.routes.known(collection) {
            return Ok(known);
        }
        let link = self.pool.home().await?;
        let request = v1::MetadataRequest { collections: vec![collection.to_owned()] };
        let reply = match link.admin().metadata(request).await {
            Ok(response) => response.into_inner(),
            // Nothing but a question was sent, whatever the caller is about to write.
            Err(status) => {
                return Err(match link.fault(status) {
                    Fault::Broken { address, status } => Fault::Unsent { address, status },
                    other => other,
                });
            }
        };
        let found = reply.collections.into_iter().find(|found| found.name == collection);
        let found = found.ok_or_else(|| link.wrong_answer("about the collection asked for"))?;
        let partitions = Partitions::new(found).map_err(|reason| {
            Fault::Final(ClientError::Protocol { address: link.address().to_owned(), reason })
        })?;
        Ok(self.routes.learn(partitions))
    }
}
