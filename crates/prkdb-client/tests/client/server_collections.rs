//! The collections of the scripted server.

use prkdb_client::ErrorCode;
use prkdb_proto::v1::{self, collections_server};
use tonic::{Code, Request, Response, Status};

use crate::{
    errors::status_with,
    server::{Fake, refusal},
};

fn state_of(name: &str, settings: v1::CollectionSettings) -> v1::CollectionState {
    let collection = v1::Collection {
        name: name.to_owned(),
        settings: Some(settings),
        ..v1::Collection::default()
    };
    v1::CollectionState { collection: Some(collection), ..v1::CollectionState::default() }
}

fn refused(code: Code, error: ErrorCode) -> Status {
    status_with(code, &refusal(error, v1::Outcome::NotApplied))
}

#[tonic::async_trait]
impl collections_server::Collections for Fake {
    async fn list(
        &self,
        request: Request<v1::ListCollectionsRequest>,
    ) -> Result<Response<v1::ListCollectionsReply>, Status> {
        let internal = request.into_inner().internal;
        let state = self.state();
        let shown =
            state.collections.iter().filter(|(name, _)| internal || !name.starts_with("__"));
        let collections = shown.map(|(name, settings)| state_of(name, *settings)).collect();
        Ok(Response::new(v1::ListCollectionsReply { collections }))
    }

    async fn create(
        &self,
        request: Request<v1::CreateCollectionRequest>,
    ) -> Result<Response<v1::CreateCollectionReply>, Status> {
        let request = request.into_inner();
        let settings = request.settings.unwrap();
        let before = self.state().collections.insert(request.name.clone(), settings);
        if before.is_some_and(|before| before != settings) {
            return Err(refused(Code::AlreadyExists, ErrorCode::CollectionExists));
        }
        Ok(Response::new(v1::CreateCollectionReply {
            collection: state_of(&request.name, settings).collection,
            changed: before.is_none(),
        }))
    }

    async fn describe(
        &self,
        request: Request<v1::DescribeCollectionRequest>,
    ) -> Result<Response<v1::DescribeCollectionReply>, Status> {
        let name = request.into_inner().name;
        match self.state().collections.get(&name) {
            Some(settings) => Ok(Response::new(v1::DescribeCollectionReply {
                state: Some(state_of(&name, *settings)),
            })),
            None => Err(refused(Code::NotFound, ErrorCode::CollectionNotFound)),
        }
    }

    async fn alter(
        &self,
        _: Request<v1::AlterCollectionRequest>,
    ) -> Result<Response<v1::AlterCollectionReply>, Status> {
        Err(Status::unimplemented("alter"))
    }

    async fn truncate(
        &self,
        _: Request<v1::TruncateCollectionRequest>,
    ) -> Result<Response<v1::TruncateCollectionReply>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn drop(
        &self,
        request: Request<v1::DropCollectionRequest>,
    ) -> Result<Response<v1::DropCollectionReply>, Status> {
        match self.state().collections.remove(&request.into_inner().name) {
            Some(_) => Ok(Response::new(v1::DropCollectionReply {})),
            None => Err(refused(Code::NotFound, ErrorCode::CollectionNotFound)),
        }
    }
}
