//! JSON lines: keys and values, envelopes of events, whole objects as values.

use prkdb::commands::load::read::{
    Envelopes, JsonLines, ObjectFields, Objects, Scanner, TimestampFormat,
};

use super::{
    readers,
    source::{Source, text},
};

/// Form, size of the pieces, where it goes on, the names of key and time, content.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let (form, buffer, resume) = (source.byte(), source.byte(), source.byte());
    let (buffer, resume) = (usize::from(buffer), u64::from(resume));
    let comment = if form & 4 != 0 { b"#".to_vec() } else { Vec::new() };
    let name = |name: &[u8]| (!name.is_empty()).then(|| text(name).to_owned());
    let (key, timestamp) = (name(source.piece()), name(source.piece()));
    let content = source.rest();
    let format = TimestampFormat::Auto;
    match form & 3 {
        0 => readers::check(content, buffer, resume, &|input, place| {
            Ok(Box::new(JsonLines::new(Scanner::new(input, place)?, comment.clone())))
        }),
        1 => readers::check(content, buffer, resume, &|input, place| {
            let scanner = Scanner::new(input, place)?;
            Ok(Box::new(Envelopes::new(scanner, comment.clone(), format.clone())))
        }),
        _ => readers::check(content, buffer, resume, &|input, place| {
            let scanner = Scanner::new(input, place)?;
            let fields = ObjectFields {
                key: key.clone(),
                timestamp: timestamp.clone(),
                format: format.clone(),
            };
            Ok(Box::new(Objects::new(scanner, comment.clone(), fields)))
        }),
    }
}

/// Lines as `scan` and `consume` print them, and objects.
pub fn seeds() -> Vec<Vec<u8>> {
    let lines = b"\0\0{\"key\":\"a\",\"value\":{\"b\": [1, \"x y\"]}}\n{\"key_b64\":\"AP8=\",\"value_b64\":\"AA==\"}\n{\"key\":\"a\",\"op\":\"delete\"}\n\n{\"key\":1}\n{\"schema\":\"s\",\"key\":\"k\",\"value\":null,\"version\":3,\"partition\":0,\"timestamp\":1}";
    let events = b"\0\0{\"key\":\"a\",\"value\":null,\"headers\":[[\"h\",\"v\"]],\"timestamp\":\"2013-06-01T10:00:00Z\",\"partition\":2}\n{\"value_b64\":\"AA==\",\"headers_b64\":[[\"h\",\"AA==\"]],\"timestamp\":1385000000000,\"offset\":4,\"collection\":\"c\"}\n";
    let objects =
        b"\x02id\x02at{\"id\":\"a\\n\",\"at\":1385000000,\"x\":[{}]}\n{\"id\":null,\"at\":\"2013-06-01\"}\n#c\n[]\n";
    vec![
        [&[0, 7, 1][..], lines].concat(),
        [&[1, 7, 1][..], events].concat(),
        [&[2 | 4, 7, 1][..], objects].concat(),
    ]
}
