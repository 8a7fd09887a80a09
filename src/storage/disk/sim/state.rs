//! What a simulated disk holds at one moment: what is durable, what is seen, and the changes between.
//!
//! Every inode has two forms, the durable one and the one the process sees; the second is the first
//! with all pending changes. A sync moves changes from the list into the durable form. All maps are
//! ordered, so that nothing depends on addresses or hash seeds.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    io::{self, IoSlice},
    path::{Component, Path},
    sync::Arc,
};

use rustix::io::Errno;

use super::content::{Content, SECTOR_BYTES, Sector, byte_count, mix};

pub(super) type Inode = u64;
pub(super) const ROOT: Inode = 0;

pub(super) type Names = BTreeMap<OsString, Inode>;

/// A file or directory, as it is durable and as it is seen. Clones share.
#[derive(Clone, Debug)]
pub(super) enum Node {
    File { durable: Arc<Content>, seen: Arc<Content> },
    Dir { durable: Arc<Names>, seen: Arc<Names> },
}

impl Node {
    pub(super) fn empty_file() -> Self {
        Self::File { durable: Arc::default(), seen: Arc::default() }
    }

    pub(super) fn empty_dir() -> Self {
        Self::Dir { durable: Arc::default(), seen: Arc::default() }
    }
}

/// A change of a file that is not durable.
#[derive(Clone, Debug)]
pub(super) enum FileChange {
    Sector(Sector),
    /// A write made the file at least this long.
    Extend(usize),
    SetLen(usize),
    Allocate(usize, usize),
}

impl FileChange {
    pub(super) fn apply(&self, content: &mut Content) {
        match self {
            Self::Sector(sector) => content.apply_sector(sector),
            Self::Extend(len) => content.extend(*len),
            Self::SetLen(len) => content.set_len(*len),
            Self::Allocate(from, len) => content.allocate(*from, *len),
        }
    }
}

/// A change of names that is not durable. All its entries change in one step.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) entries: Vec<(Inode, OsString, Option<Inode>)>,
}

/// One thing that a power cut may lose.
#[derive(Clone, Debug)]
pub(super) enum Change {
    File {
        inode: Inode,
        change: FileChange,
        /// A sync that should have made it durable failed: no later sync does.
        stuck: bool,
    },
    /// Clones share the entries.
    Names(Arc<NameChange>),
}

