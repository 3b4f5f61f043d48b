//! Numbers as people read them.

use std::time::Duration;

/// Three digits and a unit: `847 ns`, `12.3 µs`, `4.56 ms`, `1.20 s`.
pub(crate) fn time(nanoseconds: u64) -> String {
    let number = nanoseconds as f64;
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{} µs", digits(number / 1e3)),
        1_000_000..1_000_000_000 => format!("{} ms", digits(number / 1e6)),
        _ => format!("{} s", digits(number / 1e9)),
    }
}

pub(crate) fn duration(duration: Duration) -> String {
    time(duration.as_nanos() as u64)
}

/// Three digits: `1.23`, `12.3`, `123`; larger ones in groups: `123,456`.
pub(crate) fn digits(number: f64) -> String {
    match number {
        ..9.995 => format!("{number:.2}"),
        ..99.95 => format!("{number:.1}"),
        _ => group(number.round() as u64),
    }
}

/// 1048576 as 1,048,576.
pub(crate) fn group(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 connection`, `2 connections`.
pub(crate) fn count(number: u64, what: &str) -> String {
    format!("{} {what}{}", group(number), if number == 1 { "" } else { "s" })
}

/// Bytes in binary units: `12.3 KiB`, `1.20 GiB`.
pub(crate) fn size(bytes: f64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut number = bytes;
    let mut unit = 0;
    while number.abs() >= 1024.0 && unit + 1 < units.len() {
        number /= 1024.0;
        unit += 1;
    }
    let sign = if number < 0.0 { "-" } else { "" };
    let digits = if unit == 0 { group(number.abs().round() as u64) } else { digits(number.abs()) };
    format!("{sign}{digits} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_or_commas() {
        assert_eq!([0, 999, 1_000, 12_345, 999_499].map(time), ["0 ns", "999 ns", "1.00 µs", "12.3 µs", "999 µs"]);
        assert_eq!([4_560_000, 1_200_000_000, 90_000_000_000].map(time), ["4.56 ms", "1.20 s", "90.0 s"]);
        assert_eq!([9.994, 9.996, 99.94, 99.96, 123_456.0].map(digits), ["9.99", "10.0", "99.9", "100", "123,456"]);
        assert_eq!([0.0, 1023.0, 12_595.0, -2048.0].map(size), ["0 bytes", "1,023 bytes", "12.3 KiB", "-2.00 KiB"]);
        assert_eq!([count(1, "thread"), count(1000, "thread")], ["1 thread", "1,000 threads"]);
    }
}
