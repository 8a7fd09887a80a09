//! Values of flags: durations, sizes, limits, rates, addresses, times, places, keys in an encoding.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use prkdb::commands::{
    fuzz,
    input::{Encoding, decode, unescape, unescape_before},
    load::read::TimestampFormat,
    values,
};
use prkdb_client::Endpoint;

use super::source::{Source, text};

/// What is read, and its text. Some take another text as a format or a separator.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let what = source.below(10);
    let other = if what < 2 { source.piece() } else { &[] };
    let bytes = source.rest();
    let shown = text(bytes);
    match what {
        0 => {
            if let Ok(format) = TimestampFormat::parse(text(other)) {
                let _read = format.read(bytes);
            }
        }
        1 => {
            if let Ok(plain) = unescape_before(bytes, other) {
                assert!(plain.len() <= bytes.len());
            }
            let plain = unescape(bytes);
            assert_eq!(unescape_before(bytes, &[]), plain);
        }
        2 => {
            if let Ok(duration) = values::duration(shown) {
                let again = values::duration(&format!("{}ns", duration.as_nanos()));
                assert!(duration.as_secs() > 1 << 33 || again == Ok(duration), "{duration:?}");
            }
        }
        3 => {
            if let Ok(size) = values::size(shown) {
                assert_eq!(values::size(&size.to_string()), Ok(size), "{shown}");
            }
        }
        4 => {
            let _limit = values::limit(shown);
            let _rate = values::rate(shown);
        }
        5 => {
            if let Ok(address) = values::listen_address(shown) {
                assert_eq!(address, shown);
            }
            if let Ok(endpoint) = Endpoint::parse(shown) {
                let again = Endpoint::parse(&endpoint.to_string());
                assert_eq!(again.ok(), Some(endpoint), "an address is read as it is shown");
            }
        }
        6 => {
            let _read = TimestampFormat::Auto.read(bytes);
            let (start, end) = fuzz::place(shown);
            assert!(start.is_err() || end.is_err() || start == end, "{start:?} {end:?}");
        }
        7 => {
            for encoding in [Encoding::Utf8, Encoding::Bytes, Encoding::Escape] {
                let _key = decode(OsStr::from_bytes(bytes), encoding);
            }
        }
        8 => {
            let _key = decode(OsStr::from_bytes(bytes), Encoding::Hex);
            let _key = decode(OsStr::from_bytes(bytes), Encoding::Base64);
        }
        _ => {
            let _shown = fuzz::metrics(shown);
        }
    }
}

/// One of each.
pub fn seeds() -> Vec<Vec<u8>> {
    let texts: [(u8, &[u8]); 19] = [
        (0, b"\x0e%Y-%m-%d %H:%M2013-06-01 10:00"),
        (0, b"\x04%s%z1385000000+01:00"),
        (1, b"\x01,a\\,b\\x00\\u{1f600}\\n\\\\"),
        (2, b"1h 30m"),
        (2, b"250ms"),
        (3, b"64MiB"),
        (3, b"1.5GB"),
        (4, b"5000/s"),
        (4, b"18446744073709551616"),
        (5, b"http://[::1]:7000/"),
        (5, b"db1.example:9090"),
        (6, b"@2013-06-01T10:00:00Z"),
        (6, b"@1385000000"),
        (6, b"1385000000000000"),
        (6, b"latest"),
        (7, b"a\\tb\xff"),
        (8, b"00ff"),
        (8, b"AP8="),
        (9, b"# HELP prkdb_keys Keys.\n# TYPE prkdb_keys gauge\nprkdb_keys{shard=\"1\",x=\"a b\"} 7 1385\n"),
    ];
    texts.iter().map(|(what, text)| [&[*what][..], text].concat()).collect()
}
