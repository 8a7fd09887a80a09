//! Collections come and go through the client, and its other calls reach the server.

use prkdb_client::{
    Client, ClientOptions, CollectionChanges, ErrorCode, Get, Health, Listing, Ttl, wire,
};

use crate::server::Fake;

#[tokio::test]
async fn collections_are_created_listed_described_and_dropped() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    let settings =
        wire::CollectionSettings { partitions: 5, ..wire::CollectionSettings::default() };
    let created = client.create_collection("flights", settings).await.unwrap();
    assert!(created.changed);
    assert!(!client.create_collection("flights", settings).await.unwrap().changed);
    let other = wire::CollectionSettings { partitions: 6, ..settings };
    let error = client.create_collection("flights", other).await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), (ErrorCode::CollectionExists, 7));
    client.create_collection("__internal", settings).await.unwrap();
    assert_eq!(client.list_collections(Listing::Named).await.unwrap().len(), 1);
    assert_eq!(client.list_collections(Listing::All).await.unwrap().len(), 2);
    let described = client.describe_collection("flights").await.unwrap();
    assert_eq!(described.collection.unwrap().name, "flights");
    client.drop_collection("flights").await.unwrap();
    for error in [
        client.describe_collection("flights").await.unwrap_err(),
        client.drop_collection("flights").await.unwrap_err(),
    ] {
        assert_eq!((error.code(), error.exit_code()), (ErrorCode::CollectionNotFound, 3));
    }
}

#[tokio::test]
async fn a_time_to_live_of_nothing_is_refused_and_not_sent_as_one_without_end() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    let alter = async |ttl| {
        let changes = CollectionChanges { ttl: Some(ttl), ..CollectionChanges::default() };
        client.alter_collection("flights", changes).await.unwrap_err().code()
    };
    assert_eq!(alter(Ttl::Ms(0)).await, ErrorCode::InvalidArgument);
    // What the server answers.
    assert_eq!(alter(Ttl::Ms(1)).await, ErrorCode::Unsupported);
    assert_eq!(alter(Ttl::Never).await, ErrorCode::Unsupported);
}

#[tokio::test]
async fn calls_of_administration_reach_the_server() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    assert_eq!(client.metrics().await.unwrap(), "# EOF\n");
    let metadata = client.metadata(&["default"]).await.unwrap();
    assert_eq!(metadata.collections.len(), 1);
    let error = client.version().await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), (ErrorCode::Unsupported, 14));
}

#[tokio::test]
async fn health_tells_a_server_from_a_service_that_it_does_not_know() {
    let fake = Fake::start().await;
    let client = fake.client().await;
    assert_eq!(client.health("").await.unwrap(), Health::Serving);
    assert_eq!(client.health("prkdb.v1.Unknown").await.unwrap(), Health::NotServing);
}

#[tokio::test]
async fn several_connections_are_used_in_turn() {
    let fake = Fake::start().await;
    let client = Client::connect(ClientOptions { connections: 3, ..fake.options() }).await.unwrap();
    for _ in 0..9 {
        client.get(Get::new("default", "k")).await.unwrap();
    }
    assert_eq!(fake.state().metadata_calls, 3, "one greeting for each");
}
