//! The file `IDENTITY`: who a data directory belongs to.
//!
//! One line: a JSON object, a space, the CRC32C of the object's bytes as eight hex digits, a newline.
//! The object's `format` is looked at before its other fields, so that a line of a newer version is
//! told from a damaged one. The file is written once and never changed.

use std::{fmt, io::IoSlice, path::Path};

use crc_fast::{CrcAlgorithm, checksum};
use serde::{Deserialize, Serialize};

use super::{DirError, io_error, sync_name};
use crate::storage::disk::{Access, Disk};

/// The file's name.
pub const IDENTITY: &str = "IDENTITY";

/// Where the line is written before it gets its name.
pub(super) const IDENTITY_TEMP: &str = "IDENTITY.tmp";

/// The format this version writes, of the whole directory.
pub const FORMAT: u32 = 1;

/// No line comes near it; what is longer was not written by us.
const LINE_BYTES_MAX: usize = 4096;

/// ` `, eight hex digits, `\n`.
const TAIL_BYTES: usize = 10;

/// What uses a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A server.
    Node,
    /// A program with the engine inside.
    Embedded,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Embedded => "embedded",
        })
    }
}

/// The id of a cluster, drawn when its first directory is created. Shown as 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Whose directory it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The node in it.
    pub node_id: u64,
    /// Drawn when the directory is created: tells two directories of one node id apart.
    pub incarnation: u64,
    /// What uses it.
    pub kind: Kind,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: i64,
}

/// The JSON object, field by field in the order they are written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    format: u32,
    kind: Kind,
    cluster_id: String,
    node_id: u64,
    incarnation: String,
    created_ms: i64,
}

/// What every version's object has.
#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

impl Identity {
    /// Reads the file, which exists.
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Result<Self, DirError> {
        let path = dir.join(IDENTITY);
        let failed = |source| io_error("read", &path, source);
        let file = disk.open(&path, Access::Read).map_err(failed)?;
        let mut line = vec![0; LINE_BYTES_MAX];
        let len = file.read_at(0, &mut line).map_err(failed)?;
        line.truncate(len);
        Self::parse(&path, &line)
    }

    /// Writes the file: it exists whole or not at all, whenever the power fails.
    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), DirError> {
        let (temp, path) = (dir.join(IDENTITY_TEMP), dir.join(IDENTITY));
        let failed = |source| io_error("write", &temp, source);
        let file = disk.create(&temp).map_err(failed)?;
        file.write_at(0, &[IoSlice::new(self.line()?.as_bytes())]).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        disk.rename(&temp, &path).map_err(|source| io_error("create", &path, source))?;
        sync_name(disk, &path)
    }

    pub(in crate::storage) fn line(&self) -> Result<String, DirError> {
        let object = serde_json::to_string(&Object {
            format: FORMAT,
            kind: self.kind,
            cluster_id: self.cluster_id.to_string(),
            node_id: self.node_id,
            incarnation: format!("{:016x}", self.incarnation),
            created_ms: self.created_ms,
        })
        .map_err(|source| DirError::Encode { source })?;
        let crc = checksum(CrcAlgorithm::Crc32Iscsi, object.as_bytes());
        Ok(format!("{object} {crc:08x}\n"))
    }

    /// Reads a line.
    pub(in crate::storage) fn parse(path: &Path, line: &[u8]) -> Result<Self, DirError> {
        let corrupt = |position: usize, expected: &str, found: String| DirError::Corrupt {
            path: path.into(),
            position,
            expected: expected.into(),
            found,
        };
        let object_len = line.len().saturating_sub(TAIL_BYTES);
        let (object, tail) = line.split_at(object_len);
        let crc = checksum(CrcAlgorithm::Crc32Iscsi, object);
        let expected = format!(" {crc:08x}\n");
        if tail != expected.as_bytes() {
            let found = format!("{:?}", tail.escape_ascii().to_string());
            return Err(corrupt(object_len, &format!("checksum {crc:08x}"), found));
        }
        // The checksum holds from here on: what is wrong was written so.
        let not_json = |error: &serde_json::Error| {
            corrupt(error.column().saturating_sub(1), "an identity", error.to_string())
        };
        let versioned: Versioned =
            serde_json::from_slice(object).map_err(|error| not_json(&error))?;
        if versioned.format > FORMAT {
            return Err(DirError::NewerFormat { path: path.into(), format: versioned.format });
        }
        if versioned.format < FORMAT {
            return Err(corrupt(0, "format 1", format!("format {}", versioned.format)));
        }
        let object: Object = serde_json::from_slice(object).map_err(|error| not_json(&error))?;
        let cluster_id = parse_hex(&object.cluster_id, 32)
            .ok_or_else(|| corrupt(0, "cluster_id of 32 hex digits", object.cluster_id.clone()))?;
        let incarnation = parse_hex(&object.incarnation, 16)
            .and_then(|number| u64::try_from(number).ok())
            .ok_or_else(|| {
                corrupt(0, "incarnation of 16 hex digits", object.incarnation.clone())
            })?;
        Ok(Self {
            cluster_id: ClusterId(cluster_id.to_be_bytes()),
            node_id: object.node_id,
            incarnation,
            kind: object.kind,
            created_ms: object.created_ms,
        })
    }
}

