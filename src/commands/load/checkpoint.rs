//! How far a run has come, on disk, so that another can go on.
//!
//! The file names, for each lane, the first byte that is not acknowledged and the sequence it is sent
//! under. It is written whole (temporary file, sync, rename, sync of the directory), and before any
//! lane is further ahead of it than a server remembers of a producer.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use chrono::{DateTime, SecondsFormat, Utc};
use prkdb_types::crc32c;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{read::Place, sticky::Sticky};
use crate::commands::failure::{Failure, Result};

const SCHEMA: &str = "prkdb.batch-checkpoint/1";
/// How much of the start and of the end of the prefix is compared.
const SAMPLE_BYTES: u64 = 64 << 10;
/// The most a checkpoint may hold; thousands of lanes take less.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Its schema.
    pub schema: String,
    /// The input, as an absolute path.
    pub input: String,
    /// Its size then.
    pub size: u64,
    /// When it was changed last, then.
    pub mtime: String,
    /// Checksums of the start and the end of what was read.
    pub fingerprint: String,
    /// Everything before it is acknowledged or rejected.
    pub byte_offset: u64,
    /// Records before it.
    pub record: u64,
    /// Lines before it.
    pub line: u64,
    /// Records written so far.
    pub put: u64,
    /// Records rejected so far.
    pub rejected: u64,
    /// Bytes of keys, values and headers written so far.
    pub bytes: u64,
    /// Under which name records are sent.
    pub producer: Producer,
    /// How far rejected records are written.
    pub rejects: Rejected,
    /// Where records go.
    pub target: Target,
    /// How records are read and cut.
    pub args: Value,
}

/// The producer of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Producer {
    /// Its id.
    pub id: u64,
    /// The time of all records without their own: a repeat must be the same bytes.
    pub timestamp_ms: i64,
    /// Where records without a key went before the one at the byte offset.
    #[serde(default)]
    pub sticky: Sticky,
    /// Where each partition stands.
    pub lanes: Vec<LaneState>,
}

/// Where a partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LaneState {
    /// Its number.
    pub partition: u32,
    /// Its records before it are acknowledged.
    pub byte_offset: u64,
    /// The sequence of its next record.
    pub sequence: u32,
    /// The first and the last offset of its records.
    #[serde(default)]
    pub offsets: Option<(u64, u64)>,
}

/// How far rejected records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rejected {
    /// Rejected records before it are counted.
    pub byte_offset: u64,
    /// The length of the file of records.
    pub bytes: u64,
    /// The length of the file of reasons.
    pub reasons_bytes: u64,
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    /// The cluster.
    pub cluster_id: String,
    /// The collection's name.
    pub collection: String,
    /// The collection's id: another one of the same name is another.
    pub collection_id: u32,
    /// Its partitions.
    pub partitions: u32,
    /// How keys find their partition.
    pub partitioner: i32,
    /// The most records in a batch.
    pub batch_records: u32,
    /// The most bytes in a batch.
    pub batch_bytes: u64,
}

impl State {
    /// Returns the state of a run that begins.
    pub(crate) fn new(input: &Input, target: Target, args: Value, timestamp_ms: i64) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            input: input.path.display().to_string(),
            size: input.size,
            mtime: input.mtime.clone(),
            fingerprint: String::new(),
            byte_offset: 0,
            record: 0,
            line: 0,
            put: 0,
            rejected: 0,
            bytes: 0,
            producer: Producer {
                id: 0,
                timestamp_ms,
                sticky: Sticky::default(),
                lanes: Vec::new(),
            },
            rejects: Rejected::default(),
            target,
            args,
        }
    }

    /// Reads the content of a checkpoint.
    pub(super) fn parse(path: &Path, content: &[u8]) -> Result<Self> {
        let state: Self = serde_json::from_slice(content).map_err(|error| {
            Failure::checkpoint_mismatch(format!("checkpoint {}: {error}", path.display()))
        })?;
        if state.schema != SCHEMA {
            let message = format!("checkpoint {}: schema '{}'", path.display(), state.schema);
            return Err(Failure::checkpoint_mismatch(message).into());
        }
        Ok(state)
    }

    /// Returns where to go on.
    pub(crate) fn place(&self) -> Place {
        Place { offset: self.byte_offset, record: self.record, line: self.line }
    }

    /// Refuses to go on with something else.
    ///
    /// # Errors
    /// 7, naming what differs; 13 where the input cannot be read.
    pub(crate) fn check(&self, input: &Input, target: &Target, args: &Value) -> Result {
        let differs = |what: &str, then: &dyn std::fmt::Display, now: &dyn std::fmt::Display| {
            let message = format!("checkpoint: {what} was {then}, is {now}");
            Err(Failure::checkpoint_mismatch(message).into())
        };
        let path = input.path.display().to_string();
        if self.input != path {
            return differs("the input", &self.input, &path);
        }
        if self.args != *args {
            for (name, then) in self.args.as_object().into_iter().flatten() {
                let now = args.get(name).cloned().unwrap_or_default();
                if *then != now {
                    return differs(name, then, &now);
                }
            }
            return differs("the command line", &self.args, args);
        }
        if self.target != *target {
            let (then, now) = (&self.target, target);
            if then.cluster_id != now.cluster_id {
                return differs("the cluster", &then.cluster_id, &now.cluster_id);
            }
            if (&then.collection, then.collection_id) != (&now.collection, now.collection_id) {
                let shown = |target: &Target| {
                    format!("{} (id {})", target.collection, target.collection_id)
                };
                return differs("the collection", &shown(then), &shown(now));
            }
            if then.partitions != now.partitions {
                return differs("the number of partitions", &then.partitions, &now.partitions);
            }
            return differs(
                "the partitioner or a limit",
                &format!("{then:?}"),
                &format!("{now:?}"),
            );
        }
        let fingerprint = input.fingerprint(self.byte_offset)?;
        if self.fingerprint != fingerprint {
            let what = format!("the part of {path} that was read has changed");
            return Err(Failure::checkpoint_mismatch(format!("checkpoint: {what}"))
                .hint("begin anew without --resume")
                .into());
        }
        Ok(())
    }
}

