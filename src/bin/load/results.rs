//! The results as numbers: per second, per message, per connection; and for machines.
//!
//! The keys of the JSON object, of which "message" is a connection in a churning run, and "counts" means: was to be
//! sent in the measured time. What is not known, or would say nothing, is null.
//!
//! | key | what it is |
//! |---|---|
//! | `mode`, `loop`, `address` | what was measured: `loop` is `open` with a rate, else `closed` |
//! | `connections`, `threads`, `seed` | as they were asked for |
//! | `size`, `window` | bytes of a message; messages of one connection that may be on their way |
//! | `rate` | messages a second that were asked for |
//! | `warm_up_s`, `measured_s`, `opening_s` | seconds |
//! | `opened`, `held` | connections that were greeted; that were there, without a fault, at the end |
//! | `interrupted` | whether Ctrl-C has ended it |
//! | `answered`, `per_second`, `megabytes_per_second` | messages answered in the measured time; 10⁶ bytes each way |
//! | `never_sent`, `never_answered` | messages that count and had no answer; in `latency_us` with the time waited |
//! | `latency_us` | microseconds: `count`, `mean`, `p50`, `p99`, `p99_9`, `max` of all messages that count |
//! | `sent_late_us` | by how much load itself was late: `p50`, `p99`, `max` |
//! | `server` | `pid`; `per_answer` and `busy` as in `load`; and `memory` |
//! | `server.memory` | `threads`, `threads_before` the first connection, `resident_bytes`, `virtual_bytes` |
//! | | `resident_`, `virtual_`, `kernel_bytes_per_connection`: null with under 100, and in a churning run |
//! | `load.per_answer` | `cpu_us`, `user_us`, `system_us` for each message answered, and its context `switches` |
//! | `load.busy` | share of the measured time in which a thread of load (the server as a whole) used a processor |
//! | `waits_for_a_port` | how often a connection had to wait for a port, or for room in a path's backlog |
//! | `failures`, `first_failure` | failed connections by kind; the first one in words |

use std::time::Duration;

use serde_json::{Value, json};

use crate::plan::{Mode, Plan};
use crate::run::{Outcome, Server, Span};

/// From so many connections on, one connection's share of the memory says something.
const ENOUGH: u64 = 100;

/// What follows from an outcome.
pub(crate) struct Results {
    /// Messages a second, or connections.
    pub(crate) rate: f64,
    /// Millions of bytes a second in each direction, prefixes not counted.
    pub(crate) megabytes: f64,
    pub(crate) server: Option<Costs>,
    /// The share of one processor's time that the server has used.
    pub(crate) server_busy: Option<f64>,
    pub(crate) memory: Option<Memory>,
    pub(crate) own: Option<Costs>,
    /// The share of the time in which load's threads have used a processor.
    pub(crate) busy: f64,
}

/// Microseconds of processor time a message, and what else it costs.
pub(crate) struct Costs {
    pub(crate) cpu: f64,
    pub(crate) user: f64,
    pub(crate) system: f64,
    /// Context switches a message; those of threads that have ended are not known.
    pub(crate) switches: Option<f64>,
}

/// Bytes, at the end of the measured time.
pub(crate) struct Memory {
    pub(crate) threads: u64,
    pub(crate) threads_before: u64,
    pub(crate) resident: f64,
    pub(crate) virtual_memory: f64,
    /// Only where there are connections enough.
    pub(crate) each: Option<Each>,
}

/// Bytes that were added since before the first connection, for each.
pub(crate) struct Each {
    pub(crate) resident: f64,
    pub(crate) virtual_memory: f64,
    /// Of the whole machine: both ends, and whatever else has happened on it.
    pub(crate) kernel: Option<f64>,
}

impl Results {
    pub(crate) fn of(plan: &Plan, outcome: &Outcome) -> Results {
        let seconds = outcome.measured.as_secs_f64();
        let answered = outcome.tally.answered as f64;
        let rate = if seconds > 0.0 { answered / seconds } else { 0.0 };
        let costs = |span| Costs::of(span, answered, outcome.tally.answered_in_all as f64);
        let busy = |span: &Span| {
            let [from, to] = &span.samples;
            let used = to.cpu.saturating_sub(from.cpu).as_secs_f64();
            if seconds > 0.0 { used / seconds } else { 0.0 }
        };
        let measured = outcome.server.as_ref().and_then(|server| server.measured.as_ref());
        // A connection's share of the memory is lost among everything else with a few, and with those that come and go.
        let connections = Some(outcome.tally.opened).filter(|opened| *opened >= ENOUGH && plan.mode != Mode::Churn);
        Results {
            rate,
            megabytes: rate * plan.messages.size as f64 / 1e6,
            server: measured.and_then(costs),
            server_busy: measured.map(busy),
            memory: outcome.server.as_ref().and_then(|server| Memory::of(server, connections)),
            own: outcome.own.as_ref().and_then(costs),
            busy: outcome.own.as_ref().map_or(0.0, busy) / plan.threads as f64,
        }
    }
}

