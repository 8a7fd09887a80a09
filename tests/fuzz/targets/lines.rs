//! Keys and values on lines, lines alone, and binary frames.

use prkdb::commands::load::read::{Delimited, Frames, Scanner};

use super::{readers, source::Source};

/// Flags: escapes, NUL instead of a line break, no separator, frames.
const ESCAPED: u8 = 1;
const NUL: u8 = 2;
const BARE: u8 = 4;
const FRAMES: u8 = 8;

/// Flags, size of the pieces, where it goes on, separator, comment, content.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let (flags, buffer, resume) = (source.byte(), source.byte(), source.byte());
    let (buffer, resume) = (usize::from(buffer), u64::from(resume));
    if flags & FRAMES != 0 {
        return readers::check(source.rest(), buffer, resume, &|input, place| {
            Ok(Box::new(Frames::new(Scanner::new(input, place)?)))
        });
    }
    let separator = source.piece().to_vec();
    let comment = source.piece().to_vec();
    let terminator = if flags & NUL != 0 { 0 } else { b'\n' };
    readers::check(source.rest(), buffer, resume, &|input, place| {
        let scanner = Scanner::new(input, place)?;
        let reader = if flags & BARE != 0 || separator.is_empty() {
            Delimited::lines(scanner, terminator)
        } else {
            Delimited::new(scanner, separator.clone(), terminator)
        };
        Ok(Box::new(reader.escaped(flags & ESCAPED != 0).comment(comment.clone())))
    });
}

/// One of each.
pub fn seeds() -> Vec<Vec<u8>> {
    let lines = b"\x01,\x01#a,1\r\n#no\n\nb,x,y\nnone\n\\x41\\,b,\\u{1f600}\\n";
    let frames = b"\0\0\0\x01k\0\0\0\x05value\0\0\0\x02kk\0\0\0\0\0\0\0\x09cut";
    let mut seeds = vec![[&[FRAMES, 3, 1][..], frames].concat()];
    for flags in [0, ESCAPED, BARE, NUL] {
        seeds.push([&[flags, 4, 2][..], lines].concat());
    }
    seeds.push(b"\0\x05\x01\x02::\0\xef\xbb\xbfa::1\nb::2\0c::3".to_vec());
    seeds
}
