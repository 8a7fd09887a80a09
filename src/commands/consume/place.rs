//! Places in partitions as a command line names them.

use std::str::FromStr;

use prkdb_client::{StartAt, wire};

use crate::commands::load::read::{digits, moment};

/// A place in each partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The first record there is.
    Earliest,
    /// Behind the last one.
    Latest,
    /// An offset.
    Offset(u64),
    /// The first record with this time or a later one, in milliseconds since 1970.
    Time(i64),
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if let Some(time) = text.strip_prefix('@') {
            let is_number = !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit());
            let read = if is_number {
                digits(time).filter(|_| matches!(time.len(), 10 | 13))
            } else {
                moment(time)
            };
            return read.map(Self::Time).ok_or_else(|| {
                "no time; write @2013-06-01T10:00:00Z, @2013-06-01, or @ and 10 or 13 digits".into()
            });
        }
        text.parse().map(Self::Offset).map_err(|_| "not earliest, latest, OFFSET or @TIME".into())
    }
}

impl At {
    /// Reads a place where a partition ends: one that is not there from the beginning.
    pub(crate) fn end(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(Self::Earliest) | Err(_) if !text.starts_with('@') => {
                Err("not latest, OFFSET or @TIME".to_owned())
            }
            read => read,
        }
    }

    /// Returns it for the client's consumer.
    pub(crate) fn start(self) -> StartAt {
        match self {
            Self::Earliest => StartAt::Earliest,
            Self::Latest => StartAt::Latest,
            Self::Offset(offset) => StartAt::Offset(offset),
            Self::Time(ms) => StartAt::TimestampMs(ms),
        }
    }

    /// Returns it for the wire.
    pub(crate) fn position(self) -> wire::Position {
        use wire::position::Place;
        let place = match self {
            Self::Earliest => Place::Earliest(true),
            Self::Latest => Place::Latest(true),
            Self::Offset(offset) => Place::Offset(offset),
            Self::Time(ms) => Place::TimestampMs(ms),
        };
        wire::Position { place: Some(place) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_words_offsets_and_times() {
        let june = At::Time(1_370_044_800_000);
        for (text, at) in [
            ("earliest", At::Earliest),
            ("latest", At::Latest),
            ("0", At::Offset(0)),
            ("18446744073709551615", At::Offset(u64::MAX)),
            ("@2013-06-01", june),
            ("@2013-06-01T00:00:00", june),
            ("@2013-06-01 02:00:00+02:00", june),
            ("@1370044800", june),
            ("@1370044800000", june),
        ] {
            assert_eq!(text.parse(), Ok(at), "{text}");
        }
        for text in
            ["", "-1", "@", "@1", "@1370044800000000", "@soon", "first", "18446744073709551616"]
        {
            assert!(text.parse::<At>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_end_is_not_the_beginning() {
        assert_eq!(At::end("latest"), Ok(At::Latest));
        assert_eq!(At::end("7"), Ok(At::Offset(7)));
        assert!(At::end("earliest").is_err());
        assert!(At::end("@soon").unwrap_err().contains("no time"));
    }
}
