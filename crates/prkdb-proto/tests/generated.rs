//! Keeps `src/gen` equal to what `proto/` generates. `UPDATE=1` writes it.
#![expect(clippy::unwrap_used, reason = "a failed set-up should stop the test")]

use std::{fs, path::Path};

use prost::Message as _;

const FILES: &[&str] = &[
    "prkdb/v1/error.proto",
    "prkdb/v1/stream.proto",
    "prkdb/v1/kv.proto",
    "prkdb/v1/collections.proto",
    "prkdb/v1/groups.proto",
    "prkdb/v1/admin.proto",
    "prkdb/v1/txn.proto",
];

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let set = protox::compile(FILES, [root.join("../../proto")]).unwrap();
    let out = tempfile_dir();
    // Reflection sends the descriptors to clients; comments in them would be weight only.
    let mut bare = set.clone();
    for file in &mut bare.file {
        file.source_code_info = None;
    }
    tonic_prost_build::configure()
        .bytes(".")
        .emit_package(true)
        .build_client(true)
        .build_server(true)
        .out_dir(&out)
        .compile_fds(set)
        .unwrap();
    let code = fs::read(out.join("prkdb.v1.rs")).unwrap();
    fs::remove_dir_all(&out).unwrap();
    compare(&root.join("src/gen/prkdb.v1.rs"), &code);
    compare(&root.join("src/gen/descriptor_set.bin"), &bare.encode_to_vec());
}

fn tempfile_dir() -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("prkdb-proto-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn compare(path: &Path, fresh: &[u8]) {
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, fresh).unwrap();
        return;
    }
    assert!(
        fs::read(path).unwrap_or_default() == fresh,
        "{} is stale: run UPDATE=1 cargo test -p prkdb-proto",
        path.display()
    );
}
