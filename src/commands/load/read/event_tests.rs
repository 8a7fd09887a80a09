//! Readers of events: keys are optional, and times, headers and partitions may be there.

use super::{
    tests::{read, scanner, shaped},
    *,
};

fn one(reader: impl Reader) -> Result<Record, String> {
    let mut items = read(reader);
    assert_eq!(items.len(), 1);
    items.remove(0).content
}

fn envelope(line: &str) -> Result<Record, String> {
    one(Envelopes::new(scanner(line.as_bytes()), Vec::new(), TimestampFormat::Auto))
}

fn object(line: &str, key: Option<&str>, timestamp: Option<&str>) -> Result<Record, String> {
    let fields = ObjectFields {
        key: key.map(str::to_owned),
        timestamp: timestamp.map(str::to_owned),
        format: TimestampFormat::Auto,
    };
    one(Objects::new(scanner(line.as_bytes()), Vec::new(), fields))
}

#[test]
fn a_line_is_a_value_without_a_key() {
    let items =
        read(Delimited::lines(scanner(b"a,1\r\n\n#x\n b \n"), b'\n').comment(b"#".to_vec()));
    let values: Vec<_> = items.into_iter().map(|item| item.content.unwrap()).collect();
    assert_eq!(values, [Record::event(b"a,1".to_vec()), Record::event(b" b ".to_vec())]);
    let escaped = one(Delimited::lines(scanner(b"a\\nb\0"), 0).escaped(true));
    assert_eq!(escaped, Ok(Record::event(b"a\nb".to_vec())));
}

#[test]
fn an_envelope_has_key_value_headers_time_and_partition() {
    let line = r#"{"schema":"prkdb.consume/1","collection":"c","partition":2,"offset":7,
        "timestamp":"2013-01-01T00:00:00.001Z","key":"k","value":"v","headers":[["a","1"],["a",""]]}"#;
    let record = envelope(&line.replace('\n', "")).unwrap();
    assert_eq!(
        record,
        Record {
            key: Some(b"k".to_vec()),
            value: Some(b"v".to_vec()),
            headers: vec![("a".into(), b"1".to_vec()), ("a".into(), Vec::new())],
            timestamp_ms: Some(1_356_998_400_001),
            partition: Some(2),
        }
    );
    let bytes = r#"{"key_b64":"AP8K","value_b64":"AA==","headers_b64":[["a","/w=="]],"timestamp":1356998400}"#;
    let record = envelope(bytes).unwrap();
    assert_eq!((record.key.unwrap(), record.value.unwrap()), (vec![0, 0xff, 10], vec![0]));
    assert_eq!(record.headers, [("a".to_owned(), vec![0xff])]);
    assert_eq!(record.timestamp_ms, Some(1_356_998_400_000));
}

#[test]
fn null_is_no_key_and_a_tombstone() {
    assert_eq!(envelope(r#"{"key":null,"value":1}"#), Ok(Record::event(b"1".to_vec())));
    let tombstone = envelope(r#"{"key":"k","value":null}"#).unwrap();
    assert_eq!((tombstone.key, tombstone.value), (Some(b"k".to_vec()), None));
    for (line, reason) in [
        (r#"{"value":null}"#, "neither a key nor a value"),
        (r#"{"key":"k"}"#, "no field 'value'"),
        (r#"{"key":"","value":1}"#, "empty key"),
        (r#"{"value":1,"timestamp":"soon"}"#, "timestamp 'soon'"),
        (r#"{"value":1,"headers":[["a"]]}"#, "column"),
        (r#"{"value":1,"headers_b64":[["a","?"]]}"#, "headers_b64 'a'"),
        (r#"{"value":1,"partition":-1}"#, "column"),
        (r#"{"value":1,"ttl_ms":1}"#, "unknown field"),
        ("[1]", "column"),
    ] {
        let error = envelope(line).unwrap_err();
        assert!(error.contains(reason), "{line}: {error}");
    }
}

#[test]
fn an_object_is_the_value_and_its_fields_are_key_and_time() {
    let line = r#" {"id": 7, "at": "2013-01-01", "more": {"id": 8}} "#;
    let record = object(line, Some("id"), Some("at")).unwrap();
    assert_eq!(record.key, Some(b"7".to_vec()));
    assert_eq!(record.timestamp_ms, Some(1_356_998_400_000));
    assert_eq!(record.value, Some(line.trim().as_bytes().to_vec()));
    assert_eq!(object(r#"{"id":"a b"}"#, Some("id"), None).unwrap().key, Some(b"a b".to_vec()));
    assert_eq!(object(r#"{"id":null}"#, Some("id"), None).unwrap().key, None);
    for (line, reason) in [
        (r#"{"more":1}"#, "no field 'id'"),
        (r#"{"id":1}"#, "no field 'at'"),
        (r#"{"id":1,"at":"x"}"#, "timestamp 'x'"),
        (r#"{"id":"","at":1356998400}"#, "empty key"),
        (r#"{"id":1,"at":1356998400} x"#, "column"),
        ("[]", "an object"),
        ("7", "an object"),
    ] {
        let error = object(line, Some("id"), Some("at")).unwrap_err();
        assert!(error.contains(reason), "{line}: {error}");
    }
}

#[test]
fn a_row_has_its_time_in_a_column_and_needs_no_key() {
    let options = TableOptions {
        separator: b',',
        has_header: true,
        key_columns: Vec::new(),
        key_separator: b"|".to_vec(),
        value_column: None,
        timestamp_column: Some((ColumnName::Name("at".into()), TimestampFormat::Auto)),
        comment: Vec::new(),
    };
    let text = b"at,n\n2013-01-01T00:00:00Z,\"1,2\"\nNA,3\n";
    let items = read(Table::new(scanner(text), options).unwrap());
    let record = items[0].content.clone().unwrap();
    assert_eq!((record.key, record.timestamp_ms), (None, Some(1_356_998_400_000)));
    assert_eq!(record.value.unwrap(), br#"{"at":"2013-01-01T00:00:00Z","n":"1,2"}"#);
    assert_eq!(items[1].content, Err("timestamp 'NA' is not RFC 3339".to_owned()));
}

#[test]
fn what_is_said_of_every_record_is_added() {
    let shape = Shape {
        null_key: Some(b"NA".to_vec()),
        tombstone: Some(b"-".to_vec()),
        headers: vec![("all".into(), b"1".to_vec())],
        ..Shape::default()
    };
    let items = read(Delimited::new(scanner(b"NA,1\nk,-\nk,NA\n"), b",".to_vec(), b'\n'));
    let records: Vec<Record> =
        items.into_iter().map(|item| shaped(item, &shape).content.unwrap()).collect();
    assert_eq!(records[0].key, None);
    assert_eq!((&records[1].key, &records[1].value), (&Some(b"k".to_vec()), &None));
    assert_eq!(records[2].value, Some(b"NA".to_vec()));
    assert!(records.iter().all(|record| record.headers == shape.headers));
    let fixed = Shape {
        key: Some(b"k".to_vec()),
        partition: Some(1),
        timestamp_ms: Some(7),
        ..Shape::default()
    };
    let record = fixed.apply(Record::event(b"v".to_vec())).unwrap();
    assert_eq!(
        (record.key, record.partition, record.timestamp_ms),
        (Some(b"k".to_vec()), Some(1), Some(7))
    );
}
