//! The program `load`, its results, and servers of a test's own for it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::thread;

use serde_json::Value;

use super::run;

pub fn load() -> Command {
    Command::new(env!("CARGO_BIN_EXE_load"))
}

/// Runs it to its end; what it has measured.
pub fn measure(address: &str, options: &[&str]) -> (ExitStatus, Value) {
    let mut command = load();
    command.args(["--addr", address, "--json"]).args(options);
    if !options.contains(&"--seconds") {
        command.args(["--seconds", "0.3"]);
    }
    let (status, output, errors) = run(&mut command, b"");
    assert_eq!(errors, "", "{command:?}");
    let results = serde_json::from_str(&output).unwrap_or_else(|why| panic!("{why}: {output}"));
    (status, results)
}

/// The same, where everything must be right.
pub fn measure_well(address: &str, options: &[&str]) -> Value {
    let (status, results) = measure(address, options);
    assert_eq!((status.code(), &results["first_failure"]), (Some(0), &Value::Null), "{results}");
    assert!(number(&results["answered"]) > 0.0, "{results}");
    assert_eq!(results["opened"], results["connections"], "{results}");
    results
}

pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

/// A server of the test's own: each connection and its number go to a thread.
pub fn server(handler: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handler = Arc::new(handler);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let handler = Arc::clone(&handler);
            thread::spawn(move || handler(number, stream));
        }
    });
    address
}

/// Sends everything back, in the pieces in which it came, after `change` has seen how many there were before.
pub fn echo(mut stream: TcpStream, mut change: impl FnMut(usize, &mut Vec<u8>)) {
    let mut buffer = vec![0; 64 * 1024];
    for piece in 0.. {
        let Ok(count @ 1..) = stream.read(&mut buffer) else { return };
        let mut answer = buffer[..count].to_vec();
        change(piece, &mut answer);
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

/// Exit status 1, so many failures of this kind, and a first failure that contains the text.
pub fn fails(address: SocketAddr, options: &[&str], kind: &str, count: u64, text: &str) -> Value {
    let (status, results) = measure(&address.to_string(), options);
    assert_eq!((status.code(), &results["failures"][kind]), (Some(1), &Value::from(count)), "{results}");
    let first = results["first_failure"].as_str().unwrap();
    assert!(first.contains(text), "no {text:?} in {first:?}");
    results
}

/// Exit status 2, and one line that contains the text.
pub fn refuses(options: &[&str], text: &str) {
    let (status, output, errors) = run(load().args(options), b"");
    assert_eq!((status.code(), output.as_str()), (Some(2), ""), "{options:?}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{options:?}: {errors}");
    assert!(errors.starts_with("load: ") && errors.contains(text), "{options:?}: no {text:?} in {errors}");
}
