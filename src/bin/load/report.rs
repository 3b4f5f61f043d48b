//! The results, for people.

use std::io::{self, Write};

use hdrhistogram::Histogram;

use crate::figures::{count, digits, duration, group, size, time};
use crate::plan::{Mode, Plan};
use crate::results::{Costs, Results};
use crate::run::Outcome;

/// How long the longest bar of the histogram is.
const BAR: f64 = 40.0;

/// A thread of load that is busy for so much of the time may be what limits the rate.
const BUSY: f64 = 0.9;

/// Writes the table and the histogram.
///
/// # Errors
/// When nobody reads it.
pub(crate) fn write(out: &mut impl Write, plan: &Plan, outcome: &Outcome) -> io::Result<()> {
    let results = Results::of(plan, outcome);
    let latencies = &outcome.tally.latencies;
    writeln!(out, "{}", headline(plan))?;
    let mut rows = run_rows(plan, outcome, &results);
    rows.push(("latency".to_owned(), quantiles(latencies)));
    let waited = outcome.tally.unsent + outcome.tally.unanswered;
    if waited > 0 {
        let what = count(waited, plan.mode.unit());
        let text = format!("or longer: {what} had no answer, counted with the time that they had waited");
        rows.push((String::new(), text));
    }
    rows.extend(server_rows(plan, outcome, &results));
    if let Some(costs) = &results.own {
        let busy = results.busy * 100.0;
        rows.push(("load itself".to_owned(), format!("{}; {busy:.0} % of its time", costs_of(costs, plan))));
    }
    for (name, text) in rows {
        writeln!(out, "  {name:<12} {text}")?;
    }
    histogram(out, latencies, plan)?;
    notes(out, outcome, &results)
}

/// A line of the table: its name, if it is not the one before, and what it says.
type Row = (String, String);

fn run_rows(plan: &Plan, outcome: &Outcome, results: &Results) -> Vec<Row> {
    let (tally, unit) = (&outcome.tally, plan.mode.unit());
    let (measured, warm_up) = (duration(outcome.measured), duration(plan.warm_up));
    let mut rows = vec![
        ("opened".to_owned(), opened(plan, outcome)),
        ("measured".to_owned(), format!("{measured}, after {warm_up} of warm-up that does not count")),
        (format!("{unit}s"), format!("{}, {} a second", group(tally.answered), digits(results.rate))),
    ];
    if matches!(plan.mode, Mode::Pingpong | Mode::Stream) {
        rows.push(("throughput".to_owned(), format!("{} MB/s each way", digits(results.megabytes))));
    }
    let loop_is = match plan.rate {
        None => "closed: nothing is sent while an answer is missing (--rate measures from when each is due)".to_owned(),
        Some(rate) if tally.unsent == 0 => format!("open: {} a second were due, and sent", digits(rate)),
        Some(rate) => {
            let (rate, due) = (digits(rate), count(tally.latencies.len(), unit));
            format!("open: {rate} a second, {due} due, {} of them never sent", group(tally.unsent))
        }
    };
    rows.push(("loop".to_owned(), loop_is));
    rows
}

fn server_rows(plan: &Plan, outcome: &Outcome, results: &Results) -> Vec<Row> {
    let Some(server) = &outcome.server else { return Vec::new() };
    let Some(memory) = &results.memory else {
        return vec![("server".to_owned(), format!("process {} is not there any more", server.pid))];
    };
    let (threads, before) = (count(memory.threads, "thread"), memory.threads_before);
    let mut rows = vec![("server".to_owned(), format!("{threads}, {before} before the first connection"))];
    let mut add = |name: &str, text: String| rows.push((name.to_owned(), text));
    // Where hardly anything is sent, the server's silence is what costs.
    if plan.mode == Mode::Idle
        && let Some(busy) = results.server_busy
    {
        add("", format!("{} % of a processor", digits(busy * 100.0)));
    } else if let Some(costs) = &results.server {
        add("", costs_of(costs, plan));
        if let Some(switches) = costs.switches {
            add("", format!("{} context switches a {}", digits(switches), plan.mode.unit()));
        }
    }
    add("memory", format!("{} resident, {} virtual", size(memory.resident), size(memory.virtual_memory)));
    if let Some(each) = &memory.each {
        let (resident, virtual_memory) = (size(each.resident), size(each.virtual_memory));
        add("", format!("{resident} resident, {virtual_memory} virtual more for each connection"));
        if let Some(bytes) = each.kernel {
            add("", format!("{} in the kernel for each connection, both ends together", size(bytes)));
        }
    }
    rows
}

