//! The harness sees what it is there to see.

use std::{panic::catch_unwind, time::Duration};

use prkdb::storage::bug::{Bug, plant};

use super::{
    corpus::mutate,
    harness::{Memory, Target, check},
    targets,
};

/// Reads a length and makes room before it looks whether so much is there.
fn believes(data: &[u8]) {
    if let [b'P', length, rest @ ..] = data {
        let mut room: Vec<u8> = Vec::with_capacity(usize::from(*length) << 20);
        room.extend_from_slice(rest.get(..usize::from(*length)).unwrap_or_default());
        assert!(room.len() <= data.len());
    }
}

fn seeds() -> Vec<Vec<u8>> {
    vec![b"P\0".to_vec()]
}

#[test]
fn planted_panicking_decoder_is_caught() {
    let target = targets::named("catalogue").unwrap();
    assert_eq!(mutate(target, 2000, Duration::from_secs(20)), 2000);
    let _planted = plant(Bug::LengthBelieved);
    let caught = catch_unwind(|| mutate(target, 2000, Duration::from_secs(20)));
    assert!(caught.is_err(), "the mutations must find a length that is not there");
}

#[test]
fn planted_greedy_decoder_is_caught() {
    let memory = Memory::DECODER;
    let target = Target { name: "greedy", run: believes, seeds, memory };
    seeds().iter().for_each(|seed| check(&target, seed));
    let caught = catch_unwind(|| check(&target, b"P\xffhello"));
    assert!(caught.is_err(), "255 MiB for 7 bytes must be seen");
}
