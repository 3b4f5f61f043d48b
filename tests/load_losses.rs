//! What `load` promises where answers stay away: who was due and had none is counted, with all the time that it has
//! waited; who waits too long is given up, but nobody sooner.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use support::load::{echo, fails, load, measure_well, number, server};
use support::run;

/// A server that ends its connection number 0 when message 5 comes, without an answer.
fn leaves_at_message_5() -> SocketAddr {
    server(|connection, stream| {
        echo(stream.try_clone().unwrap(), |piece, answer| {
            if (connection, piece) == (0, 5) {
                answer.clear();
                stream.shutdown(Shutdown::Write).unwrap();
            }
        });
    })
}

/// Every connection has a message every 10 ms; 100 of them count, of which the first is message 3.
fn every_10_ms(connections: usize) -> String {
    format!("--connections {connections} --rate {} --warm-up 12ms --seconds 1", 100 * connections)
}

#[test]
fn with_a_rate_the_death_of_a_connection_counts_for_everyone_who_was_due_on_it() {
    // Also when nobody is left.
    for connections in [1, 2] {
        let options = every_10_ms(connections);
        let options: Vec<&str> = options.split(' ').collect();
        let text = "instead of an answer to message 5";
        let results = fails(leaves_at_message_5(), &options, "closed", 1, text);
        let lost = ["never_answered", "never_sent"].map(|key| number(&results[key]));
        assert_eq!((lost, number(&results["measured_s"])), ([1.0, 97.0], 1.0), "{results}");
        let latency = &results["latency_us"];
        assert_eq!(number(&latency["count"]), 100.0 * connections as f64, "{results}");
        // Message 5 was due in the first 50 ms, and has waited ever since.
        assert!(number(&latency["p99"]) > 900_000.0 && number(&latency["max"]) > 950_000.0, "{results}");
    }
}

#[test]
fn due_and_sent_is_said_only_where_it_is_true() {
    let text = |address: SocketAddr| {
        let mut command = load();
        command.args(["--addr", &address.to_string()]).args(every_10_ms(2).split(' '));
        run(&mut command, b"").1
    };
    let output = text(leaves_at_message_5());
    assert!(output.contains("open: 200 a second, 200 messages due, 97 of them never sent\n"), "{output}");
    let note = "or longer: 98 messages had no answer, counted with the time that they had waited\n";
    assert!(output.contains(note), "{output}");
    let output = text(server(|_, stream| echo(stream, |_, _| {})));
    assert!(output.contains("open: 200 a second were due, and sent\n"), "{output}");
    assert!(!output.contains("or longer"), "{output}");
}

/// A server that has no answer just once, well after the warm-up; and how many messages have come from then on.
fn swallows_one() -> (SocketAddr, Arc<AtomicUsize>) {
    let (began, came) = (OnceLock::new(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&came);
    let address = server(move |_, stream| {
        echo(stream, |_, answer| {
            let is_time = began.get_or_init(Instant::now).elapsed() > Duration::from_millis(200);
            if is_time && counted.fetch_add(1, Ordering::SeqCst) == 0 {
                answer.clear();
            }
        });
    });
    (address, came)
}

#[test]
fn an_answer_that_never_comes_is_given_up_and_counts_with_the_time_that_it_was_waited_for() {
    for options in [&["--rate", "100", "--seconds", "1"][..], &["--seconds", "100"]] {
        let options = [&["--patience", "300ms", "--warm-up", "1ms"], options].concat();
        let (address, came) = swallows_one();
        let results = fails(address, &options, "no_answer", 1, " in 300ms");
        assert_eq!((came.load(Ordering::SeqCst), number(&results["never_answered"])), (1, 1.0), "{results}");
        assert!(number(&results["latency_us"]["max"]) >= 300_000.0, "{results}");
        // With nobody left, it does not wait for the rest of its time.
        assert!(number(&results["measured_s"]) < 50.0, "{results}");
    }
}

#[test]
fn churning_goes_on_after_an_answer_that_never_comes() {
    let (address, came) = swallows_one();
    let options = ["--mode", "churn", "--patience", "200ms", "--seconds", "2", "--warm-up", "1ms"];
    let results = fails(address, &options, "no_answer", 1, " in 200ms");
    let came = came.load(Ordering::SeqCst);
    assert!(came > 1, "nobody came after the one that was never answered: {results}");
    assert_eq!(number(&results["never_answered"]), 1.0, "{results}");
    assert!(number(&results["latency_us"]["max"]) >= 200_000.0, "{results}");
}

#[test]
fn who_answers_slowly_but_in_time_is_never_given_up() {
    let slow = || server(|_, stream| echo(stream, |_, _| thread::sleep(Duration::from_millis(20))));
    let options = ["--patience", "1s", "--seconds", "1.5"];
    for more in [&["--mode", "churn"][..], &["--rate", "1000"], &["--mode", "stream", "--size", "1000"]] {
        let results = measure_well(&slow().to_string(), &[&options[..], more].concat());
        assert!(number(&results["measured_s"]) >= 1.5, "{results}");
    }
}

#[test]
fn however_long_opening_them_all_takes_only_each_one_s_own_time_counts() {
    // 4 at a time: ten times 250 ms.
    let address = server(|_, stream| {
        echo(stream, |piece, _| {
            if piece == 0 {
                thread::sleep(Duration::from_millis(250));
            }
        });
    });
    let options = ["--connections", "40", "--patience", "2s", "--threads", "1"];
    let results = measure_well(&address.to_string(), &options);
    assert!(number(&results["opening_s"]) > 2.2, "they were not opened slowly: {results}");
}
