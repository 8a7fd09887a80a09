//! Readers against writers, and the cases that a rule is about.

use proptest::prelude::*;

use super::*;
use crate::commands::output::{Object, escape_bytes};

pub(super) fn scanner(bytes: &[u8]) -> Scanner {
    // A small buffer cuts records at every place.
    let bytes: Box<dyn Read + Send> = Box::new(io::Cursor::new(bytes.to_vec()));
    Scanner::new(BufReader::with_capacity(3, bytes), Place::default()).unwrap()
}

pub(super) fn read(mut reader: impl Reader) -> Vec<Item> {
    let mut items = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        items.push(shaped(item, &Shape::default()));
    }
    items
}

pub(super) fn shaped(mut item: Item, shape: &Shape) -> Item {
    item.content = item.content.and_then(|record| shape.apply(record));
    item
}

fn records(items: Vec<Item>) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    items
        .into_iter()
        .map(|item| item.content.unwrap())
        .map(|record| (record.key.unwrap(), record.value))
        .collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    of.iter()
        .map(|(key, value)| (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec())))
        .collect()
}

fn delimited(bytes: &[u8]) -> Delimited {
    Delimited::new(scanner(bytes), b",".to_vec(), b'\n')
}

fn table(bytes: &[u8], has_header: bool, keys: &[ColumnName], value: Option<ColumnName>) -> Table {
    let options = TableOptions {
        separator: b',',
        has_header,
        key_columns: keys.to_vec(),
        key_separator: b"|".to_vec(),
        value_column: value,
        timestamp_column: None,
        comment: Vec::new(),
    };
    Table::new(scanner(bytes), options).unwrap()
}

#[test]
fn the_value_is_everything_behind_the_first_separator() {
    let items = read(delimited(b"user:1,{\"a\":1,\"b\":2}\n"));
    assert_eq!(records(items), pairs(&[("user:1", "{\"a\":1,\"b\":2}")]));
}

#[test]
fn line_ends_empty_lines_and_the_byte_order_mark_are_no_data() {
    let mut reader = delimited(b"\xef\xbb\xbfa, 1 \r\n\n\r\nb,\nc,2\r");
    let mut items = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        items.push(item);
    }
    assert_eq!(reader.skipped(), 2);
    assert_eq!(items.iter().map(|item| item.start.line).collect::<Vec<_>>(), [0, 3, 4]);
    // Without a line break behind it, a carriage return is data.
    assert_eq!(records(items), pairs(&[("a", " 1 "), ("b", ""), ("c", "2\r")]));
}

#[test]
fn wrong_lines_say_why_and_keep_their_bytes() {
    let items = read(delimited(b"bad\r\n,1\n"));
    assert_eq!(items[0].content, Err("no separator ',' in record".into()));
    assert_eq!(items[0].raw, b"bad\r\n");
    assert_eq!(items[1].content, Err("empty key".into()));
}

#[test]
fn nul_ends_records_that_hold_lines() {
    let reader = Delimited::new(scanner(b"a,1\n2\0b,x\r\0"), b",".to_vec(), 0);
    assert_eq!(records(read(reader)), pairs(&[("a", "1\n2"), ("b", "x\r")]));
}

#[test]
fn a_separator_may_have_several_bytes() {
    let reader = Delimited::new(scanner(b"a|b||c||d\n"), b"||".to_vec(), b'\n');
    assert_eq!(records(read(reader)), pairs(&[("a|b", "c||d")]));
}

#[test]
fn a_byte_order_mark_that_comes_in_pieces_is_dropped() {
    for (bytes, key, begins) in
        [(&b"\xef\xbb\xbfa,1\n"[..], &b"a"[..], 3), (b"\xef\xbba,1\n", b"\xef\xbba", 0)]
    {
        for size in 1..6 {
            let input: Box<dyn Read + Send> = Box::new(io::Cursor::new(bytes.to_vec()));
            let input = BufReader::with_capacity(size, input);
            let scanner = Scanner::new(input, Place::default()).unwrap();
            let items = read(Delimited::new(scanner, b",".to_vec(), b'\n'));
            assert_eq!(items[0].start.offset, begins, "pieces of {size}");
            assert_eq!(items[0].content.as_ref().unwrap().key.as_deref(), Some(key));
        }
    }
}

#[test]
fn comments_are_passed_over() {
    let reader = delimited(b"# a,1\nb,2\n").comment(b"#".to_vec());
    assert_eq!(records(read(reader)), pairs(&[("b", "2")]));
}

