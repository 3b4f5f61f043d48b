//! Durations, sizes and numbers of the command lines: any text is a value within its bounds, or is refused with what
//! would be right.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use socket_steps::options::{count, duration, size};

use crate::corpus::inputs;
use crate::support::figures::figure;
use crate::support::figures::tries;

/// A year in nanoseconds, and a gibibyte.
const LONGEST: u128 = 365 * 24 * 60 * 60 * 1_000_000_000;
const LARGEST: u128 = 1 << 30;

const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];

/// Reads a text as that kind of value: nanoseconds, bytes, or how many.
fn read(kind: &str, text: &str) -> Result<u128, String> {
    match kind {
        "duration" => duration(text).map(|duration| duration.as_nanos()),
        "size" => size(text).map(|bytes| bytes as u128),
        "count" => count(text).map(|count| count as u128),
        unknown => panic!("no kind of value: {unknown}"),
    }
}

#[test]
fn any_text_is_a_value_within_its_bounds_or_is_refused() {
    let corpus = inputs(include_str!("corpus/values.txt"));
    for input in &corpus {
        let (kind, expected) = input.expected.split_once(':').unwrap();
        let text = String::from_utf8(input.bytes.clone()).unwrap();
        let value = read(kind, &text).map_or("refused".to_owned(), |value| value.to_string());
        assert_eq!(value, expected, "{kind} {text:?}: {}", input.why);
    }
    let numbers =
        || prop_oneof!["[0-9]{1,21}", "[0-9]{0,5}[.][0-9]{0,12}", "18446744073709551615|4294967295|1000000000"];
    let units = || "|ns|us|µs|ms|s|m|h|d|w|M|y|sec|min|hours?|B|kB|KB|KiB|MiB|GiB|EiB|k|parsecs";
    let parts = prop::collection::vec((numbers(), " {0,2}", units(), " {0,1}"), 1..4);
    let written = parts.prop_map(|parts| parts.into_iter().map(|(a, b, c, d)| a + &b + &c + &d).collect::<String>());
    let texts = prop_oneof![3 => written, 1 => any::<String>(), 1 => "[-+.0-9a-zA-Zµ \t\u{2003}]{0,12}"];
    let tries = tries(1000, 10_000);
    let mut runner = TestRunner::new(tries.clone());
    let outcome = runner.run(&texts, |text| {
        for (kind, most) in [("duration", LONGEST), ("size", LARGEST), ("count", u128::from(u32::MAX))] {
            match read(kind, &text) {
                Ok(value) => prop_assert!((1..=most).contains(&value), "{} {} of {:?}", kind, value, text),
                Err(why) => prop_assert!(why.contains("; write a "), "{}: {}", text, why),
            }
        }
        Ok(())
    });
    outcome.unwrap();
    figure(
        "B22",
        true,
        format!(
            "durations, sizes, numbers: {} of the corpus, {} thought up, 0 failed; seed {}",
            corpus.len(),
            tries.cases,
            tries.rng_seed
        ),
    );
}

/// Against another way to work it out.
#[test]
fn a_duration_is_the_sum_of_its_parts() {
    let parts = prop::collection::vec((any::<u64>(), 0..64_u32, 0..UNITS.len()), 1..5);
    let accepted = Cell::new(0);
    let tries = tries(1000, 10_000);
    let mut runner = TestRunner::new(tries.clone());
    let outcome = runner.run(&parts, |parts| {
        // As many small numbers as large ones.
        let parts: Vec<(u64, usize)> = parts.into_iter().map(|(number, shift, unit)| (number >> shift, unit)).collect();
        let text = parts.iter().map(|(number, unit)| format!("{number}{} ", UNITS[*unit].0)).collect::<String>();
        let sum = parts.iter().map(|(number, unit)| u128::from(*number) * UNITS[*unit].1).sum::<u128>();
        match duration(&text) {
            Ok(duration) => prop_assert_eq!(duration.as_nanos(), sum, "{}", text),
            Err(why) => prop_assert!(sum == 0 || sum > LONGEST, "{}: {}", text, why),
        }
        accepted.set(accepted.get() + u32::from(duration(&text).is_ok()));
        Ok(())
    });
    outcome.unwrap();
    let accepted = accepted.get();
    assert!(accepted > 10, "only {accepted} were durations");
    figure("B22", true, format!("sums of durations: {} thought up, {accepted} within bounds, 0 failed", tries.cases));
}
