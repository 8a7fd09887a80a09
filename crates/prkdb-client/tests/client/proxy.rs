//! A wire between client and server that can be cut.

use std::sync::{Arc, Mutex};

use prkdb_client::Endpoint;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

/// Passes connections on to a server.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) endpoint: Endpoint,
    connections: Arc<Mutex<JoinSet<()>>>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let connections = Arc::new(Mutex::new(JoinSet::new()));
        let (server, passing) = (server.to_owned(), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server = TcpStream::connect(&server).await.unwrap();
                passing.lock().unwrap().spawn(async move {
                    // Either side may close; the test sees what the client makes of it.
                    let _end = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { endpoint, connections, _task: AbortOnDropHandle::new(task) }
    }

    /// Cuts every connection; new ones are passed on.
    pub(crate) fn cut(&self) {
        self.connections.lock().unwrap().abort_all();
    }
}
