//! What the command lines of these programs have in common: durations, sizes, and errors on one line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::num::IntErrorKind;
use std::time::Duration;

use bytesize::ByteSize;

use crate::output::harmless;

/// The longest duration that is accepted: a year. Longer ones are typing mistakes.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The largest size that is accepted. Nothing that is held in memory for each client should come near it.
const LARGEST: u64 = 1024 * 1024 * 1024;

/// Reads a duration with its unit: `500ms`, `30s`, `2m`.
///
/// # Errors
/// Says what would be right when the unit is missing, or the duration is zero, negative or over a year.
/// Zero would be a deadline that has passed before it begins.
///
/// ```
/// use socket_steps::options::duration;
/// assert_eq!(duration("1m 30s").unwrap().as_secs(), 90);
/// assert!(duration("30").is_err());
/// ```
pub fn duration(text: &str) -> Result<Duration, String> {
    const RIGHT: &str = "write a number and its unit, such as 500ms, 30s or 2m";
    if text.trim().parse::<f64>().is_ok_and(|number| number != 0.0 && number.is_finite()) {
        return Err(format!("the unit is missing; {RIGHT}"));
    }
    match sum_of_parts(text) {
        Ok(Duration::ZERO) => Err(format!("zero is no time at all; {RIGHT}")),
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) | Err(humantime::DurationError::NumberOverflow) => Err(format!("more than a year; {RIGHT}")),
        Err(_) => Err(format!("not a duration; {RIGHT}")),
    }
}

/// `1m 30s` is a minute and thirty seconds. Added up here: humantime 2.4 panics where a sum is just beyond what a
/// [`Duration`] can hold.
fn sum_of_parts(text: &str) -> Result<Duration, humantime::DurationError> {
    let mut sum = Duration::ZERO;
    let mut add = |part| {
        sum = sum.checked_add(humantime::parse_duration(part)?).ok_or(humantime::DurationError::NumberOverflow)?;
        Ok(sum)
    };
    let (mut begin, mut before) = (0, ' ');
    for (at, character) in text.char_indices().filter(|(_, character)| !character.is_whitespace()) {
        if character.is_ascii_digit() && before.is_alphabetic() {
            add(&text[begin..at])?;
            begin = at;
        }
        before = character;
    }
    add(&text[begin..])
}

/// Reads a size in bytes, with or without a unit: `4096`, `64KiB`, `1MiB`.
///
/// # Errors
/// Says what would be right when the text is no size, zero, or over 1 GiB.
///
/// ```
/// use socket_steps::options::size;
/// assert_eq!(size("64KiB"), Ok(65536));
/// assert!(size("0").is_err());
/// ```
pub fn size(text: &str) -> Result<usize, String> {
    const RIGHT: &str = "write a number of bytes from 1 to 1GiB, such as 4096 or 64KiB";
    match text.parse::<ByteSize>() {
        Ok(ByteSize(bytes @ 1..=LARGEST)) => Ok(bytes as usize),
        Ok(_) => Err(format!("out of range; {RIGHT}")),
        Err(_) => Err(format!("not a size; {RIGHT}")),
    }
}

/// Reads a number that is at least 1.
///
/// # Errors
/// Says what would be right when the text is no whole number, zero, negative, or too large to count to.
pub fn count(text: &str) -> Result<usize, String> {
    const RIGHT: &str = "write a whole number from 1 up";
    match text.parse::<u32>() {
        Ok(0) => Err(format!("zero is too few; {RIGHT}")),
        Ok(number) => Ok(number as usize),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Err(format!("far too many; {RIGHT}")),
        Err(_) => Err(format!("not a number that can be used; {RIGHT}")),
    }
}

/// Reads the command line, or ends the program: with the help on standard output and status 0 when it was
/// asked for, else with one line on standard error, and status 2.
pub fn parse_or_exit<Options: clap::Parser>() -> Options {
    match parse(std::env::args_os()) {
        Ok(options) => options,
        Err(Refusal::Asked(error)) => error.exit(),
        Err(Refusal::Wrong(line)) => exit_with(2, &line),
    }
}

/// Ends the program with this status and one line on standard error, which may be closed. A newline that
/// came in with a path, or an escape code, is shown and does nothing.
pub fn exit_with(status: i32, line: &str) -> ! {
    let _ = writeln!(io::stderr(), "{}", harmless(line, &[]));
    std::process::exit(status)
}

/// Why there are no options.
enum Refusal {
    /// The help or the version was asked for.
    Asked(clap::Error),
    /// What was wrong, on one line.
    Wrong(String),
}

fn parse<Options: clap::Parser>(words: impl IntoIterator<Item = OsString>) -> Result<Options, Refusal> {
    Options::try_parse_from(words).map_err(|error| {
        if !error.use_stderr() {
            return Refusal::Asked(error);
        }
        let program = Options::command().get_name().to_owned();
        Refusal::Wrong(format!("{program}: {}", one_line(&error.to_string())))
    })
}

/// Clap explains over several lines, with a usage line that names every option. The explanation is what
/// helps; its parts are joined, and the rest is a `--help` away.
fn one_line(explanation: &str) -> String {
    let parts = explanation.lines().map(str::trim).filter(|line| !line.is_empty());
    let parts = parts.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let mut line = String::new();
    for part in parts.map(|part| part.trim_start_matches("error: ")) {
        if !line.is_empty() {
            line += if line.ends_with(':') { " " } else { "; " };
        }
        line += part;
    }
    format!("{line} (--help lists the options)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_duration_is_refused_with_what_would_be_right() {
        for wrong in
            ["0", "0s", "0ms", "-5s", "30", "1.5", "", "s", "5 parsecs", "99999999999999999999s", "99999999999s"]
        {
            let error = duration(wrong).expect_err(wrong);
            assert!(error.contains("500ms"), "{wrong}: {error}");
        }
        assert!(duration("30").unwrap_err().contains("unit is missing"));
        for beyond in ["18446744073709551615s 1000ms", "18446744073709551615s1000000000ns"] {
            assert!(duration(beyond).unwrap_err().contains("more than a year"), "{beyond}");
        }
        for (parts, seconds) in [("1m 30s", 90), ("1m30s", 90), (" 1 m 30 s ", 90), ("1 0s", 10), ("1.5m 1s", 91)] {
            assert_eq!(duration(parts), Ok(Duration::from_secs(seconds)), "{parts}");
        }
    }

    #[test]
    fn every_wrong_size_is_refused_with_what_would_be_right() {
        for wrong in ["0", "-5", "", "x", "64x", "2GiB", "99999999EiB", "18446744073709551616"] {
            let error = size(wrong).expect_err(wrong);
            assert!(error.contains("64KiB"), "{wrong}: {error}");
        }
    }

    #[test]
    fn an_explanation_of_several_lines_becomes_one() {
        let explanation =
            "error: the following required arguments were not provided:\n  --addr <ADDR>\n\nUsage: load\n";
        let line = "the following required arguments were not provided: --addr <ADDR> (--help lists the options)";
        assert_eq!(one_line(explanation), line);
        let explanation = "error: unexpected argument 'x' found\n\n  tip: a similar one\n\nUsage: x\n\nFor more";
        assert_eq!(
            one_line(explanation),
            "unexpected argument 'x' found; tip: a similar one (--help lists the options)"
        );
    }

    #[test]
    fn every_wrong_count_is_refused_with_what_would_be_right() {
        for wrong in ["0", "-1", "1.5", "", "many", "4294967296"] {
            assert!(count(wrong).expect_err(wrong).contains("from 1"), "{wrong}");
        }
    }
}
