//! What keeps a node from starting, and what that leaves behind.

use std::{fs, net::TcpListener, sync::Arc};

use crate::rig::{Ended, Rig, Settings, Stopped};

async fn refused(dir: &Arc<tempfile::TempDir>, settings: Settings) -> Ended {
    match Rig::try_open(Arc::clone(dir), settings).await {
        Ok(_) => panic!("the node started"),
        Err(ended) => ended,
    }
}

fn new_dir() -> (Arc<tempfile::TempDir>, Settings) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let settings = Settings::in_dir(dir.path());
    (dir, settings)
}

#[tokio::test]
async fn a_port_in_use_ends_it_before_anything_is_written() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    for change in [
        (|settings, at| settings.listen = at) as fn(&mut Settings, std::net::SocketAddr),
        |settings, at| settings.http = Some(at),
    ] {
        let (dir, mut settings) = new_dir();
        change(&mut settings, at);
        let ended = refused(&dir, settings.clone()).await;
        assert_eq!(ended.code, Some(13), "{}", ended.stderr);
        assert!(ended.stderr.contains(&at.to_string()), "{}", ended.stderr);
        assert!(!settings.data_dir.exists());
    }
}

#[tokio::test]
async fn listening_for_everybody_must_be_allowed() {
    let (dir, mut settings) = new_dir();
    settings.listen = "0.0.0.0:0".parse().unwrap();
    let ended = refused(&dir, settings.clone()).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(!settings.data_dir.exists());
}

#[tokio::test]
async fn a_second_node_on_a_directory_is_told_who_has_it() {
    let rig = Rig::start().await;
    let ended = refused(&rig.dir, rig.settings.clone()).await;
    assert_eq!(ended.code, Some(15), "{}", ended.stderr);
    rig.stop().await;
}

#[tokio::test]
async fn a_directory_keeps_its_node_id() {
    let rig = Rig::start().await;
    let Stopped { dir, mut settings } = rig.stop().await;
    settings.node_id = 2;
    let ended = refused(&dir, settings.clone()).await;
    assert_eq!(ended.code, Some(7), "{}", ended.stderr);
    settings.node_id = 1;
    Rig::open(dir, settings).await.stop().await;
}

#[tokio::test]
async fn a_directory_of_something_else_is_left_alone() {
    let (dir, settings) = new_dir();
    fs::create_dir(&settings.data_dir).unwrap();
    fs::write(settings.data_dir.join("letter.txt"), "dear").unwrap();
    let ended = refused(&dir, settings.clone()).await;
    assert_eq!(ended.code, Some(13), "{}", ended.stderr);
    let names: Vec<_> =
        fs::read_dir(&settings.data_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["letter.txt"]);
}

#[tokio::test]
async fn a_file_or_a_missing_parent_is_no_directory() {
    let (dir, mut settings) = new_dir();
    fs::write(&settings.data_dir, "").unwrap();
    let ended = refused(&dir, settings.clone()).await;
    assert_eq!(ended.code, Some(13), "{}", ended.stderr);
    settings.data_dir = dir.path().join("no/such/parent");
    let ended = refused(&dir, settings).await;
    assert_eq!(ended.code, Some(13), "{}", ended.stderr);
}

#[tokio::test]
async fn damage_below_what_was_synced_is_reported_and_nothing_is_cut() {
    let rig = Rig::start().await;
    for number in 0..50 {
        rig.kv().put(crate::rig::put(&format!("key-{number}"), "value")).await.unwrap();
    }
    let Stopped { dir, settings } = rig.stop().await;
    let shard = settings.data_dir.join("shard-0000000001");
    let mut logs: Vec<_> = fs::read_dir(&shard)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    let mut bytes = fs::read(&logs[0]).unwrap();
    bytes[4096 + 300] ^= 0x40;
    fs::write(&logs[0], &bytes).unwrap();
    let ended = refused(&dir, settings).await;
    assert_eq!(ended.code, Some(12), "{}", ended.stderr);
    assert!(ended.stderr.contains(".log"), "{}", ended.stderr);
    assert_eq!(fs::read(&logs[0]).unwrap(), bytes, "the file is as it was found");
}
