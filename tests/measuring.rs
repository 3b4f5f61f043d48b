//! What chapter 21 says of measuring: a clock that starts at the sending misses most of a stall, and the plot shows
//! both clocks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::process::Command;

use support::port::Port;
use support::{has_program, run};

fn ch21_load(words: &[&str]) -> (Option<i32>, String, String) {
    let (status, output, errors) = run(Command::new(env!("CARGO_BIN_EXE_ch21_load")).args(words), b"");
    (status.code(), output, errors)
}

#[test]
fn a_stall_hits_everyone_who_was_due_and_a_clock_that_starts_at_the_sending_does_not_see_it() {
    let (status, output, errors) = ch21_load(&["samples"]);
    assert_eq!(status, Some(0), "{errors}");
    let numbers = |line: &str| line.split(' ').map(|number| number.parse().unwrap()).collect::<Vec<f64>>();
    let samples: Vec<Vec<f64>> = output.lines().map(numbers).collect();
    assert_eq!(samples.len(), 300);
    // The fault did happen: every fiftieth stalled.
    for stalled in (49..300).step_by(50) {
        assert!(samples[stalled][1] >= 50.0, "number {stalled} did not stall: {:?}", samples[stalled]);
    }
    // After 50 ms, with a question due every 4 ms, the next ten have waited for at least 10 ms.
    for stalled in (49..250).step_by(50) {
        for hit in 1..=10 {
            let sample = &samples[stalled + hit];
            assert!(sample[2] >= 10.0, "number {stalled} stalled, and {hit} later is {sample:?}");
        }
    }
    assert!(samples.iter().all(|sample| sample[2] >= sample[1]), "nothing was due after it was sent");
}

#[test]
fn the_plot_has_a_dot_for_each_question_and_clock_and_refuses_what_is_no_sample() {
    if !has_program("python3") {
        return;
    }
    let plot = || Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/plot"));
    let (status, output, errors) = run(&mut plot(), b"0 1.0 1.0\n4 50.0 50.0\n8 1.0 47.0\n");
    assert!(status.success(), "{errors}");
    assert_eq!(output.matches("<circle").count(), 6, "{output}");
    assert!(output.trim_end().ends_with("</svg>"), "{output}");
    for wrong in ["", "0 1.0\n", "0 one 1.0\n"] {
        let (status, output, errors) = run(&mut plot(), wrong.as_bytes());
        assert_eq!((status.code(), output.as_str()), (Some(1), ""), "{wrong:?}");
        assert_eq!(errors.lines().count(), 1, "{wrong:?}: {errors}");
    }
}

#[test]
fn an_average_of_nobody_is_one_line_and_status_2() {
    let port = Port::any().refuses();
    for address in [&port.address.to_string(), "nonsense", ""] {
        let (status, output, errors) = ch21_load(&["average", address]);
        assert_eq!((status, output.as_str()), (Some(2), ""), "{address}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{address}: {errors}");
    }
}
