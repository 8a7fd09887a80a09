//! Whose a directory is.

use std::fs;

use prkdb::{
    db::{DbError, PrkDb},
    storage::{
        clock::{OsRng, SystemClock},
        dir::{DataDir, DirError, Kind, Wanted},
        disk::RealDisk,
    },
};
use prkdb_types::ErrorCode;

use super::{fresh, open};

#[test]
fn a_directory_in_use_is_refused_and_is_free_when_the_last_handle_goes() {
    let (dir, db) = fresh();
    let again = PrkDb::builder().with_data_dir(dir.path().join("data")).build().unwrap_err();
    assert_eq!(again.code(), ErrorCode::Locked);
    let kv = db.kv();
    drop(db);
    let again = PrkDb::builder().with_data_dir(dir.path().join("data")).build().unwrap_err();
    assert_eq!(again.code(), ErrorCode::Locked, "a handle is left");
    drop(kv);
    open(&dir);
}

#[test]
fn a_nodes_directory_is_refused_with_what_helps_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let wanted = Wanted { kind: Kind::Node, node_id: 1, cluster_id: None };
    let rng = &mut OsRng::new().unwrap();
    drop(DataDir::open(&RealDisk, &path, &wanted, &SystemClock::new(), rng).unwrap());
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let error = PrkDb::builder().with_data_dir(&path).build().unwrap_err();
    assert_eq!(error.code(), ErrorCode::WrongDirectory);
    assert!(error.to_string().ends_with("is of kind node, not embedded"), "{error}");
    assert!(error.hint().contains("prkdb serve"), "{}", error.hint());
    assert_eq!(names(), before);
}

#[test]
fn a_directory_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    let error = PrkDb::builder().with_data_dir(dir.path()).build().unwrap_err();
    let DbError::Directory(inner) = &error else { panic!("{error}") };
    assert!(matches!(**inner, DirError::NotOurs { .. }), "{error}");
}

#[test]
fn a_builder_without_a_directory_says_what_it_needs() {
    let error = PrkDb::builder().build().unwrap_err();
    assert!(error.to_string().contains("with_data_dir"), "{error}");
}
