//! Where time and randomness come in.
//!
//! Nothing in storage asks the machine for the time or for random numbers but through these traits,
//! so that a run with a [`ManualClock`] and a [`SeededRng`] repeats itself exactly. This is the one
//! file of storage that may read the machine's clock.

use std::{
    fmt::Debug,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use rustix::{
    rand::{GetRandomFlags, getrandom},
    time::{ClockId, clock_gettime},
};

/// A source of time.
pub trait Clock: Send + Sync + Debug {
    /// Returns the time of day in milliseconds since 1970 (UTC). It may jump either way.
    fn wall_ms(&self) -> i64;

    /// Returns the time since some fixed moment. It never goes back, and goes on while a machine sleeps.
    fn monotonic(&self) -> Duration;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Duration,
}

impl SystemClock {
    /// Returns a clock whose monotonic time starts now.
    pub fn new() -> Self {
        Self { started: since_boot() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

/// Unlike `Instant`, it counts the time that the machine was suspended: the clock on the wall does, too.
fn since_boot() -> Duration {
    // Neither part is ever negative.
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn wall_ms(&self) -> i64 {
        let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => millis(since),
            Err(before) => -millis(before.duration()),
        }
    }

    fn monotonic(&self) -> Duration {
        since_boot().saturating_sub(self.started)
    }
}

/// A clock that moves when it is told to.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<(i64, Duration)>,
}

impl ManualClock {
    /// Returns a clock that shows this time of day, and zero as monotonic time.
    pub fn new(wall_ms: i64) -> Self {
        Self { now: Mutex::new((wall_ms, Duration::ZERO)) }
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now();
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        *now = (now.0.saturating_add(millis), now.1.saturating_add(by));
    }

    /// Sets the time of day alone, as a jump of the machine's clock does.
    pub fn set_wall_ms(&self, wall_ms: i64) {
        self.now().0 = wall_ms;
    }

    fn now(&self) -> MutexGuard<'_, (i64, Duration)> {
        // Two plain numbers are never half written.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> i64 {
        self.now().0
    }

    fn monotonic(&self) -> Duration {
        self.now().1
    }
}

/// A source of random numbers.
pub trait Rng: Send + Debug {
    /// Returns the next number.
    fn next_u64(&mut self) -> u64;

    /// Fills a buffer.
    fn fill(&mut self, into: &mut [u8]) {
        for chunk in into.chunks_mut(8) {
            let bytes = self.next_u64().to_le_bytes();
            for (to, from) in chunk.iter_mut().zip(bytes) {
                *to = from;
            }
        }
    }
}

/// Numbers that follow from a seed. For simulation and tests; an onlooker can predict them.
///
/// The generator is `SplitMix64` (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct SeededRng {
    state: u64,
}

impl SeededRng {
    /// Returns the generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }
}

impl Rng for SeededRng {
    fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Numbers of the operating system's generator, read a block at a time.
#[derive(Debug)]
pub struct OsRng {
    block: [u8; 256],
    used: usize,
}

impl OsRng {
    /// Returns a generator, having read its first block.
    ///
    /// # Errors
    /// What the operating system says when it has no generator.
    pub fn new() -> io::Result<Self> {
        let mut fresh = Self { block: [0; 256], used: 0 };
        fresh.refill()?;
        Ok(fresh)
    }

    /// A call for up to 256 bytes is never cut short or interrupted once the generator is ready,
    /// which the first call waits for.
    fn refill(&mut self) -> io::Result<()> {
        let mut filled = 0;
        while let Some(rest) = self.block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += rustix::io::retry_on_intr(|| getrandom(&mut *rest, GetRandomFlags::empty()))?;
        }
        self.used = 0;
        Ok(())
    }
}

impl Rng for OsRng {
    /// # Panics
    /// If the operating system's generator fails after it has worked.
    fn next_u64(&mut self) -> u64 {
        if self.used == self.block.len() {
            self.refill().expect("a generator that has given numbers goes on doing so");
        }
        let number = self
            .block
            .get(self.used..)
            .and_then(|rest| rest.first_chunk::<8>())
            .expect("the block is used in steps of eight bytes");
        self.used += 8;
        u64::from_le_bytes(*number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(1_000);
        assert_eq!((clock.wall_ms(), clock.monotonic()), (1_000, Duration::ZERO));
        clock.advance(Duration::from_millis(250));
        clock.set_wall_ms(7);
        assert_eq!((clock.wall_ms(), clock.monotonic()), (7, Duration::from_millis(250)));
    }

    #[test]
    fn the_machines_clock_is_past_2020_and_does_not_go_back() {
        let clock = SystemClock::new();
        assert!(clock.wall_ms() > 1_577_836_800_000);
        assert!(clock.monotonic() <= clock.monotonic());
    }

    #[test]
    fn a_seed_gives_the_published_numbers() {
        let mut rng = SeededRng::new(1_234_567);
        let numbers = [(); 3].map(|()| rng.next_u64());
        assert_eq!(
            numbers,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn random_bytes_differ_over_many_blocks() {
        let mut rng = OsRng::new().unwrap();
        let numbers: std::collections::BTreeSet<u64> = (0..200).map(|_| rng.next_u64()).collect();
        assert_eq!(numbers.len(), 200);
        let mut odd = [0; 13];
        rng.fill(&mut odd);
        assert_ne!(odd[8..], [0; 5]);
    }
}
