//! What is left of a simulated disk after a power cut.
//!
//! Each pending change survives or is lost by itself, within an order that file systems keep: the
//! changes of one name, and the changes of one file's length and blocks, survive only together with
//! those before them. Sectors are free of each other, so that of several versions any may be left.

use std::{collections::BTreeSet, ffi::OsString, ops::Range, sync::Arc};

use super::{
    SimDisk,
    state::{Change, FileChange, Inode, Node, ROOT, State},
};
use crate::storage::clock::{Rng, SeededRng};

/// Which of the unsynced changes a power cut loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Everything that was written survives.
    None,
    /// Nothing that was not synced survives.
    All,
    /// Of the unsynced changes this one survives, with the earlier ones it rests on.
    Only(usize),
    /// Of the unsynced changes this one is lost, with the later ones that rest on it.
    AllBut(usize),
    /// Each survives by the fall of a coin; the seed decides the coins and how they are weighted.
    Coins(u64),
}

impl Loss {
    /// Returns every loss there is for this many unsynced changes, and one draw of coins per seed.
    pub fn every(unsynced_count: usize, seeds: Range<u64>) -> impl Iterator<Item = Self> {
        let coins = if unsynced_count == 0 { 0..0 } else { seeds };
        [Self::None, Self::All]
            .into_iter()
            .take(if unsynced_count == 0 { 1 } else { 2 })
            .chain((0..unsynced_count).map(Self::Only))
            .chain((0..unsynced_count).map(Self::AllBut))
            .chain(coins.map(Self::Coins))
    }
}

/// A simulated disk at one moment: what is durable, and what was not synced. A clone shares all pages.
#[derive(Clone, Debug)]
pub struct Image {
    pub(super) boundary: u64,
    pub(super) state: State,
}

impl Image {
    /// Returns how many mutating calls had been made.
    pub fn boundary(&self) -> u64 {
        self.boundary
    }

    /// Returns how many single changes a power cut at this moment can lose.
    pub fn unsynced_count(&self) -> usize {
        self.state.pending.len()
    }

    /// Returns the disk as a power cut at this moment leaves it. Nothing on it is unsynced.
    pub fn crash(&self, loss: Loss) -> SimDisk {
        SimDisk::from_state(self.state.crash(loss))
    }

    /// Returns the disk as the process saw it, with the unsynced changes still unsynced.
    pub fn to_disk(&self) -> SimDisk {
        SimDisk::from_state(self.state.clone())
    }
}

/// What must survive in order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Chain {
    Blocks(Inode),
    Name(Inode, OsString),
}

fn chains(change: &Change) -> Vec<Chain> {
    match change {
        Change::File { change: FileChange::Sector(_), .. } => Vec::new(),
        Change::File { inode, .. } => vec![Chain::Blocks(*inode)],
        Change::Names(names) => {
            names.entries.iter().map(|(dir, name, _)| Chain::Name(*dir, name.clone())).collect()
        }
    }
}

impl State {
    pub(super) fn crash(&self, loss: Loss) -> State {
        let mut state = self.clone();
        let pending = std::mem::take(&mut state.pending);
        if loss == Loss::None {
            state.believe_what_is_seen();
        } else {
            let survivors = survivors(&pending, loss);
            for (change, _) in pending.iter().zip(survivors).filter(|(_, survives)| *survives) {
                state.make_durable(change);
            }
        }
        state.forget_what_is_not_durable();
        state
    }

    fn believe_what_is_seen(&mut self) {
        for node in self.nodes.values_mut() {
            match node {
                Node::File { durable, seen } => *durable = Arc::clone(seen),
                Node::Dir { durable, seen } => *durable = Arc::clone(seen),
            }
        }
    }

    fn make_durable(&mut self, change: &Change) {
        match change {
            Change::Names(names) => self.apply_names(names),
            Change::File { inode, change, .. } => {
                if let Some(Node::File { durable, .. }) = self.nodes.get_mut(inode) {
                    change.apply(Arc::make_mut(durable));
                }
            }
        }
    }

    fn forget_what_is_not_durable(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(dir) = open.pop() {
            if let Some(Node::Dir { durable, .. }) = self.nodes.get(&dir) {
                open.extend(durable.values().copied().filter(|inode| reached.insert(*inode)));
            }
        }
        self.nodes.retain(|inode, _| reached.contains(inode));
        self.used = 0;
        for node in self.nodes.values_mut() {
            match node {
                Node::File { durable, seen } => {
                    *seen = Arc::clone(durable);
                    self.used += seen.used();
                }
                Node::Dir { durable, seen } => *seen = Arc::clone(durable),
            }
        }
    }
}

fn survivors(pending: &[Change], loss: Loss) -> Vec<bool> {
    match loss {
        Loss::None => vec![true; pending.len()],
        Loss::All => vec![false; pending.len()],
        Loss::Only(index) => with_what_it_rests_on(pending, index),
        Loss::AllBut(index) => in_order(pending, |at| at != index),
        Loss::Coins(seed) => {
            let mut rng = SeededRng::new(seed);
            // Fair coins alone would hardly ever leave nearly all or nearly nothing of a long list.
            let survivors_of_8 = match rng.next_u64() % 4 {
                0 => 1,
                1 => 7,
                _ => 4,
            };
            in_order(pending, |_| rng.next_u64() >> 61 < survivors_of_8)
        }
    }
}

fn with_what_it_rests_on(pending: &[Change], index: usize) -> Vec<bool> {
    let mut survives = Vec::with_capacity(pending.len());
    let mut wanted = BTreeSet::new();
    for (at, change) in pending.iter().enumerate().rev() {
        let chains = chains(change);
        let is_wanted = at == index || chains.iter().any(|chain| wanted.contains(chain));
        if is_wanted {
            wanted.extend(chains);
        }
        survives.push(is_wanted);
    }
    survives.reverse();
    survives
}

fn in_order(pending: &[Change], mut is_chosen: impl FnMut(usize) -> bool) -> Vec<bool> {
    let mut broken = BTreeSet::new();
    let mut survives = Vec::with_capacity(pending.len());
    for (at, change) in pending.iter().enumerate() {
        let is_chosen = is_chosen(at);
        let chains = chains(change);
        let is_whole = is_chosen && !chains.iter().any(|chain| broken.contains(chain));
        if !is_whole {
            broken.extend(chains);
        }
        survives.push(is_whole);
    }
    survives
}
