//! The membership of a Raft group, as it stands in the log.

use bytes::Bytes;
use prkdb::node::fuzz::membership;

/// The bytes of an entry.
pub fn run(data: &[u8]) {
    let Some(written) = membership(&Bytes::copy_from_slice(data)) else { return };
    assert_eq!(membership(&written), Some(written.clone()), "it is read as it was written");
}

/// One node, and a change from two to two.
pub fn seeds() -> Vec<Vec<u8>> {
    let replica = |id: u8, address: &str| {
        let len = u8::try_from(address.len()).unwrap_or_default();
        let inner = [&[8, id, 18, len][..], address.as_bytes()].concat();
        [&[18, u8::try_from(inner.len()).unwrap_or_default()][..], &inner].concat()
    };
    let (one, two) = (replica(1, "127.0.0.1:9090"), replica(2, "b:2"));
    vec![
        [&[10, 3, 10, 1, 1][..], &one].concat(),
        [&[10, 4, 10, 2, 1, 2, 10, 4, 10, 2, 2, 3][..], &one, &two, &replica(3, "")].concat(),
    ]
}