/// `pingpong, closed loop: 16 connections, 64 bytes a message, to 127.0.0.1:8080`.
fn headline(plan: &Plan) -> String {
    let kind = match (plan.mode, plan.rate) {
        (Mode::Idle, Some(rate)) => format!("one connection speaks {} times a second", digits(rate)),
        (_, Some(_)) => "open loop".to_owned(),
        (_, None) => "closed loop".to_owned(),
    };
    let connections = count(plan.connections as u64, "connection");
    let at_a_time = if plan.mode == Mode::Churn { " at a time" } else { "" };
    let bytes = count(plan.messages.size as u64, "byte");
    let window = match plan.mode {
        Mode::Stream => format!(", {} of each on their way", count(plan.window, "message")),
        _ => String::new(),
    };
    let (mode, address) = (plan.mode.name(), &plan.target.address);
    format!("{mode}, {kind}: {connections}{at_a_time}, {bytes} a message{window}, to {address}")
}

fn opened(plan: &Plan, outcome: &Outcome) -> String {
    let opened = format!("{} of {}", group(outcome.tally.opened), group(plan.connections as u64));
    let held = match plan.mode {
        Mode::Churn => String::new(),
        _ => format!("; {} still there at the end", group(outcome.tally.held)),
    };
    format!("{opened}, in {}{held}", duration(outcome.opening))
}

fn quantiles(latencies: &Histogram<u64>) -> String {
    if latencies.is_empty() {
        return "nothing was to be sent".to_owned();
    }
    let at = |quantile| time(latencies.value_at_quantile(quantile));
    format!("p50 {}, p99 {}, p99.9 {}, max {}", at(0.5), at(0.99), at(0.999), time(latencies.max()))
}

fn costs_of(costs: &Costs, plan: &Plan) -> String {
    let Costs { cpu, user, system, .. } = costs;
    let [cpu, user, system] = [cpu, user, system].map(|microseconds| digits(*microseconds));
    let unit = plan.mode.unit();
    format!("{cpu} µs of CPU a {unit} (user {user}, system {system})")
}

/// A bar for each doubling of the latency.
fn histogram(out: &mut impl Write, latencies: &Histogram<u64>, plan: &Plan) -> io::Result<()> {
    if latencies.is_empty() {
        return Ok(());
    }
    let from = match (plan.mode, plan.rate) {
        (_, Some(_)) => "from when it was due",
        (Mode::Churn, None) => "from the beginning of connecting",
        (_, None) => "from sending it",
    };
    writeln!(out, "\nlatency of a {}, {from} to the last byte of its answer:", plan.mode.unit())?;
    let first = latencies.min().max(1).ilog2();
    let last = latencies.max().max(1).ilog2();
    let counts = (first..=last).map(|power| {
        let low = if power == 0 { 0 } else { 1_u64 << power };
        (low, latencies.count_between(low, (1_u64 << (power + 1)) - 1))
    });
    let counts: Vec<(u64, u64)> = counts.collect();
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    for (low, number) in counts {
        let bar = "█".repeat((number as f64 / most as f64 * BAR).ceil() as usize);
        writeln!(out, "  from {:>8}  {:>12}  {bar}", time(low), group(number))?;
    }
    Ok(())
}

/// What one has to know in order to read the numbers rightly.
fn notes(out: &mut impl Write, outcome: &Outcome, results: &Results) -> io::Result<()> {
    let mut notes = Vec::new();
    if outcome.tally.answered == 0 {
        notes.push("nothing was answered in the measured time: this says nothing about a rate".to_owned());
    } else if results.busy > BUSY {
        notes.push("load itself was busy nearly all the time: it may be what limits the rate".to_owned());
    }
    let lateness = outcome.tally.lateness.value_at_quantile(0.99);
    if lateness > outcome.tally.latencies.value_at_quantile(0.99) / 2 {
        notes.push(format!(
            "load itself was late, by {} at p99: this machine is busy, and the latencies show it",
            time(lateness)
        ));
    }
    if outcome.tally.waits > 0 {
        notes.push(format!(
            "connecting had to wait {} for a free port or for room in the backlog: that may be what limits the rate",
            count(outcome.tally.waits, "time")
        ));
    }
    if outcome.is_interrupted {
        notes.push("interrupted: these are the results so far".to_owned());
    }
    let failures = &outcome.tally.failures;
    for (kind, number) in &failures.counts {
        notes.push(format!("FAILED: {} ({})", count(*number, "connection"), kind.words()));
    }
    if let Some(first) = &failures.first {
        notes.push(format!("the first one: {first}"));
    }
    if !notes.is_empty() {
        writeln!(out)?;
    }
    notes.iter().try_for_each(|note| writeln!(out, "{note}"))
}