#[test]
fn a_record_that_is_too_long_is_rejected_without_being_kept() {
    let mut bytes = vec![b'x'; 5000];
    bytes.extend_from_slice(b"\na,1\n");
    let scanner = scanner(&bytes).with_limit(100);
    let items = read(Delimited::new(scanner, b",".to_vec(), b'\n'));
    assert!(items[0].content.as_ref().unwrap_err().contains("longer than"));
    assert!(items[0].raw.is_empty());
    assert_eq!(items[1].start.offset, 5001);
    assert_eq!(records(items[1..].to_vec()), pairs(&[("a", "1")]));
}

#[test]
fn rows_follow_rfc_4180() {
    let bytes = b"a,\"x \"\"y\"\"\nz\"\r\n\"b,c\",\n";
    let items = read(table(bytes, false, &[ColumnName::Number(1)], Some(ColumnName::Number(2))));
    assert_eq!(items[1].start.line, 2);
    assert_eq!(records(items), pairs(&[("a", "x \"y\"\nz"), ("b,c", "")]));
}

#[test]
fn a_row_has_a_limit_of_columns() {
    let wide = [b"a,b\n".to_vec(), vec![b','; 20_000], b"\nc,d\n".to_vec()].concat();
    let items = read(table(&wide, false, &[ColumnName::Number(1)], Some(ColumnName::Number(2))));
    assert_eq!(items[1].content, Err("more than 16384 columns".into()));
    assert_eq!(records(vec![items[0].clone(), items[2].clone()]), pairs(&[("a", "b"), ("c", "d")]));
}

#[test]
fn rows_have_exactly_the_needed_columns() {
    let items = read(table(
        b"a,b,c\na,\"b\n",
        false,
        &[ColumnName::Number(1)],
        Some(ColumnName::Number(2)),
    ));
    assert_eq!(items[0].content, Err("3 columns, expected 2".into()));
    assert_eq!(items[1].content, Err("a quote is not closed".into()));
}

#[test]
fn named_key_columns_make_the_row_an_object_in_the_order_of_the_first_row() {
    let keys = [ColumnName::Name("year".into()), ColumnName::Name("day".into())];
    let items = read(table(b"year,note,day\n2013,\"a \"\"b\"\"\",1\n", true, &keys, None));
    assert_eq!(items[0].start.line, 1);
    let expected = r#"{"year":"2013","note":"a \"b\"","day":"1"}"#;
    assert_eq!(records(items), pairs(&[("2013|1", expected)]));
}

#[test]
fn an_unknown_column_names_the_first_row() {
    let options = TableOptions {
        separator: b',',
        has_header: true,
        key_columns: vec![ColumnName::Name("key".into())],
        key_separator: Vec::new(),
        value_column: None,
        timestamp_column: None,
        comment: Vec::new(),
    };
    let error = Table::new(scanner(b"a,b\n"), options).err().unwrap();
    assert_eq!(error.to_string(), "no column 'key' in the first row: a, b");
}

#[test]
fn json_lines_take_text_bytes_values_and_deletes() {
    let lines = b"{\"key\":\"a\",\"value\":\"x\"}\n{\"key_b64\":\"AP8K\",\"value_b64\":\"AA==\"}\n\
        {\"key\":\"c\",\"value\":{ \"b\": 1.0, \"a\": \"x  y\" }}\n{\"key\":\"d\",\"op\":\"delete\"}\n\
        {\"schema\":\"prkdb.scan/1\",\"key\":\"e\",\"value\":null,\"version\":1,\"partition\":0}\n";
    let found = records(read(JsonLines::new(scanner(lines), Vec::new())));
    let expected: Vec<(Vec<u8>, Option<Vec<u8>>)> = vec![
        (b"a".to_vec(), Some(b"x".to_vec())),
        (vec![0, 0xff, 10], Some(vec![0])),
        (b"c".to_vec(), Some(b"{\"b\":1.0,\"a\":\"x  y\"}".to_vec())),
        (b"d".to_vec(), None),
        (b"e".to_vec(), Some(b"null".to_vec())),
    ];
    assert_eq!(found, expected);
}

#[test]
fn wrong_json_lines_say_why() {
    for (line, reason) in [
        ("{\"key\":\"a\"}", "no field 'value'"),
        ("{\"value\":\"a\"}", "no field 'key'"),
        ("{\"key\":\"a\",\"value\":1,\"extra\":2}", "unknown field `extra`"),
        ("{\"key\":\"a\",\"key_b64\":\"AA==\",\"value\":1}", "both 'key'"),
        ("{\"key\":\"a\",\"value_b64\":\"?\"}", "value_b64:"),
        ("{\"key\":\"\",\"value\":1}", "empty key"),
        ("{\"key\":\"a\",\"value\":1,\"op\":\"delete\"}", "takes no value"),
        ("nonsense", "at column"),
    ] {
        let items = read(JsonLines::new(scanner(line.as_bytes()), Vec::new()));
        let error = items[0].content.clone().unwrap_err();
        assert!(error.contains(reason), "{line}: {error}");
    }
}

