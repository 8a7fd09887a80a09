//! The file that says how far a run of `batch-put` or `produce` has come.

use prkdb::commands::fuzz::checkpoint;

/// The file.
pub fn run(data: &[u8]) {
    let Some(written) = checkpoint(data) else { return };
    let again = checkpoint(&written).expect("what is written is read");
    assert_eq!(again, written, "it is written as it was read");
}

/// A run half way.
pub fn seeds() -> Vec<Vec<u8>> {
    let whole = r#"{"schema":"prkdb.batch-checkpoint/1","input":"/a.csv","size":100,"mtime":"2013-06-01T10:00:00.000Z","fingerprint":"00000000-00000000","byte_offset":50,"record":5,"line":5,"put":5,"rejected":0,"bytes":40,"producer":{"id":7,"timestamp_ms":1385000000000,"lanes":[{"partition":0,"byte_offset":50,"sequence":3,"offsets":[0,4]},{"partition":1,"byte_offset":60,"sequence":0}]},"rejects":{"byte_offset":0,"bytes":0,"reasons_bytes":0},"target":{"cluster_id":"00","collection":"c","collection_id":1,"partitions":2,"partitioner":1,"batch_records":100,"batch_bytes":1000},"args":{"format":"csv"}}"#;
    assert!(checkpoint(whole.as_bytes()).is_some(), "the seed is a checkpoint");
    vec![whole.as_bytes().to_vec()]
}
