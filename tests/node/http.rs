//! The HTTP port.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use crate::rig::{Rig, put};

/// Asks for a path and returns status and body.
async fn fetch(at: SocketAddr, request: &'static str) -> (u16, String) {
    tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(at).unwrap();
        let host = "Host: test\r\nConnection: close\r\n\r\n";
        write!(stream, "{request} HTTP/1.1\r\n{host}").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_node_that_serves_is_live_and_ready() {
    let rig = Rig::start().await;
    let http = rig.http.unwrap();
    assert_eq!(fetch(http, "GET /livez").await.0, 200);
    assert_eq!(fetch(http, "GET /readyz").await.0, 200);
    let (status, body) = fetch(http, "GET /version").await;
    assert_eq!(status, 200);
    assert!(body.contains(env!("CARGO_PKG_VERSION")), "{body}");
    rig.stop().await;
}

#[tokio::test]
async fn metrics_are_in_the_open_text_form() {
    let rig = Rig::start().await;
    rig.kv().put(put("k", "v")).await.unwrap();
    let (status, body) = fetch(rig.http.unwrap(), "GET /metrics").await;
    assert_eq!(status, 200);
    assert!(body.contains("prkdb_append_bytes_total"), "{body}");
    rig.stop().await;
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let rig = Rig::start().await;
    let http = rig.http.unwrap();
    assert_eq!(fetch(http, "GET /nothing").await.0, 404);
    assert_eq!(fetch(http, "POST /metrics").await.0, 405);
    rig.stop().await;
}

#[tokio::test]
async fn a_node_without_http_serves() {
    let rig = Rig::with(|settings| settings.http = None).await;
    assert_eq!(rig.http, None);
    rig.kv().put(put("k", "v")).await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn noise_on_the_ports_harms_nobody() {
    let rig = Rig::start().await;
    for at in [rig.grpc, rig.http.unwrap()] {
        for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01", b"\0\xff\0\xff"]
        {
            let mut stream = TcpStream::connect(at).unwrap();
            stream.write_all(noise).unwrap();
            drop(stream);
        }
    }
    rig.kv().put(put("k", "v")).await.unwrap();
    rig.stop().await;
}
