//! Servers are tried in order, each for so long and no longer.

use std::time::Duration;

use prkdb_client::{Attempt, Client, ClientError, ClientOptions, Endpoint, Get};
use tokio::net::TcpListener;

use crate::server::Fake;

/// Returns an address where nothing listens.
async fn closed() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Endpoint::parse(&listener.local_addr().unwrap().to_string()).unwrap()
}

/// Returns an address that takes connections and says nothing.
async fn silent() -> (Endpoint, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (Endpoint::parse(&listener.local_addr().unwrap().to_string()).unwrap(), listener)
}

#[tokio::test]
async fn every_address_is_named_with_its_reason() {
    let (silent, _listener) = silent().await;
    let closed = closed().await;
    let servers = vec![closed.clone(), silent.clone()];
    let connect_timeout = Duration::from_millis(200);
    let options = ClientOptions { servers, connect_timeout, ..ClientOptions::default() };
    let error = Client::connect(options).await.unwrap_err();
    assert_eq!(error.exit_code(), 4);
    let ClientError::Unreachable { attempts } = &error else { panic!("{error}") };
    let addresses: Vec<&str> = attempts.iter().map(|attempt| attempt.address.as_str()).collect();
    let given = [closed, silent].map(|endpoint| endpoint.to_string());
    assert_eq!(addresses, given);
    assert!(attempts[0].reason.contains("refused"), "{}", attempts[0].reason);
    assert_eq!(attempts[1].reason, "no answer within 200ms");
    for Attempt { address, reason } in attempts {
        assert!(error.to_string().contains(&format!("{address}: {reason}")), "{error}");
    }
}

#[tokio::test]
async fn the_next_server_is_taken_where_one_is_gone() {
    let fake = Fake::start().await;
    let mut options = fake.options();
    options.servers.insert(0, closed().await);
    let client = Client::connect(options).await.unwrap();
    assert_eq!(client.server(), fake.address);
    client.get(Get::new("default", "a")).await.unwrap();
}

#[tokio::test]
async fn the_timeout_of_the_whole_bounds_connecting_too() {
    let (silent, _listener) = silent().await;
    let options = ClientOptions {
        servers: vec![silent],
        timeout: Some(Duration::from_millis(100)),
        connect_timeout: Duration::from_mins(1),
        ..ClientOptions::default()
    };
    let error = Client::connect(options).await.unwrap_err();
    assert_eq!(error.exit_code(), 5);
}
