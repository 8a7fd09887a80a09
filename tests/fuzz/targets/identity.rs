//! `IDENTITY` and `LOCK` of a data directory.

use std::path::Path;

use prkdb::storage::{
    dir::{OfflineDir, Use},
    disk::{Disk as _, sim::SimDisk},
    fuzz,
};
use prkdb_types::crc32c;

use super::{base, source::text};

/// With a first byte that is odd the checksum is made right.
pub fn run(data: &[u8]) {
    let (holder, written) = fuzz::holder(text(data));
    // Lines that end as they do elsewhere are read as well, and their ends are not kept.
    if !written.contains('\r') {
        assert_eq!(fuzz::holder(&written).0, holder, "a holder is read as it was written");
    }
    let mut line = data.to_vec();
    if let Some((first, object)) = data.split_first()
        && first & 1 == 1
    {
        line = format!(" {:08x}\n", crc32c(object)).into_bytes();
        line.splice(..0, object.iter().copied());
    }
    let read = fuzz::identity(&line);
    if let Some((identity, written)) = &read {
        let again = fuzz::identity(written.as_bytes());
        assert_eq!(again.as_ref(), read.as_ref(), "{identity:?} is read as it was written");
    }
    // The same on a disk: a longer file is not read to its end.
    let disk = SimDisk::new();
    let dir = Path::new("/data");
    if disk.create_dir(dir).is_ok() {
        base::put_file(&disk, &dir.join("IDENTITY"), &line);
        let opened = OfflineDir::open(&disk, dir, Use::Read).ok();
        let found = opened.map(|dir| dir.identity().clone());
        let short = line.len() <= 4096;
        assert!(!short || found == read.map(|(identity, _)| identity), "found as it was read");
    }
}

/// A line, the object alone, and a lock.
pub fn seeds() -> Vec<Vec<u8>> {
    let object = r#"{"format":1,"kind":"node","cluster_id":"00112233445566778899aabbccddeeff","node_id":1,"incarnation":"0123456789abcdef","created_ms":1385000000000}"#;
    let line = format!("{object} {:08x}\n", crc32c(object.as_bytes()));
    vec![
        line.into_bytes(),
        [b"1", object.as_bytes()].concat(),
        b"pid 17\nhost db1\nboot 8c0cbd1a-1234-4f3f-9d2c-0f6c1d1f8a11\n".to_vec(),
    ]
}