impl Costs {
    fn of(span: &Span, messages: f64, messages_in_all: f64) -> Option<Costs> {
        let [before, after] = &span.samples;
        let each = |before: Duration, after: Duration| after.saturating_sub(before).as_secs_f64() * 1e6 / messages;
        (messages > 0.0).then(|| Costs {
            cpu: each(before.cpu, after.cpu),
            user: each(before.user, after.user),
            system: each(before.system, after.system),
            switches: span.switches.map(|switches| switches as f64 / messages_in_all),
        })
    }

    fn to_json(&self) -> Value {
        let Costs { cpu, user, system, switches } = self;
        json!({ "cpu_us": cpu, "user_us": user, "system_us": system, "switches": switches })
    }
}

impl Memory {
    fn of(server: &Server, connections: Option<u64>) -> Option<Memory> {
        let [_, after] = &server.measured.as_ref()?.samples;
        let (before, kernel_before) = (&server.before.sample, server.before.kernel);
        let each = |connections: u64| {
            let share = |before: u64, after: u64| (after as f64 - before as f64) / connections as f64;
            Each {
                resident: share(before.resident, after.resident),
                virtual_memory: share(before.virtual_memory, after.virtual_memory),
                kernel: kernel_before.zip(server.kernel).map(|(before, after)| share(before, after)),
            }
        };
        Some(Memory {
            threads: after.threads,
            threads_before: before.threads,
            resident: after.resident as f64,
            virtual_memory: after.virtual_memory as f64,
            each: connections.map(each),
        })
    }

    fn to_json(&self) -> Value {
        let each = self.each.as_ref();
        json!({
            "threads": self.threads,
            "threads_before": self.threads_before,
            "resident_bytes": self.resident,
            "virtual_bytes": self.virtual_memory,
            "resident_bytes_per_connection": each.map(|each| each.resident),
            "virtual_bytes_per_connection": each.map(|each| each.virtual_memory),
            "kernel_bytes_per_connection": each.and_then(|each| each.kernel),
        })
    }
}

/// Everything, as one object.
pub(crate) fn json(plan: &Plan, outcome: &Outcome) -> Value {
    let results = Results::of(plan, outcome);
    let tally = &outcome.tally;
    let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1e3;
    let at =
        |quantile| (!tally.latencies.is_empty()).then(|| microseconds(tally.latencies.value_at_quantile(quantile)));
    let failures: serde_json::Map<_, _> =
        tally.failures.counts.iter().map(|(kind, count)| (kind.key().to_owned(), json!(count))).collect();
    json!({
        "mode": plan.mode.name(),
        "loop": if plan.rate.is_some() { "open" } else { "closed" },
        "address": plan.target.address.to_string(),
        "connections": plan.connections,
        "size": plan.messages.size,
        "window": plan.window,
        "rate": plan.rate,
        "threads": plan.threads,
        "seed": plan.seed,
        "warm_up_s": plan.warm_up.as_secs_f64(),
        "measured_s": outcome.measured.as_secs_f64(),
        "opening_s": outcome.opening.as_secs_f64(),
        "opened": tally.opened,
        "held": tally.held,
        "interrupted": outcome.is_interrupted,
        "answered": tally.answered,
        "per_second": results.rate,
        "megabytes_per_second": results.megabytes,
        "never_sent": tally.unsent,
        "never_answered": tally.unanswered,
        "latency_us": {
            "count": tally.latencies.len(),
            "mean": (!tally.latencies.is_empty()).then(|| tally.latencies.mean() / 1e3),
            "p50": at(0.5),
            "p99": at(0.99),
            "p99_9": at(0.999),
            "max": (!tally.latencies.is_empty()).then(|| microseconds(tally.latencies.max())),
        },
        "sent_late_us": {
            "p50": microseconds(tally.lateness.value_at_quantile(0.5)),
            "p99": microseconds(tally.lateness.value_at_quantile(0.99)),
            "max": microseconds(tally.lateness.max()),
        },
        "server": outcome.server.as_ref().map(|server| json!({
            "pid": server.pid,
            "per_answer": results.server.as_ref().map(Costs::to_json),
            "busy": results.server_busy,
            "memory": results.memory.as_ref().map(Memory::to_json),
        })),
        "load": { "per_answer": results.own.as_ref().map(Costs::to_json), "busy": results.busy },
        "waits_for_a_port": tally.waits,
        "failures": failures,
        "first_failure": tally.failures.first,
    })
}
