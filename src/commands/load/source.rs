//! The input as a stream of parsed records: a thread reads and parses ahead, in bounded memory.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, Seek as _, SeekFrom},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::mpsc;

use super::{
    args::Parsing,
    read::{
        Delimited, Frames, Input, Item, JsonLines, Place, Reader, Scanner, Table, TableOptions,
    },
};
use crate::commands::failure::{Failure, Result};

/// Bytes of records that are handed over at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that wait.
const CHUNKS: usize = 4;
const BUFFER_BYTES: usize = 256 << 10;

/// Where records come from.
pub(crate) enum From<'a> {
    /// Standard input.
    Stdin,
    /// A file.
    File(&'a Path),
    /// Memory.
    Bytes(Vec<u8>),
}

/// What the reading thread hands over.
pub(crate) type Chunk = io::Result<Vec<Item>>;

/// Records that are read ahead.
pub(crate) struct Source {
    /// Chunks of records.
    pub chunks: mpsc::Receiver<Chunk>,
    /// Empty lines and comments passed over so far.
    pub skipped: Arc<AtomicU64>,
    /// The first row, where it names the columns.
    pub header_row: Option<Vec<u8>>,
    /// The size of the input, where it is known.
    pub size: Option<u64>,
}

impl Source {
    /// Begins to read at a place.
    ///
    /// # Errors
    /// 13 where the input cannot be opened or sought, 2 where its first row lacks a column.
    pub(crate) fn start(from: &From<'_>, parsing: &Parsing, place: Place) -> Result<Self> {
        let name = match from {
            From::Stdin => "standard input".to_owned(),
            From::File(path) => path.display().to_string(),
            From::Bytes(_) => "memory".to_owned(),
        };
        let failed = |what: &str, error: &io::Error| -> crate::commands::failure::Stop {
            if error.kind() == io::ErrorKind::InvalidInput && what == "read" {
                return Failure::usage(format!("{name}: {error}")).into();
            }
            Failure::io(format_args!("{what} {name}"), error).into()
        };
        let (input, size) = open(from, place.offset).map_err(|error| failed("open", &error))?;
        let (reader, header_row) = match parsing {
            Parsing::Table(options) => {
                let (table, header_row) =
                    table(from, input, options, place).map_err(|error| failed("read", &error))?;
                (table, header_row)
            }
            other => (reader(input, other, place).map_err(|error| failed("read", &error))?, None),
        };
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let skipped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&skipped);
        // Not joined: a thread that waits for standard input ends with the process.
        std::thread::Builder::new()
            .name("batch-put read".to_owned())
            .spawn(move || read_ahead(reader, &sender, &counter))
            .map_err(|error| Failure::io("start the reading thread", &error))?;
        Ok(Self { chunks, skipped, header_row, size })
    }
}

fn open(from: &From<'_>, offset: u64) -> io::Result<(Input, Option<u64>)> {
    match from {
        From::Stdin => Ok((Box::new(BufReader::with_capacity(BUFFER_BYTES, io::stdin())), None)),
        From::File(path) => {
            let mut file = File::open(path)?;
            let metadata = file.metadata()?;
            if metadata.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            let size = metadata.is_file().then_some(metadata.len());
            if offset > 0 {
                file.seek(SeekFrom::Start(offset))?;
            }
            Ok((Box::new(BufReader::with_capacity(BUFFER_BYTES, file)), size))
        }
        From::Bytes(bytes) => {
            let size = u64::try_from(bytes.len()).ok();
            let mut cursor = Cursor::new(bytes.clone());
            cursor.set_position(offset);
            Ok((Box::new(cursor), size))
        }
    }
}

/// A reader, and the first row where that names the columns.
type WithHeader = (Box<dyn Reader>, Option<Vec<u8>>);

/// A table reads its first row at the start of the input, wherever it goes on then.
fn table(
    from: &From<'_>,
    input: Input,
    options: &TableOptions,
    place: Place,
) -> io::Result<WithHeader> {
    let (first, later) =
        if place.offset > 0 { (open(from, 0)?.0, Some(input)) } else { (input, None) };
    let table = Table::new(Scanner::new(first, Place::default())?, options.clone())?;
    let header_row = table.header_row().map(<[u8]>::to_vec);
    let table = match later {
        Some(input) => table.at(Scanner::new(input, place)?),
        None => table,
    };
    Ok((Box::new(table), header_row))
}

fn reader(input: Input, parsing: &Parsing, place: Place) -> io::Result<Box<dyn Reader>> {
    let scanner = Scanner::new(input, place)?;
    Ok(match parsing {
        Parsing::Delimited { separator, terminator, is_escaped, comment } => Box::new(
            Delimited::new(scanner, separator.clone(), *terminator)
                .escaped(*is_escaped)
                .comment(comment.clone()),
        ),
        Parsing::Table(options) => Box::new(Table::new(scanner, options.clone())?),
        Parsing::Jsonl { comment } => Box::new(JsonLines::new(scanner, comment.clone())),
        Parsing::Frames => Box::new(Frames::new(scanner)),
    })
}

/// Ends when the input does, fails, or when nobody takes the chunks any more.
fn read_ahead(mut reader: Box<dyn Reader>, sender: &mpsc::Sender<Chunk>, skipped: &AtomicU64) {
    loop {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        let ended = loop {
            match reader.next() {
                Ok(Some(item)) => {
                    bytes += item.raw.len() + size_of::<Item>();
                    chunk.push(item);
                    if bytes >= CHUNK_BYTES {
                        break None;
                    }
                }
                Ok(None) => break Some(None),
                Err(error) => break Some(Some(error)),
            }
        };
        skipped.store(reader.skipped(), Ordering::Relaxed);
        let is_sent = chunk.is_empty() || sender.blocking_send(Ok(chunk)).is_ok();
        match ended {
            None if is_sent => {}
            Some(Some(error)) if is_sent => {
                // Whoever took the chunks may have gone meanwhile.
                let _sent = sender.blocking_send(Err(error));
                return;
            }
            _ => return,
        }
    }
}
