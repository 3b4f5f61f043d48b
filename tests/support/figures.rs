//! The figures of the fault bar: a test that measures one says it here, and `tests/faults/run` makes a table of them.

use std::env;
use std::fmt::Display;

use proptest::test_runner::{Config, RngSeed};

use super::needs::skip;

/// Says what was measured for a row of the bar, and whether that is within it. Whoever prints a figure that depends
/// on how fast the machine is does not also assert it: the table gives the verdict, and `cargo test` tests no speed.
pub fn figure(row: &str, held: bool, what: impl Display) {
    say(row, if held { "held" } else { "MISSED" }, what);
}

/// Says that a row cannot be measured now, and why.
pub fn skipped(row: &str, why: impl Display) {
    say(row, "skipped", why);
}

/// Says that a row, or a part of it, cannot be measured here: what is missing, and why. Fails where `MUST_HAVE` names
/// that.
#[track_caller]
pub fn lacks(row: &str, missing: &str, why: impl Display) {
    skip(missing, &why);
    skipped(row, why);
}

/// Whether to measure at the size of the bar, which takes minutes. Otherwise a test is as large as `cargo test` bears.
pub fn full() -> bool {
    env::var_os("FAULTS").is_some_and(|size| size == "full")
}

/// The seed of a test: 1, or what `FAULTS_SEED` says. Said aloud, so that a failure can be had again.
pub fn seed() -> u64 {
    let seed = env::var("FAULTS_SEED").map_or(1, |seed| seed.parse().expect("FAULTS_SEED is a number"));
    println!("seed {seed}; another one: FAULTS_SEED=2 cargo test");
    seed
}

/// How many inputs proptest thinks of, always the same ones for a seed: so many in `cargo test`, and so many for the
/// bar. What it finds goes into `tests/faults/corpus/`, with a word about it, and not into a file of seeds.
pub fn tries(usual: u32, for_the_bar: u32) -> Config {
    let cases = if full() { for_the_bar } else { usual };
    Config { failure_persistence: None, rng_seed: RngSeed::Fixed(seed()), ..Config::with_cases(cases) }
}

/// A line that `tests/faults/run` finds, wherever the test harness has left the cursor.
fn say(row: &str, verdict: &str, what: impl Display) {
    let what = what.to_string();
    assert!(!what.contains('\n'), "a figure is one line: {what}");
    println!("\nfigure {row} {verdict}: {what}");
}
