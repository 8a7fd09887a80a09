//! The collection of a measurement: it goes with it, however that ends.

use std::{cell::RefCell, time::Duration};

use prkdb_client::{Client, ClientError, ErrorKind, wire};

use super::machine::random;
use crate::commands::{
    failure::{Failure, Result, Stop},
    session,
};

/// How long it may take to drop it after a signal.
const CLEARING_UP: Duration = Duration::from_secs(5);

/// A collection that was made and is not dropped yet, if there is one.
#[derive(Default)]
pub(super) struct Made(RefCell<Option<(Client, String)>>);

impl Made {
    /// Creates a collection and returns its name.
    ///
    /// # Errors
    /// As the table of exit codes says.
    pub(super) async fn create(
        &self,
        client: &Client,
        settings: wire::CollectionSettings,
    ) -> Result<String> {
        let name = format!("__bench_{}", hex::encode(random(8)?));
        // Before it is there: a signal may come while it is created. The clone shares the connections.
        self.0.replace(Some((client.clone(), name.clone())));
        let created = client.create_collection(&name, settings).await;
        created.map_err(|error| session::failure(&error))?;
        Ok(name)
    }

    /// Drops it.
    ///
    /// # Errors
    /// As the table of exit codes says, with the command that does it later.
    pub(super) async fn drop(&self) -> Result {
        let made = self.0.borrow().clone();
        let Some((client, name)) = made else { return Ok(()) };
        match client.drop_collection(&name).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(left(&name, &error).into()),
            _ => {
                self.0.take();
                Ok(())
            }
        }
    }

    /// Drops it after a signal, within a few seconds, and says how the command ends.
    pub(super) async fn drop_after(&self, code: u8) -> Stop {
        let message = match tokio::time::timeout(CLEARING_UP, self.drop()).await {
            Ok(Ok(()) | Err(Stop::Quiet(_))) => return Stop::Quiet(code),
            Ok(Err(Stop::Failed(failure))) => failure.message(),
            Err(_) => "no answer".to_owned(),
        };
        let made = self.0.borrow().clone();
        let name = made.map(|(_, name)| name).unwrap_or_default();
        Failure::interrupted(code, format!("interrupted; collection '{name}' is left: {message}"))
            .hint(drop_command(&name))
            .into()
    }
}

fn left(name: &str, error: &ClientError) -> Failure {
    let failure = session::failure(error).context(format_args!("drop collection '{name}'"));
    failure.hint(drop_command(name))
}

fn drop_command(name: &str) -> String {
    format!("prkdb collection drop {name} --confirm {name}")
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::{Arc, Mutex},
    };

    use prkdb_client::{ClientOptions, Endpoint};
    use prkdb_proto::v1::{self, collections_server};
    use tonic::{Request, Response, Status, transport::server::TcpIncoming};

    use super::*;
    use crate::commands::exit;

    /// A server that knows the names of collections and nothing else.
    #[derive(Clone, Default)]
    struct Names {
        names: Arc<Mutex<BTreeSet<String>>>,
        /// Whether it drops none.
        is_full: bool,
    }

    #[tonic::async_trait]
    impl collections_server::Collections for Names {
        async fn create(
            &self,
            request: Request<v1::CreateCollectionRequest>,
        ) -> std::result::Result<Response<v1::CreateCollectionReply>, Status> {
            self.names.lock().unwrap().insert(request.into_inner().name);
            Ok(Response::new(v1::CreateCollectionReply::default()))
        }

        async fn drop(
            &self,
            request: Request<v1::DropCollectionRequest>,
        ) -> std::result::Result<Response<v1::DropCollectionReply>, Status> {
            if self.is_full {
                return Err(Status::internal("no room"));
            }
            self.names.lock().unwrap().remove(&request.into_inner().name);
            Ok(Response::new(v1::DropCollectionReply::default()))
        }

        async fn list(
            &self,
            _: Request<v1::ListCollectionsRequest>,
        ) -> std::result::Result<Response<v1::ListCollectionsReply>, Status> {
            Err(Status::unimplemented("not here"))
        }

        async fn describe(
            &self,
            _: Request<v1::DescribeCollectionRequest>,
        ) -> std::result::Result<Response<v1::DescribeCollectionReply>, Status> {
            Err(Status::unimplemented("not here"))
        }

        async fn alter(
            &self,
            _: Request<v1::AlterCollectionRequest>,
        ) -> std::result::Result<Response<v1::AlterCollectionReply>, Status> {
            Err(Status::unimplemented("not here"))
        }

        async fn truncate(
            &self,
            _: Request<v1::TruncateCollectionRequest>,
        ) -> std::result::Result<Response<v1::TruncateCollectionReply>, Status> {
            Err(Status::unimplemented("not here"))
        }
    }

    /// Returns how a measurement ends that a signal stopped, and the collections that are left.
    async fn stopped(server: Names) -> (Stop, Vec<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = tonic::transport::Server::builder()
            .add_service(collections_server::CollectionsServer::new(server.clone()))
            .serve_with_incoming(TcpIncoming::from(listener));
        let task = tokio::spawn(serving);
        let options = ClientOptions {
            servers: vec![Endpoint::parse(&address).unwrap()],
            ..ClientOptions::default()
        };
        let client = Client::connect(options).await.unwrap();
        let made = Made::default();
        made.create(&client, wire::CollectionSettings::default()).await.unwrap();
        assert_eq!(server.names.lock().unwrap().len(), 1);
        let stop = made.drop_after(exit::INTERRUPTED).await;
        task.abort();
        let names = server.names.lock().unwrap().iter().cloned().collect();
        (stop, names)
    }

    #[tokio::test]
    async fn a_signal_takes_the_collection_of_a_measurement_too() {
        let (stop, names) = stopped(Names::default()).await;
        assert!(matches!(stop, Stop::Quiet(exit::INTERRUPTED)) && names.is_empty(), "{stop:?}");
        let (stop, names) = stopped(Names { is_full: true, ..Names::default() }).await;
        let Stop::Failed(failure) = stop else { panic!("{stop:?}") };
        assert_eq!((failure.exit(), names.len()), (exit::INTERRUPTED, 1));
        assert!(failure.message().contains(&names[0]), "{}", failure.message());
        let command = format!("prkdb collection drop {0} --confirm {0}", names[0]);
        assert_eq!(failure.hint_text(), Some(command));
    }
}
