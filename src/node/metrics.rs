//! stub
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
#[derive(Debug, Default)]
pub struct Metrics {
    bytes: AtomicU64,
}
impl Metrics {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn flushed(&self, bytes: u64, _e: usize, _t: Duration) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    pub fn appended_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
    pub fn limit(&self, _n: &'static str) {}
    pub fn recovered(&self, _s: u32, _t: Duration, _c: u64) {}
}
