//! What every reader of records keeps to: places that follow each other, the same records whatever the
//! size of the pieces they come in, and the same rest from any place on.

use std::io::{self, BufReader, Cursor};

use prkdb::commands::load::read::{Input, Item, Place, Reader};

/// Makes a reader of an input that goes on at a place, where it has to be another than at the start.
pub type Make<'a> = &'a dyn Fn(Input, Place) -> io::Result<Box<dyn Reader>>;

fn input(data: &[u8], buffer: usize) -> Input {
    BufReader::with_capacity(buffer, Box::new(Cursor::new(data.to_vec())))
}

fn follows(item: &Item, place: Place) {
    assert!(item.start.offset >= place.offset && item.end.offset > item.start.offset, "{item:?}");
    assert!(item.end.line >= item.start.line, "{item:?}");
    assert_eq!(item.end.record, place.record + 1, "{item:?}");
    if !item.raw.is_empty() {
        assert!(item.raw.len() as u64 <= item.end.offset - item.start.offset, "{item:?}");
    }
}

/// Reads `data` twice, in large pieces and in pieces of `buffer` bytes, and from the record `resume` on
/// a third time.
pub fn check(data: &[u8], buffer: usize, resume: u64, make: Make<'_>) {
    let whole = make(input(data, 8192), Place::default());
    let pieces = make(input(data, buffer.max(1)), Place::default());
    let (mut whole, mut pieces) = match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => (whole, pieces),
        (Err(whole), Err(pieces)) => return assert_eq!(whole.to_string(), pieces.to_string()),
        _ => panic!("one begins and the other does not"),
    };
    let mut resumed: Option<Box<dyn Reader>> = None;
    let mut place = None;
    loop {
        let one = whole.next().expect("memory does not fail");
        assert_eq!(pieces.next().expect("memory does not fail"), one, "pieces of {buffer}");
        if let Some(again) = &mut resumed {
            assert_eq!(again.next().expect("memory does not fail"), one, "from {resume} on");
        }
        let _waits = whole.may_wait();
        let Some(item) = one else { break };
        follows(&item, place.unwrap_or(Place { record: 0, ..Place::default() }));
        if item.end.record == resume {
            let rest = &data[usize::try_from(item.end.offset).unwrap_or(usize::MAX)..];
            resumed = make(input(rest, buffer.max(1)), item.end).ok();
        }
        place = Some(item.end);
    }
    assert_eq!(whole.skipped(), pieces.skipped());
}
