//! Accept fails in every way that accept(2) knows, and the server is there for the next client; or, where nothing can
//! be hoped for, it says so and ends.

use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;

use crate::support::Server;
use crate::support::figures::{figure, full, skipped};
use crate::support::trace::Trace;

/// A client is answered this soon after the trouble: a pause is a second at most.
const SOON: Duration = Duration::from_millis(1100);

/// The client that was next has gone, or the network has lost it: accept(2), "Error handling".
const ABOUT_A_CLIENT: [(&str, Errno); 11] = [
    ("ECONNABORTED", Errno::CONNABORTED),
    ("EPROTO", Errno::PROTO),
    ("ENETDOWN", Errno::NETDOWN),
    ("EHOSTUNREACH", Errno::HOSTUNREACH),
    ("EPERM", Errno::PERM),
    ("ENOPROTOOPT", Errno::NOPROTOOPT),
    ("EHOSTDOWN", Errno::HOSTDOWN),
    ("ENONET", Errno::NONET),
    ("EOPNOTSUPP", Errno::OPNOTSUPP),
    ("ENETUNREACH", Errno::NETUNREACH),
    ("ETIMEDOUT", Errno::TIMEDOUT),
];

/// The machine has run out of something, and may have it again.
const ABOUT_THE_MACHINE: [(&str, Errno); 4] =
    [("EMFILE", Errno::MFILE), ("ENFILE", Errno::NFILE), ("ENOBUFS", Errno::NOBUFS), ("ENOMEM", Errno::NOMEM)];

/// The listener is none (any more).
const ABOUT_THE_LISTENER: [(&str, Errno); 4] =
    [("EBADF", Errno::BADF), ("EINVAL", Errno::INVAL), ("ENOTSOCK", Errno::NOTSOCK), ("EFAULT", Errno::FAULT)];

/// The finished server, of which these calls of accept fail.
fn failing(error: &str, when: &str) -> Option<(Server, Trace)> {
    let fault = format!("accept4:error={error}:when={when}");
    let failing = Trace::of_a_server(&fault, &["--service", "lines"]);
    if failing.is_none() {
        skipped("B8", "strace cannot be used here");
    }
    failing
}

/// One line a second at most, and one to begin with.
fn assert_complaints(log: &str, complaint: &str, elapsed: Duration) {
    let count = log.matches(complaint).count();
    assert!(count >= 1, "no {complaint:?} in: {log}");
    assert!(count as u64 <= 1 + elapsed.as_secs(), "{count} complaints in {elapsed:?}: {log}");
}

#[test]
fn an_error_about_one_client_holds_up_no_other() {
    const CLIENTS: u32 = 10;
    let mut worst = Duration::ZERO;
    for (name, errno) in ABOUT_A_CLIENT {
        // Every other call.
        let Some((server, trace)) = failing(name, "1+2") else { return };
        let began = Instant::now();
        for _ in 0..CLIENTS {
            let connecting = Instant::now();
            server.client().say_hello();
            worst = worst.max(connecting.elapsed());
        }
        let elapsed = began.elapsed();
        let ended = server.stop();
        assert!(ended.status.success(), "{name}: {ended:?}");
        assert_eq!(ended.accounts.of("served"), u64::from(CLIENTS), "{name}");
        assert_complaints(&ended.log, &format!("a client was lost before accept: {errno}"), elapsed);
        trace.assert_injected(CLIENTS as usize..);
    }
    let kinds = ABOUT_A_CLIENT.len();
    figure(
        "B8",
        worst <= SOON,
        format!("{kinds} errors about one client, ten of each: the next is answered in {worst:.1?}"),
    );
}

#[test]
fn an_error_about_the_machine_is_waited_out_and_the_next_client_is_answered_soon() {
    // Two for each pause, for it is tried once more with the spare descriptor. At full size until the pause is a second.
    let errors = if full() { 18 } else { 8 };
    let mut worst = Duration::ZERO;
    for (name, errno) in ABOUT_THE_MACHINE {
        let Some((server, trace)) = failing(name, &format!("1..{errors}")) else { return };
        let began = Instant::now();
        server.client().say_hello();
        let answered = SystemTime::now();
        let injections = trace.wait_for_injections(errors);
        worst = worst.max(answered.duration_since(injections[errors - 1]).unwrap());
        let elapsed = began.elapsed();

        server.client().say_hello();
        let ended = server.stop();
        assert!(ended.status.success(), "{name}: {ended:?}");
        assert_eq!((ended.accounts.of("accepted"), ended.accounts.of("served")), (2, 2), "{name}");
        assert!(ended.log.contains(&format!("cannot accept, next try in 5ms: {errno}")), "{name}: {}", ended.log);
        assert_complaints(&ended.log, "cannot accept, next try in", elapsed);
        assert_eq!(injections.len(), errors, "{name}");
    }
    let kinds = ABOUT_THE_MACHINE.len();
    figure(
        "B8",
        worst <= SOON,
        format!("{kinds} errors about the machine, {errors} in a row: an answer {worst:.0?} after the last"),
    );
}

#[test]
fn a_client_for_whom_the_machine_has_nothing_left_is_told_and_the_next_one_is_served() {
    for (name, _) in ABOUT_THE_MACHINE {
        let Some((server, trace)) = failing(name, "1") else { return };
        assert_eq!(server.client().rest_as_text(), "busy: no descriptors are left, try again later\n", "{name}");
        server.client().say_hello();
        let ended = server.stop();
        assert!(ended.status.success(), "{name}: {ended:?}");
        assert_eq!((ended.accounts.of("served"), ended.accounts.of("refused")), (1, 1), "{name}");
        trace.assert_injected(1..=1);
    }
}

#[test]
fn an_error_about_the_listener_ends_the_server_which_says_so_and_lets_its_clients_go_in_good_order() {
    for (name, errno) in ABOUT_THE_LISTENER {
        let Some((server, trace)) = failing(name, "3") else { return };
        let address = server.address().to_owned();
        // The first call brings a client, the second brings nobody.
        let mut first = server.client();
        first.say_hello();
        let second = server.client();
        assert_eq!(first.rest_as_text(), "", "{name}");
        drop(second);
        let ended = server.wait();
        assert_eq!(ended.status.code(), Some(1), "{name}: {ended:?}");
        assert!(ended.log.contains(&format!("accepting ended: {address}: {errno}")), "{name}: {}", ended.log);
        trace.assert_injected(1..=1);
    }
    let kinds = ABOUT_THE_LISTENER.len();
    figure("B8", true, format!("{kinds} errors about the listener: a clear error, status 1, the books balance"));
}
