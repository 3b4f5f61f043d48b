//! The results as numbers: per second, per message, per connection; and for machines.

use std::time::Duration;

use serde_json::{Value, json};

use crate::plan::Plan;
use crate::process::Sample;
use crate::run::{Outcome, Server};

/// What follows from an outcome.
pub(crate) struct Results {
    /// Messages a second, or connections.
    pub(crate) rate: f64,
    /// Millions of bytes a second in each direction, prefixes not counted.
    pub(crate) megabytes: f64,
    pub(crate) server: Option<Costs>,
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

/// Bytes, at the end of the measured time; and what was added since before the first connection, for each.
pub(crate) struct Memory {
    pub(crate) threads: u64,
    pub(crate) threads_before: u64,
    pub(crate) resident: f64,
    pub(crate) virtual_memory: f64,
    pub(crate) resident_each: f64,
    pub(crate) virtual_each: f64,
    /// Of the whole machine: both ends, and whatever else has happened on it.
    pub(crate) kernel_each: Option<f64>,
}

impl Results {
    pub(crate) fn of(plan: &Plan, outcome: &Outcome) -> Results {
        let seconds = outcome.measured.as_secs_f64();
        let answered = outcome.tally.answered as f64;
        let rate = if seconds > 0.0 { answered / seconds } else { 0.0 };
        let costs = |samples: [&Sample; 2]| Costs::of(samples, answered);
        let measured = outcome.server.as_ref().and_then(|server| server.measured.as_ref());
        let used = outcome.own.as_ref().map_or(Duration::ZERO, |[before, after]| after.cpu - before.cpu);
        Results {
            rate,
            megabytes: rate * plan.messages.size as f64 / 1e6,
            server: measured.and_then(|[before, after]| costs([&before.sample, &after.sample])),
            memory: outcome.server.as_ref().and_then(|server| Memory::of(server, outcome.tally.opened)),
            own: outcome.own.as_ref().and_then(|[before, after]| costs([before, after])),
            busy: if seconds > 0.0 { used.as_secs_f64() / seconds / plan.threads as f64 } else { 0.0 },
        }
    }
}

impl Costs {
    fn of([before, after]: [&Sample; 2], messages: f64) -> Option<Costs> {
        let each = |before: Duration, after: Duration| after.saturating_sub(before).as_secs_f64() * 1e6 / messages;
        (messages > 0.0).then(|| Costs {
            cpu: each(before.cpu, after.cpu),
            user: each(before.user, after.user),
            system: each(before.system, after.system),
            switches: after.switches_since(before).map(|switches| switches as f64 / messages),
        })
    }

    fn to_json(&self) -> Value {
        let Costs { cpu, user, system, switches } = self;
        json!({ "cpu_us": cpu, "user_us": user, "system_us": system, "switches": switches })
    }
}

impl Memory {
    fn of(server: &Server, connections: u64) -> Option<Memory> {
        let [_, after] = server.measured.as_ref()?;
        let each = |before: u64, after: u64| (after as f64 - before as f64) / connections.max(1) as f64;
        let (before, kernel_before) = (&server.before.sample, server.before.kernel);
        Some(Memory {
            threads: after.sample.threads,
            threads_before: before.threads,
            resident: after.sample.resident as f64,
            virtual_memory: after.sample.virtual_memory as f64,
            resident_each: each(before.resident, after.sample.resident),
            virtual_each: each(before.virtual_memory, after.sample.virtual_memory),
            kernel_each: kernel_before.zip(after.kernel).map(|(before, after)| each(before, after)),
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "threads": self.threads,
            "threads_before": self.threads_before,
            "resident_bytes": self.resident,
            "virtual_bytes": self.virtual_memory,
            "resident_bytes_per_connection": self.resident_each,
            "virtual_bytes_per_connection": self.virtual_each,
            "kernel_bytes_per_connection": self.kernel_each,
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
            "memory": results.memory.as_ref().map(Memory::to_json),
        })),
        "load": { "per_answer": results.own.as_ref().map(Costs::to_json), "busy": results.busy },
        "waits_for_a_port": tally.waits,
        "failures": failures,
        "first_failure": tally.failures.first,
    })
}