/// Returns the number of exactly so many lower-case hex digits.
fn parse_hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == digits && text.bytes().all(is_hex))
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            cluster_id: ClusterId([0x0a; 16]),
            node_id: 3,
            incarnation: 0xff,
            kind: Kind::Node,
            created_ms: 1_700_000_000_000,
        }
    }

    fn parse(line: &[u8]) -> Result<Identity, DirError> {
        Identity::parse(Path::new("d/IDENTITY"), line)
    }

    fn sealed(object: &str) -> Vec<u8> {
        let crc = checksum(CrcAlgorithm::Crc32Iscsi, object.as_bytes());
        format!("{object} {crc:08x}\n").into_bytes()
    }

    #[test]
    fn the_line_is_as_documented_and_reads_back() {
        let line = identity().line().unwrap();
        let object = concat!(
            r#"{"format":1,"kind":"node","cluster_id":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a","#,
            r#""node_id":3,"incarnation":"00000000000000ff","created_ms":1700000000000}"#
        );
        assert_eq!(line.as_bytes(), sealed(object));
        assert_eq!(parse(line.as_bytes()).unwrap(), identity());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_damage() {
        let line = identity().line().unwrap().into_bytes();
        for at in 0..line.len() {
            assert!(matches!(parse(&line[..at]), Err(DirError::Corrupt { .. })), "cut at {at}");
            for bit in 0..8 {
                let mut damaged = line.clone();
                damaged[at] ^= 1 << bit;
                assert!(matches!(parse(&damaged), Err(DirError::Corrupt { .. })), "{at}.{bit}");
            }
        }
        assert!(matches!(parse(&[line, vec![b'x']].concat()), Err(DirError::Corrupt { .. })));
    }

    #[test]
    fn damage_names_file_position_expected_and_found() {
        let mut line = identity().line().unwrap().into_bytes();
        let crc_at = line.len() - 10;
        line[5] ^= 1;
        let text = parse(&line).unwrap_err().to_string();
        assert!(text.starts_with(&format!("d/IDENTITY is damaged at {crc_at}: expected checksum")));
    }

    #[test]
    fn a_newer_format_is_told_from_damage_whatever_else_it_holds() {
        assert!(matches!(
            parse(&sealed(r#"{"format":2,"color":"blue"}"#)),
            Err(DirError::NewerFormat { format: 2, .. })
        ));
    }

    #[test]
    fn wrong_fields_under_a_right_checksum_are_refused() {
        let good = identity().line().unwrap();
        let object = &good[..good.len() - TAIL_BYTES];
        for (from, to) in [
            ("\"format\":1", "\"format\":0"),
            ("\"node\"", "\"Node\""),
            ("00000000000000ff", "0000000000000ff"),
            ("00000000000000ff", "00000000000000FF"),
            ("0a0a", "+a0a"),
            ("\"node_id\":3", "\"node_id\":-3"),
            ("\"node_id\":3", "\"node_id\":3,\"node_id\":3"),
            ("\"node_id\":3", "\"node_id\":3,\"more\":3"),
            ("{", "[{"),
        ] {
            let changed = object.replacen(from, to, 1);
            assert_ne!(changed, object);
            assert!(matches!(parse(&sealed(&changed)), Err(DirError::Corrupt { .. })), "{to}");
        }
    }
}