/// The whole disk at one moment. A clone shares all pages.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) nodes: BTreeMap<Inode, Node>,
    pub(super) pending: Vec<Change>,
    pub(super) next_inode: Inode,
    pub(super) used: u64,
    pub(super) capacity: Option<u64>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::empty_dir())]),
            pending: Vec::new(),
            next_inode: ROOT + 1,
            used: 0,
            capacity: None,
        }
    }

    // Names.

    /// Returns what a path leads to.
    pub(super) fn find(&self, path: &Path) -> io::Result<Inode> {
        path.components().try_fold(ROOT, |at, component| match component {
            Component::RootDir | Component::CurDir => Ok(at),
            Component::Normal(name) => {
                self.names(at)?.get(name).copied().ok_or_else(|| Errno::NOENT.into())
            }
            Component::ParentDir | Component::Prefix(_) => Err(Errno::INVAL.into()),
        })
    }

    fn find_parent<'a>(&self, path: &'a Path) -> io::Result<(Inode, &'a OsStr)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let dir = self.find(path.parent().unwrap_or_else(|| Path::new("")))?;
        self.names(dir)?;
        Ok((dir, name))
    }

    pub(super) fn names(&self, dir: Inode) -> io::Result<&Names> {
        match self.nodes.get(&dir) {
            Some(Node::Dir { seen, .. }) => Ok(seen),
            Some(Node::File { .. }) => Err(Errno::NOTDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    pub(super) fn create(&mut self, path: &Path, node: Node) -> io::Result<Inode> {
        let (dir, name) = self.find_parent(path)?;
        if self.names(dir)?.contains_key(name) {
            return Err(Errno::EXIST.into());
        }
        let inode = self.next_inode;
        self.next_inode += 1;
        self.nodes.insert(inode, node);
        self.change_names(vec![(dir, name.to_owned(), Some(inode))]);
        Ok(inode)
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.find_parent(path)?;
        let inode = *self.names(dir)?.get(name).ok_or(Errno::NOENT)?;
        self.free_room(self.content(inode)?.used());
        self.change_names(vec![(dir, name.to_owned(), None)]);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from_name) = self.find_parent(from)?;
        let (to_dir, to_name) = self.find_parent(to)?;
        let inode = *self.names(from_dir)?.get(from_name).ok_or(Errno::NOENT)?;
        match self.names(to_dir)?.get(to_name) {
            Some(replaced) if *replaced == inode => return Ok(()),
            Some(replaced) => self.free_room(self.content(*replaced)?.used()),
            None => {}
        }
        self.change_names(vec![
            (from_dir, from_name.to_owned(), None),
            (to_dir, to_name.to_owned(), Some(inode)),
        ]);
        Ok(())
    }

    fn change_names(&mut self, entries: Vec<(Inode, OsString, Option<Inode>)>) {
        for (dir, name, target) in &entries {
            if let Some(Node::Dir { seen, .. }) = self.nodes.get_mut(dir) {
                set_name(Arc::make_mut(seen), name, *target);
            }
        }
        self.pending.push(Change::Names(Arc::new(NameChange { entries })));
    }

    /// Makes every change of a directory durable, and the earlier ones of other directories that
    /// those rest on.
    pub(super) fn sync_dir(&mut self, dir: Inode) -> io::Result<()> {
        self.names(dir)?;
        let mut wanted: BTreeSet<(Inode, OsString)> = BTreeSet::new();
        let mut kept = Vec::with_capacity(self.pending.len());
        let mut durable = Vec::new();
        for change in std::mem::take(&mut self.pending).into_iter().rev() {
            match change {
                Change::Names(names)
                    if names.entries.iter().any(|(at, name, _)| {
                        *at == dir || wanted.contains(&(*at, name.clone()))
                    }) =>
                {
                    wanted.extend(names.entries.iter().map(|(at, name, _)| (*at, name.clone())));
                    durable.push(names);
                }
                other => kept.push(other),
            }
        }
        kept.reverse();
        self.pending = kept;
        for names in durable.iter().rev() {
            self.apply_names(names);
        }
        Ok(())
    }

    /// Applies a change of names to the durable directories.
    pub(super) fn apply_names(&mut self, change: &NameChange) {
        for (at, name, target) in &change.entries {
            if let Some(Node::Dir { durable, .. }) = self.nodes.get_mut(at) {
                set_name(Arc::make_mut(durable), name, *target);
            }
        }
    }

    // Contents.

    pub(super) fn content(&self, inode: Inode) -> io::Result<&Content> {
        match self.nodes.get(&inode) {
            Some(Node::File { seen, .. }) => Ok(seen),
            Some(Node::Dir { .. }) => Err(Errno::ISDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    /// Writes up to `limit` bytes of the slices.
    pub(super) fn write(
        &mut self,
        inode: Inode,
        position: usize,
        slices: &[IoSlice<'_>],
        limit: usize,
    ) -> io::Result<()> {
        if limit == 0 {
            return Ok(());
        }
        self.take_room(self.content(inode)?.missing(position, limit))?;
        let content = self.content_mut(inode)?;
        let before = content.len();
        let sectors = content.write(position, slices, limit);
        let after = content.len();
        for sector in sectors {
            self.push(inode, FileChange::Sector(sector));
        }
        if after > before {
            self.push(inode, FileChange::Extend(after));
        }
        Ok(())
    }

    pub(super) fn set_len(&mut self, inode: Inode, len: usize) -> io::Result<()> {
        let content = self.content_mut(inode)?;
        let before = content.used();
        content.set_len(len);
        let freed = before - content.used();
        self.free_room(freed);
        self.push(inode, FileChange::SetLen(len));
        Ok(())
    }

    pub(super) fn allocate(&mut self, inode: Inode, from: usize, len: usize) -> io::Result<()> {
        let content = self.content(inode)?;
        let room = self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used));
        let fits = content.fits(from, len, room);
        self.take_room(content.missing(from, fits))?;
        if fits > 0 {
            self.content_mut(inode)?.allocate(from, fits);
            self.push(inode, FileChange::Allocate(from, fits));
        }
        // As ext4: what there was room for stays.
        if fits < len { Err(Errno::NOSPC.into()) } else { Ok(()) }
    }

    pub(super) fn sync_file(&mut self, inode: Inode) -> io::Result<()> {
        let (pending, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|change| matches!(change, Change::File { inode: of, .. } if *of == inode));
        self.pending = kept;
        let Some(Node::File { durable, seen }) = self.nodes.get_mut(&inode) else {
            return Err(Errno::ISDIR.into());
        };
        if !pending.iter().any(|change| matches!(change, Change::File { stuck: true, .. })) {
            *durable = Arc::clone(seen);
            return Ok(());
        }
        let mut rewritten = BTreeSet::new();
        let mut cut_at = usize::MAX;
        let content = Arc::make_mut(durable);
        for change in &pending {
            if let Change::File { change, stuck: false, .. } = change {
                change.apply(content);
                match change {
                    FileChange::Sector(sector) => drop(rewritten.insert(sector.index)),
                    FileChange::SetLen(len) => cut_at = cut_at.min(*len),
                    FileChange::Extend(_) | FileChange::Allocate(..) => {}
                }
            }
        }
        // A stuck version of a sector that was written again or cut off cannot come back later, nor
        // can a stuck length after a cut.
        self.pending.extend(pending.into_iter().filter(|change| match change {
            Change::File { change: FileChange::Sector(sector), stuck: true, .. } => {
                !rewritten.contains(&sector.index) && sector.index < cut_at / SECTOR_BYTES
            }
            Change::File { stuck, .. } => *stuck && cut_at == usize::MAX,
            Change::Names(_) => false,
        }));
        Ok(())
    }

    /// Notes that a sync of the file failed: what it covered stays in doubt for ever.
    pub(super) fn fail_sync(&mut self, inode: Inode) {
        for change in &mut self.pending {
            if let Change::File { inode: of, stuck, .. } = change
                && *of == inode
            {
                *stuck = true;
            }
        }
    }

    fn content_mut(&mut self, inode: Inode) -> io::Result<&mut Content> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File { seen, .. }) => Ok(Arc::make_mut(seen)),
            Some(Node::Dir { .. }) => Err(Errno::ISDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    fn push(&mut self, inode: Inode, change: FileChange) {
        self.pending.push(Change::File { inode, change, stuck: false });
    }

    fn take_room(&mut self, bytes: u64) -> io::Result<()> {
        let used = self.used + bytes;
        if bytes > 0 && self.capacity.is_some_and(|capacity| used > capacity) {
            return Err(Errno::NOSPC.into());
        }
        self.used = used;
        Ok(())
    }

    /// The room of a removed file is free at once, and again when a handle to it cuts it: the
    /// simulation counts in favour of the writer there, and never below nothing.
    fn free_room(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// Returns a hash of all names, lengths and bytes that are seen.
    pub(super) fn hash(&self, inode: Inode) -> u64 {
        match self.nodes.get(&inode) {
            Some(Node::File { seen, .. }) => seen.hash(),
            Some(Node::Dir { seen, .. }) => seen.iter().fold(1, |hash, (name, child)| {
                let bytes = name.as_encoded_bytes();
                let named = bytes
                    .iter()
                    .fold(byte_count(bytes.len()), |hash, byte| mix(hash, u64::from(*byte)));
                mix(mix(hash, named), self.hash(*child))
            }),
            None => 0,
        }
    }
}

pub(super) fn set_name(names: &mut Names, name: &OsStr, target: Option<Inode>) {
    match target {
        Some(inode) => {
            names.insert(name.to_owned(), inode);
        }
        None => {
            names.remove(name);
        }
    }
}
