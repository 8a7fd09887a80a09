//! What is demanded of every target, whoever makes the bytes: libFuzzer, a corpus, or a mutation.
//!
//! A target runs bytes and panics where something is wrong. Beside that no target may take more memory
//! than its [`Memory`] allows for so many bytes: a length is not believed before it is checked.

use std::{
    io::Write as _,
    panic,
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// A parser, and bytes to begin with.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of its corpus too.
    pub name: &'static str,
    /// Gives it bytes.
    pub run: fn(&[u8]),
    /// Bytes that it reads, as they are written by PrkDB.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What it may take.
    pub memory: Memory,
}

/// The most memory that a run may have at once.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// For each byte of the input.
    pub per_byte: usize,
    /// In any case.
    pub fixed: usize,
}

impl Memory {
    /// Four times the input, and 64 KiB for what a decoder needs besides.
    pub const DECODER: Self = Self { per_byte: 4, fixed: 64 << 10 };
}

/// One at a time: the memory of a process is counted, not that of a thread.
static ALONE: Mutex<()> = Mutex::new(());

/// Gives a target bytes.
///
/// # Panics
/// If the target does, or takes too much memory.
pub fn check(target: &Target, data: &[u8]) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let _input = Input(target.name, data);
    let allowed = target.memory.fixed + target.memory.per_byte * data.len();
    // What is made once, as a table, is there the second time; and other tests read their corpora beside.
    let mut peak = peak_of(target, data);
    for _ in 0..4 {
        if peak > allowed {
            peak = peak_of(target, data);
        }
    }
    assert!(
        peak <= allowed,
        "{} took {peak} bytes of memory for {} bytes, allowed are {allowed}",
        target.name,
        data.len()
    );
}

/// Says what was read when the target panics.
struct Input<'a>(&'static str, &'a [u8]);

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(name, data) = self;
            // The panic itself is what fails.
            let _said = writeln!(std::io::stderr(), "{name}: b\"{}\"", data.escape_ascii());
        }
    }
}

fn peak_of(target: &Target, data: &[u8]) -> usize {
    WATCH.call_once(watch);
    let panics = PANICS.load(Ordering::Relaxed);
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    (target.run)(data);
    let here = PANICS.load(Ordering::Relaxed);
    assert_eq!(here, panics, "a task of {} panicked", target.name);
    MEMORY.peak_usage().saturating_sub(before)
}

/// Panics of threads that nobody waits for: a task of a node may panic, and its caller hears of an error.
static PANICS: AtomicUsize = AtomicUsize::new(0);
static WATCH: Once = Once::new();

fn watch() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |told| {
        // A thread of the tests is named for its test, and fails by itself.
        let is_test = std::thread::current().name().is_some_and(|name| name.contains("::"));
        PANICS.fetch_add(usize::from(!is_test), Ordering::Relaxed);
        before(told);
    }));
}
