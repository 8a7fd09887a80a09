//! A node that runs out of files.

use bytes::Bytes;
use prkdb_client::{ClientError, ErrorCode, Get, Put, Transport};

use crate::{
    ledger::COLLECTION,
    server::{Server, client, client_with},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_may_open_no_more_files_refuses_writes_and_reads_on() {
    let mut server = Server::start_with(Some(256));
    let hasty = client_with(server.address, Transport::Stream, 0).await;
    hasty.put(Put::new(COLLECTION, "first", "1")).await.unwrap();
    let value = Bytes::from(vec![b'v'; 1_000_000]);
    let mut written = 0;
    let refused = loop {
        let put = Put::new(COLLECTION, format!("k{written}"), value.clone());
        match hasty.put(put).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 256, "every segment is a file");
    };
    let ClientError::Refused(refusal) = &refused else { panic!("{refused:?}") };
    assert_eq!(refusal.code, ErrorCode::DiskFull);
    assert!(refusal.hint.contains("LimitNOFILE"), "{refusal:?}");
    let read = hasty.get(Get::new(COLLECTION, "first")).await.unwrap();
    assert_eq!(read.value.unwrap().value, "1");

    server.kill();
    server.allow_files(None);
    server.start_again();
    let patient = client(server.address, Transport::Stream).await;
    let last = Get::new(COLLECTION, format!("k{}", written - 1));
    assert_eq!(patient.get(last).await.unwrap().value.unwrap().value, value);
    patient.put(Put::new(COLLECTION, "first", "2")).await.unwrap();
}
