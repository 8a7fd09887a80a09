//! The input as a stream of parsed records: a thread reads and parses ahead, in bounded memory.

use std::{
    fs::{self, File},
    io::{self, BufReader, Cursor, Read, Seek as _, SeekFrom},
    os::fd::AsFd as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::mpsc;

use super::{
    job::Job,
    parsing::Parsing,
    read::{Input, Item, Place, Reader, Scanner, Shape, Table, TableOptions},
};
use crate::commands::failure::{Failure, Result, Stop};

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
    /// Whether records come when they come, as by a pipe.
    pub is_live: bool,
}

impl Source {
    /// Begins to read at a place.
    ///
    /// # Errors
    /// 13 where the input cannot be opened or sought, 2 where its first row lacks a column.
    pub(crate) fn start(from: &From<'_>, job: &Job<'_>, place: Place) -> Result<Self> {
        let name = match from {
            From::Stdin => "standard input".to_owned(),
            From::File(path) => path.display().to_string(),
            From::Bytes(_) => "memory".to_owned(),
        };
        let failed = |what: &str, error: &io::Error| -> Stop {
            if error.kind() == io::ErrorKind::InvalidInput && what == "read" {
                return Failure::usage(format!("{name}: {error}")).into();
            }
            Failure::io(format_args!("{what} {name}"), error).into()
        };
        let (input, size) = open(from, place.offset).map_err(|error| failed("open", &error))?;
        let (reader, header_row) = match &job.parsing {
            Parsing::Table(options) => table(from, input, options, place),
            other => other.reader(input, place).map(|reader| (reader, None)),
        }
        .map_err(|error| failed("read", &error))?;
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let skipped = Arc::new(AtomicU64::new(0));
        let is_live = size.is_none();
        let ahead = Ahead {
            reader,
            // The thread outlives what it is started from.
            shape: job.shape.clone(),
            sender,
            skipped: Arc::clone(&skipped),
            is_live,
        };
        // Not joined: a thread that waits for standard input ends with the process.
        std::thread::Builder::new()
            .name(format!("{} read", job.kind.command()))
            .spawn(move || ahead.run())
            .map_err(|error| Failure::io("start the reading thread", &error))?;
        Ok(Self { chunks, skipped, header_row, size, is_live })
    }
}

fn open(from: &From<'_>, offset: u64) -> io::Result<(Input, Option<u64>)> {
    match from {
        From::Stdin => Ok((buffered(io::stdin()), stdin_size())),
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
            Ok((buffered(file), size))
        }
        From::Bytes(bytes) => {
            let size = u64::try_from(bytes.len()).ok();
            let mut cursor = Cursor::new(bytes.clone());
            cursor.set_position(offset);
            Ok((buffered(cursor), size))
        }
    }
}

fn buffered(input: impl Read + Send + 'static) -> Input {
    BufReader::with_capacity(BUFFER_BYTES, Box::new(input))
}

/// The size of standard input, where it is a file.
fn stdin_size() -> Option<u64> {
    let file = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
    file.metadata().ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len())
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

/// What the reading thread works with.
struct Ahead {
    reader: Box<dyn Reader>,
    shape: Shape,
    sender: mpsc::Sender<Chunk>,
    skipped: Arc<AtomicU64>,
    is_live: bool,
}

/// What ended a chunk.
enum Ended {
    /// It is long enough, or nothing more is there yet.
    Chunk,
    /// The input.
    Input,
    /// An error of the input.
    Error(io::Error),
}

impl Ahead {
    /// Ends when the input does, fails, or when nobody takes the chunks any more.
    fn run(mut self) {
        loop {
            let (chunk, ended) = self.chunk();
            self.skipped.store(self.reader.skipped(), Ordering::Relaxed);
            let is_sent = chunk.is_empty() || self.sender.blocking_send(Ok(chunk)).is_ok();
            match ended {
                Ended::Chunk if is_sent => {}
                Ended::Error(error) if is_sent => {
                    // Whoever took the chunks may have gone meanwhile.
                    let _sent = self.sender.blocking_send(Err(error));
                    return;
                }
                _ => return,
            }
        }
    }

    fn chunk(&mut self) -> (Vec<Item>, Ended) {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        loop {
            match self.reader.next() {
                Ok(Some(mut item)) => {
                    item.content = item.content.and_then(|record| self.shape.apply(record));
                    bytes += item.raw.len() + size_of::<Item>();
                    chunk.push(item);
                    if bytes >= CHUNK_BYTES || (self.is_live && self.reader.may_wait()) {
                        return (chunk, Ended::Chunk);
                    }
                }
                Ok(None) => return (chunk, Ended::Input),
                Err(error) => return (chunk, Ended::Error(error)),
            }
        }
    }
}
