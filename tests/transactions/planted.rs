//! Defects planted on purpose: the checks that are green without them must see each.

use prkdb::storage::bug::{Bug, plant};

use super::{anomalies, history, sequencer};

fn with_bug<T>(bug: Bug, check: impl FnOnce() -> T) -> T {
    let _planted = plant(bug);
    check()
}

/// Shows that the cases see a defect, and that of this name first.
fn assert_cases_see(bug: Bug, name: &str) {
    assert_eq!(anomalies::check(), Ok(()));
    let error = with_bug(bug, anomalies::check).unwrap_err();
    assert!(error.starts_with(name), "{bug:?} is seen as: {error}");
}

/// Shows that random histories see a defect too.
fn assert_histories_see(bug: Bug) {
    history::check(5).unwrap();
    with_bug(bug, || history::check(60)).unwrap_err();
}

#[test]
fn planted_writes_that_are_not_validated_are_caught() {
    assert_cases_see(Bug::WritesNotValidated, "PMP with a predicate that is written, Snapshot");
    assert_histories_see(Bug::WritesNotValidated);
}

#[test]
fn planted_reads_that_are_not_validated_are_caught() {
    assert_cases_see(Bug::ReadsNotValidated, "G2-item write skew, Serializable");
    assert_histories_see(Bug::ReadsNotValidated);
}

#[test]
fn planted_ranges_that_are_not_validated_are_caught() {
    assert_cases_see(Bug::RangesNotValidated, "G2 write skew on a range, Serializable");
    assert_histories_see(Bug::RangesNotValidated);
}

#[test]
fn planted_blindness_for_what_is_under_way_is_caught() {
    assert_cases_see(
        Bug::OverlayNotConsulted,
        "PMP with a predicate that is written, Snapshot, Late",
    );
    assert_histories_see(Bug::OverlayNotConsulted);
}

#[test]
fn planted_loss_of_tombstones_is_caught() {
    assert_cases_see(Bug::RemovalsIgnored, "P4 of a key that is absent again, Snapshot");
    assert_histories_see(Bug::RemovalsIgnored);
}

#[test]
fn planted_loss_of_repeats_is_caught() {
    sequencer::check_repeats().unwrap();
    with_bug(Bug::RepeatNotKnown, sequencer::check_repeats).unwrap_err();
}