/// The file that is read.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    path: PathBuf,
    size: u64,
    mtime: String,
}

impl Input {
    /// Describes a file.
    ///
    /// # Errors
    /// 13 where it cannot be read.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let failed =
            |error: io::Error| Failure::io(format_args!("open {}", path.display()), &error);
        let path = fs::canonicalize(path).map_err(failed)?;
        let metadata = fs::metadata(&path).map_err(failed)?;
        let mtime = metadata.modified().map_err(failed)?;
        let mtime = DateTime::<Utc>::from(mtime).to_rfc3339_opts(SecondsFormat::Millis, true);
        Ok(Self { size: metadata.len(), mtime, path })
    }

    /// Returns checksums of the first and the last part before `end`.
    ///
    /// # Errors
    /// 13.
    pub(crate) fn fingerprint(&self, end: u64) -> Result<String> {
        let sample = || -> io::Result<String> {
            let mut file = File::open(&self.path)?;
            let first = checksum(&mut file, 0, end.min(SAMPLE_BYTES))?;
            let last =
                checksum(&mut file, end.saturating_sub(SAMPLE_BYTES), end.min(SAMPLE_BYTES))?;
            Ok(format!("{first:08x}-{last:08x}"))
        };
        let failed = |error| Failure::io(format_args!("read {}", self.path.display()), &error);
        sample().map_err(|error| failed(error).into())
    }
}

fn checksum(file: &mut File, start: u64, length: u64) -> io::Result<u32> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(crc32c(&bytes))
}

/// Reads a checkpoint.
///
/// # Errors
/// 13 where it cannot be read, 7 where it is none.
pub(crate) fn read(path: &Path) -> Result<State> {
    State::parse(path, &crate::commands::input::file(path, FILE_BYTES_MAX)?)
}

/// Writes a checkpoint: a crash leaves the old one or the new one.
///
/// # Errors
/// 13.
pub(crate) fn write(path: &Path, state: &State) -> Result {
    let save = || -> io::Result<()> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(".prkdb-").tempfile_in(dir)?;
        serde_json::to_writer(&mut file, state)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(dir)?.sync_all()
    };
    save().map_err(|error| Failure::io(format_args!("write {}", path.display()), &error).into())
}

/// Removes the checkpoint of a finished run.
///
/// # Errors
/// 13.
pub(crate) fn remove(path: &Path) -> Result {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::io(format_args!("remove {}", path.display()), &error).into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::failure::Stop;

    fn target() -> Target {
        Target {
            cluster_id: "7f3a".into(),
            collection: "default".into(),
            collection_id: 1,
            partitions: 3,
            partitioner: 1,
            batch_records: 1000,
            batch_bytes: 1 << 20,
        }
    }

    fn refusal(result: Result) -> String {
        let Err(Stop::Failed(failure)) = result else { panic!("accepted") };
        assert_eq!(failure.exit(), 7);
        failure.message()
    }

    #[test]
    fn what_is_written_is_read_back_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let (data, path) = (dir.path().join("d.txt"), dir.path().join("c.json"));
        fs::write(&data, b"a,1\nb,2\n").unwrap();
        let input = Input::of(&data).unwrap();
        let args = serde_json::json!({"batch_size": 1000});
        let mut state = State::new(&input, target(), args.clone(), 7);
        state.byte_offset = 4;
        state.fingerprint = input.fingerprint(4).unwrap();
        write(&path, &state).unwrap();
        assert_eq!(read(&path).unwrap(), state);
        state.check(&input, &target(), &args).unwrap();

        let other = Target { partitions: 4, ..target() };
        let message = refusal(state.check(&input, &other, &args));
        assert_eq!(message, "checkpoint: the number of partitions was 3, is 4");
        let other = Target { cluster_id: "0000".into(), ..target() };
        assert!(refusal(state.check(&input, &other, &args)).contains("cluster"));
        let message =
            refusal(state.check(&input, &target(), &serde_json::json!({"batch_size": 1})));
        assert_eq!(message, "checkpoint: batch_size was 1000, is 1");

        fs::write(&data, b"a,9\nb,2\n").unwrap();
        assert!(refusal(state.check(&input, &target(), &args)).contains("has changed"));
    }

    #[test]
    fn what_is_behind_the_prefix_may_change() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("d.txt");
        fs::write(&data, b"a,1\nbad\n").unwrap();
        let before = Input::of(&data).unwrap().fingerprint(4).unwrap();
        fs::write(&data, b"a,1\nb,2\nc,3\n").unwrap();
        assert_eq!(Input::of(&data).unwrap().fingerprint(4).unwrap(), before);
    }

    #[test]
    fn nonsense_is_no_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.json");
        fs::write(&path, b"{}").unwrap();
        refusal(read(&path).map(|_| ()));
    }
}
