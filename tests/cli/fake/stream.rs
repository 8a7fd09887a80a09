//! The stream side of the node in memory: batches in, and groups to list.

use std::sync::{Arc, Mutex};

use prkdb_proto::v1::{
    self, groups_server, produce_reply as reply, produce_request as request, stream_server,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{Replies, Service, State, limits};

/// Applies batches as they come and answers each.
pub(super) fn batches(
    state: &Arc<Mutex<State>>,
    request: Request<Streaming<v1::ProduceRequest>>,
) -> Response<Replies<v1::ProduceReply>> {
    let state = Arc::clone(state);
    let (sender, replies) = tokio::sync::mpsc::channel(64);
    let mut requests = request.into_inner();
    tokio::spawn(async move {
        let say = async |message| {
            let reply = v1::ProduceReply { message: Some(message) };
            sender.send(Ok(reply)).await.is_ok()
        };
        while let Some(Ok(request)) = requests.next().await {
            match request.message {
                Some(request::Message::Open(_)) => {
                    let opened = reply::Opened {
                        limits: Some(limits()),
                        credit_bytes: 16 << 20,
                        collection_id: 0,
                    };
                    say(reply::Message::Opened(opened)).await;
                }
                Some(request::Message::Batch(batch)) => {
                    let applied = state.lock().unwrap().apply(&batch);
                    match applied {
                        Ok(Some(ack)) => {
                            let bytes = u64::try_from(batch.batch.len()).unwrap();
                            say(reply::Message::Ack(ack)).await;
                            say(reply::Message::Credit(reply::Credit { bytes })).await;
                        }
                        Ok(None) => {}
                        Err(status) => {
                            let _gone = sender.send(Err(status)).await;
                            return;
                        }
                    }
                }
                None => return,
            }
        }
    });
    Response::new(Box::pin(ReceiverStream::new(replies)))
}

#[tonic::async_trait]
impl stream_server::Stream for Service {
    type ProduceStream = Replies<v1::ProduceReply>;

    async fn produce(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        Ok(batches(&self.0, request))
    }

    type FetchStream = Replies<v1::FetchReply>;

    async fn fetch(
        &self,
        _: Request<v1::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        Err(Status::unimplemented("fetch"))
    }

    async fn list_offsets(
        &self,
        _: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsReply>, Status> {
        Err(Status::unimplemented("list offsets"))
    }
}

#[tonic::async_trait]
impl groups_server::Groups for Service {
    async fn list_groups(
        &self,
        _: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsReply>, Status> {
        let groups = self.0.lock().unwrap().groups.clone();
        Ok(Response::new(v1::ListGroupsReply { groups }))
    }
}
