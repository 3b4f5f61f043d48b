//! What differs from run to run is shown with one chosen value, so that a reader meets no wildcard.

use std::sync::LazyLock;

use regex_lite::{Captures, Regex};
use unicode_width::UnicodeWidthStr;

use crate::markdown::pattern;

/// (what it is, how it looks, what a page shows).
const TABLE: &[(&str, &str, &str)] = &[
    ("the process id in a temporary path", r"(/tmp/[a-z0-9_]+)-\d+", "${1}-1234"),
    ("the number of a socket or pipe in the kernel", r"\b(socket|pipe):\[\d+\]", "${1}:[12345]"),
    ("the time of a log line", r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "2025-01-01T12:00:00.000Z"),
    ("the number of a process", r"\bprocess \d+", "process 1234"),
    ("the number of a thread that panics", r"\bthread '([^']*)' \(\d+\) panicked", "thread '${1}' (1234) panicked"),
];

static PATTERNS: LazyLock<Vec<Regex>> = LazyLock::new(|| TABLE.iter().map(|(_, look, _)| pattern(look)).collect());

/// A measured time, or memory, or share, after a word that says so.
static MEASURED: LazyLock<Regex> = LazyLock::new(|| {
    let word = r"\b(after|took|within|in|average|p50|p90|p99|p99\.9|max|about)";
    pattern(&format!(r"{word} (\d+(?:\.\d+)?) ?((?:ns|µs|us|ms|s|KiB)\b|%)"))
});

/// The line as a page shows it.
pub(crate) fn line(text: &str) -> String {
    let mut text = text.trim_end().to_owned();
    for ((_, _, shown), look) in TABLE.iter().zip(PATTERNS.iter()) {
        text = replace_in_columns(&text, look, |found| {
            let mut value = String::new();
            found.expand(shown, &mut value);
            value
        });
    }
    text
}

/// Replaces what is found. In a line of lanes, what stands in a later column stays where it is.
pub(crate) fn replace_in_columns(text: &str, look: &Regex, value: impl Fn(&Captures<'_>) -> String) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some(found) = look.captures(rest) {
        let Some(whole) = found.get(0) else { break };
        let new = value(&found);
        let (before, after) = (&rest[..whole.start()], &rest[whole.end()..]);
        let (old_width, new_width) = (whole.as_str().width() as isize, new.width() as isize);
        done = done + before + &new;
        rest = after;
        // The space before the next column takes up the difference.
        if let Some(gap) = after.find("  ") {
            let spaces = after[gap..].len() - after[gap..].trim_start_matches(' ').len();
            if spaces < after[gap..].len() {
                let width = (spaces as isize + old_width - new_width).max(2) as usize;
                done = done + &after[..gap] + &" ".repeat(width);
                rest = &after[gap + spaces..];
            }
        }
        if whole.is_empty() {
            break;
        }
    }
    done + rest
}

/// Whether a line of a page agrees with a line of a run: equal; or where the page has `[..]`, anything; or a
/// measured time that is of the same order.
pub(crate) fn agree(page: &str, run: &str) -> bool {
    let page = page.trim_end();
    if page == run {
        return true;
    }
    let (page, page_times) = without_times(page);
    let (run, run_times) = without_times(run);
    page_times.len() == run_times.len()
        && page_times.iter().zip(&run_times).all(|(page, run)| same_order(*page, *run))
        && with_wildcards(&page, &run)
}

fn with_wildcards(page: &str, run: &str) -> bool {
    let mut parts = page.split("[..]");
    let Some(mut rest) = parts.next().and_then(|first| run.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

fn without_times(text: &str) -> (String, Vec<f64>) {
    let times = MEASURED.captures_iter(text).map(|found| {
        let unit = match &found[3] {
            "ns" => 1e-9,
            "µs" | "us" => 1e-6,
            "ms" => 1e-3,
            _ => 1.0,
        };
        found[2].parse::<f64>().unwrap() * unit
    });
    let times = times.collect();
    (MEASURED.replace_all(text, "$1 TIME").into_owned(), times)
}

/// A busy machine is slow; nothing makes it much too fast.
fn same_order(page: f64, run: f64) -> bool {
    run >= page * 0.5 && run <= page * 4.0 + 3.0
}

/// The shape of a line: what is compared while a program still runs, and its numbers have no names yet.
pub(crate) fn shape(text: &str) -> String {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| pattern(r"\d+"));
    static SPACE: LazyLock<Regex> = LazyLock::new(|| pattern(" +"));
    SPACE.replace_all(&NUMBER.replace_all(&line(text), "0"), " ").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_is_named_and_the_columns_stay() {
        let text = "descriptor 3 is /tmp/ch01_file-7 (deleted)     the other lane";
        assert_eq!(line(text), "descriptor 3 is /tmp/ch01_file-1234 (deleted)  the other lane");
        assert_eq!(line("descriptor 3 is socket:[987654321]"), "descriptor 3 is socket:[12345]");
        assert_eq!(
            line("[2031-12-24T18:00:00.123Z INFO  socket_steps] hello"),
            "[2025-01-01T12:00:00.000Z INFO  socket_steps] hello"
        );
    }

    #[test]
    fn a_wildcard_agrees_with_anything_and_the_rest_must_be_equal() {
        assert!(agree("rustc [..] (of [..])", "rustc 1.95.0 (of today)"));
        assert!(!agree("rustc [..] (of [..])", "cargo 1.95.0 (of today)"));
        assert!(!agree("rustc [..]!", "rustc 1.95.0"));
        assert!(agree("[..]", ""));
    }

    #[test]
    fn a_time_agrees_with_its_order_only() {
        assert!(agree("closed after 0.3 s", "closed after 0.4 s"));
        assert!(agree("closed after 300 ms", "closed after 0.9 s"));
        assert!(!agree("closed after 0.3 s", "closed after 0.1 s"));
        assert!(!agree("closed after 0.3 s", "closed after 5.0 s"));
        assert!(!agree("closed after 0.3 s", "opened after 0.3 s"));
        assert!(agree("p50 1.12 ms, p99.9 50.6 ms", "p50 987 µs, p99.9 1.20 s"));
        assert!(!agree("p50 1.12 ms, p99.9 50.6 ms", "p50 1.12 ms, p99.9 20.1 ms"));
        assert!(agree("about 32 %, about 20.0 KiB for each", "about 40 %, about 18.2 KiB for each"));
        assert!(!agree("about 32 %", "about 1 %"));
    }
}