#[test]
fn a_truncated_frame_is_named_by_its_byte() {
    let bytes = [0, 0, 0, 1, b'k', 0, 0, 0, 1, b'v', 0, 0, 0, 9, b'k'];
    let items = read(Frames::new(scanner(&bytes)));
    assert_eq!(items[0].content, Ok(Record::new(b"k".to_vec(), b"v".to_vec())));
    assert_eq!(items[1].content, Err("truncated frame at byte 10".into()));
    assert_eq!(items.len(), 2);
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn any_pairs() -> impl Strategy<Value = Pairs> {
    let bytes = |from| prop::collection::vec(any::<u8>(), from..20_usize);
    prop::collection::vec((bytes(1), bytes(0)), 0..8)
}

fn expected(pairs: &Pairs) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    pairs.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect()
}

fn csv_text(pairs: &Pairs, separator: u8) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().delimiter(separator).from_writer(Vec::new());
    for (key, value) in pairs {
        writer.write_record([key, value]).unwrap();
    }
    writer.into_inner().unwrap()
}

proptest! {
    #[test]
    fn delimited_with_escapes_reads_what_was_written(pairs in any_pairs()) {
        let mut text = Vec::new();
        for (key, value) in &pairs {
            let key = escape_bytes(key).replace(',', "\\,");
            text.extend_from_slice(format!("{key},{}\n", escape_bytes(value)).as_bytes());
        }
        prop_assert_eq!(records(read(delimited(&text).escaped(true))), expected(&pairs));
    }

    #[test]
    fn delimited_by_nul_reads_what_was_written(pairs in any_pairs()) {
        let clean = |bytes: &Vec<u8>, without: u8| -> Vec<u8> {
            bytes.iter().map(|byte| if *byte == 0 || *byte == without { 1 } else { *byte }).collect()
        };
        let pairs: Pairs =
            pairs.iter().map(|(key, value)| (clean(key, b','), clean(value, 0))).collect();
        let mut text = Vec::new();
        for (key, value) in &pairs {
            text.extend_from_slice(&[key, &b","[..], value, &b"\0"[..]].concat());
        }
        // A byte order mark at the start is not data, and the key must not look like one.
        prop_assume!(!text.starts_with(b"\xef\xbb\xbf"));
        let reader = Delimited::new(scanner(&text), b",".to_vec(), 0);
        prop_assert_eq!(records(read(reader)), expected(&pairs));
    }

    #[test]
    fn rows_read_what_was_written(pairs in any_pairs()) {
        let text = csv_text(&pairs, b',');
        prop_assume!(!text.starts_with(b"\xef\xbb\xbf"));
        let (key, value) = (ColumnName::Number(1), ColumnName::Number(2));
        prop_assert_eq!(records(read(table(&text, false, &[key], Some(value)))), expected(&pairs));
    }

    #[test]
    fn json_lines_read_what_was_written(pairs in any_pairs()) {
        let mut text = Vec::new();
        for (key, value) in &pairs {
            let mut object = Object::document("prkdb.scan/1");
            object.add_bytes("key", key).add_bytes("value", value).add("version", 1);
            text.extend_from_slice(&serde_json::to_vec(&object).unwrap());
            text.push(b'\n');
        }
        let reader = JsonLines::new(scanner(&text), Vec::new());
        prop_assert_eq!(records(read(reader)), expected(&pairs));
    }

    #[test]
    fn frames_read_what_was_written(pairs in any_pairs()) {
        let mut bytes = Vec::new();
        for part in pairs.iter().flat_map(|(key, value)| [key, value]) {
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(part);
        }
        prop_assume!(!bytes.starts_with(b"\xef\xbb\xbf"));
        prop_assert_eq!(records(read(Frames::new(scanner(&bytes)))), expected(&pairs));
    }

    #[test]
    fn a_reader_that_begins_at_a_place_goes_on_as_the_first_did(pairs in any_pairs(), at in 0_usize..8) {
        let text = csv_text(&pairs, b',');
        prop_assume!(!text.starts_with(b"\xef\xbb\xbf"));
        let columns = || (ColumnName::Number(1), ColumnName::Number(2));
        let (key, value) = columns();
        let all = read(table(&text, false, &[key], Some(value)));
        prop_assume!(at < all.len());
        let start = all[at].start;
        let rest = text[usize::try_from(start.offset).unwrap()..].to_vec();
        let input: Box<dyn Read + Send> = Box::new(io::Cursor::new(rest));
        let input = BufReader::new(input);
        let (key, value) = columns();
        let later = table(b"", false, &[key], Some(value)).at(Scanner::new(input, start).unwrap());
        prop_assert_eq!(read(later), all[at..].to_vec());
    }
}
