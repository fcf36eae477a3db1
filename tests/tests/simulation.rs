//! The simulation: thousands of seeds pass, every deliberate fault is found, and what failed replays.

use quicsand::fault::Fault;
use quicsand_tests::simulation::{Options, Report, run, run_all};

/// Seeds of a test run; `cargo xtask simulate` runs as many as one likes.
const FIRST: u64 = 4000;

#[test]
fn thousands_of_seeds_pass() {
    let report = run_all(0..FIRST, Options::default()).unwrap_or_else(|failure| panic!("{failure}"));
    let Report { seeds, events, items, computed, mishaps, .. } = report;
    assert_eq!(seeds, FIRST);
    // A simulation in which little happens proves little.
    assert!(events > 500 * seeds && items > 40 * seeds && computed > 20 * seeds && mishaps > 2 * seeds, "{report:?}");
}

/// Seeds beyond the first ones that failed once.
const PINNED: &[u64] = &[105_385];

#[test]
fn seeds_that_failed_once_pass() {
    for &seed in PINNED {
        run(seed, Options::default()).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

/// The seeds that must be enough to find a fault, counted from 0: about four times what it took, but 400 at most.
const ENOUGH: &[(Fault, u64)] = &[
    (Fault::LossForgotten, 20),
    (Fault::RunIdsReused, 20),
    (Fault::FreedTooEarly, 120),
    (Fault::NeverFreed, 20),
    (Fault::LateCopyKept, 120),
    (Fault::CreditLost, 60),
    (Fault::EdgeMiscounted, 20),
    (Fault::LineageDropped, 120),
    (Fault::ToldTwice, 20),
    (Fault::CancelNotPassedOn, 40),
    (Fault::GhostsBelieved, 20),
    (Fault::NeighbourBlamed, 40),
    (Fault::DeathUnblamed, 40),
    (Fault::TriesUncounted, 20),
    (Fault::ResourceKept, 20),
    (Fault::LossUntold, 200),
    (Fault::UploadForgotten, 400),
    (Fault::AbsenceEndless, 20),
    (Fault::OfferUnanswered, 400),
    (Fault::ReturnUnreported, 80),
    (Fault::LeaveUnsaid, 20),
    (Fault::RestForgotten, 40),
    (Fault::RecallUnanswered, 40),
    (Fault::MissUnanswered, 40),
    (Fault::SlotKept, 20),
    (Fault::DamageUnanswered, 300),
    (Fault::OrphanDropped, 400),
    (Fault::LastPassedOver, 40),
];

#[test]
fn every_fault_is_found() {
    assert!(Fault::ALL.iter().all(|fault| ENOUGH.iter().any(|(known, _)| known == fault)), "a fault has no number of seeds");
    for &(fault, enough) in ENOUGH {
        let options = Options { fault: Some(fault), ..Options::default() };
        match run_all(0..enough, options) {
            Err(failure) => println!("{fault:?}: seed {} says: {}", failure.seed, failure.complaint),
            Ok(report) => panic!("{fault:?} is not found in {} seeds, {} events", report.seeds, report.events),
        }
    }
}

#[test]
fn a_failing_seed_replays_and_tells_its_story() {
    let options = Options { fault: Some(Fault::CancelNotPassedOn), ..Options::default() };
    let failures: Vec<_> = (0..40).filter_map(|seed| run(seed, options).err()).collect();
    assert!(!failures.is_empty());
    for failure in failures {
        assert_eq!(run(failure.seed, options), Err(failure.clone()), "a seed has one outcome");
        assert!(failure.story.contains("Cancel"), "{failure}");
        assert!(failure.to_string().contains(&format!("--from {}", failure.seed)));
        assert!(run(failure.seed, Options::default()).is_ok(), "without the fault it passes");
    }
}

#[test]
fn the_number_of_steps_can_be_said() {
    let of = |steps| run(3, Options { steps: Some(steps), ..Options::default() }).expect("passes").items;
    assert!(of(1) < of(60));
}
