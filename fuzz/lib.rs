//! The targets of `tests/fuzz`, for libFuzzer.

#[path = "../tests/fuzz/harness.rs"]
pub mod harness;
#[path = "../tests/fuzz/targets/mod.rs"]
pub mod targets;

pub use libfuzzer_sys;

/// The program of one target.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| {
            let target = $crate::targets::named($name).expect("it is in the list");
            $crate::harness::check(target, data);
        });
    };
}
