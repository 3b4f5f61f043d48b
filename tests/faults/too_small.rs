//! A machine that is too small for what is asked of the server: it does not start, and says which limit it was. What
//! it does start with, it can hold.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;

use rustix::process::getuid;
use socket_steps::limits::{self, Limit};

use crate::control_group::ControlGroup;
use crate::support::figures::{figure, full, lacks};
use crate::support::{PREFIX, Server, after, program, run, threads};

/// The user without rights. Only for such a one is there a limit of threads.
const NOBODY: u32 = 65534;

/// The server, in a shell that does something before it becomes the server.
fn server_after(preparation: &str) -> Command {
    let mut shell = after(preparation, program().get_program());
    shell.args(["--no-page", "--listen", "127.0.0.1:0"]);
    shell
}

/// The server, as a user who may have so many threads: the limit is called -p by dash, -u by the other shells.
fn with_threads(user: u32, number: usize) -> Command {
    let mut shell = server_after(&format!("(ulimit -u {number}) 2>&- && ulimit -u {number} || ulimit -p {number}"));
    if user != getuid().as_raw() {
        shell.uid(user);
    }
    shell
}

/// How many threads this user has now: the limit is for all of them together.
fn threads_of(user: u32) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let threads = processes.filter_map(|process| {
        let status = fs::read_to_string(process.path().join("status")).ok()?;
        let number = |name: &str| -> Option<usize> {
            status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
        };
        if number("Uid:")? == user as usize { number("Threads:") } else { None }
    });
    threads.sum()
}

/// Puts the files of a control group of version 2, whose parent has room for so many threads, in the place of this
/// machine's, for one server: a machine has the one version or the other. Needs the administrator's rights.
fn in_version_2(files: &Path, threads: usize) -> Command {
    let inner = files.join("groups/outer/inner");
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("pids.max"), "max\n").unwrap();
    fs::write(files.join("groups/outer/pids.max"), format!("{threads}\n")).unwrap();
    fs::write(files.join("own"), "0::/outer/inner\n").unwrap();
    let mounts =
        format!("cd '{}' && mount --bind groups /sys/fs/cgroup && mount --bind own /proc/$$/cgroup", files.display());
    let mut command = Command::new("unshare");
    let shell = server_after(&mounts);
    command.arg("--mount").arg(shell.get_program()).args(shell.get_args()).env_remove("RUST_LOG");
    command
}

/// One connection more than fit: one line that names the limit and its value, and status 2. No signal, such as
/// the SIGABRT of a program whose threads find no memory maps.
fn is_refused(mut command: Command, limit: &str, value: usize, fit: usize) {
    command.args(["--max-connections", &(fit + 1).to_string()]);
    let (status, output, line) = run(&mut command, b"");
    assert_eq!((status.code(), status.signal(), output.as_str()), (Some(2), None, ""), "{line}");
    assert!(line.contains(&format!("{limit} is {value}, enough for {fit} connections")), "{line}");
    assert!(!line.contains('\n'), "{line}");
}

#[test]
fn a_limit_that_leaves_no_room_is_named() {
    let mut named = vec!["descriptors"];
    is_refused(server_after("ulimit -n 700"), "the descriptor limit (ulimit -n)", 700, 461);

    let tightest = tightest_when_raised();
    is_refused(server_after("true"), tightest.name, tightest.value, tightest.connections);
    if tightest.name.contains("vm.max_map_count") {
        named.push("memory maps");
    } else {
        lacks("B3", "memory-maps", format!("memory maps: here they do not run out first: {tightest}"));
    }

    let user = if getuid().is_root() { NOBODY } else { getuid().as_raw() };
    // What runs beside this has room, too.
    let most = threads_of(user) + 1000;
    if tightest.connections < most {
        lacks("B3", "room", format!("threads of a user: here {tightest}, which is less than {most} threads"));
    } else if with_threads(user, most).arg("--help").output().is_ok_and(|help| help.status.success()) {
        is_refused(with_threads(user, most), "the thread limit of this user (ulimit -u)", most, most - 32);
        named.push("threads of a user");
    } else {
        lacks("B3", "another-user", "threads of a user: this program is not to be run by just anybody here");
    }

    match ControlGroup::new("too-small") {
        Ok(group) => {
            group.write("pids.max", 300).unwrap();
            let server = server_after(&format!("echo $$ >'{}'", group.file("cgroup.procs").display()));
            is_refused(server, "the thread limit of this control group (pids.max)", 300, 268);
            named.push("threads of a control group");
        }
        Err(why) => lacks("B3", "cgroup", format!("threads of a control group: {why}")),
    }
    let files = tempfile::tempdir().unwrap();
    if in_version_2(files.path(), 300).arg("--help").output().is_ok_and(|help| help.status.success()) {
        is_refused(in_version_2(files.path(), 300), "the thread limit of this control group (pids.max)", 300, 268);
        named.push("the same in version 2");
    } else {
        lacks("B3", "mounts", "threads of a control group of version 2: only the administrator may mount its files");
    }
    figure("B3", true, format_args!("too small, named in one line, status 2: {}", named.join(", ")));
}

/// The other side of the promise: where it says that so many fit, so many threads can be started.
#[test]
fn as_many_as_are_said_to_fit_do_fit() {
    // At full size: all that this machine can hold, unless it is a giant.
    let (mut command, most) = match full() {
        true => (server_after("true"), tightest_when_raised().connections.min(20_000)),
        false => (server_after("ulimit -n 700"), 461),
    };
    let most = most.to_string();
    let server = Server::from_command(command.args(["--max-connections", &most, "--min-workers", &most]));
    let started = threads(server.pid());
    server.client().send("hello").expect(format!("{PREFIX}hello"));
    assert!(started > most.parse().unwrap(), "only {started} threads");
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    figure(
        "B3",
        true,
        format_args!("as many as are said to fit: {most} workers started, {started} threads in all, and ended"),
    );
}

/// The tightest limit when that of descriptors is raised, as the server raises it.
fn tightest_when_raised() -> Limit {
    limits::raise_descriptors().unwrap();
    limits::tightest()
}
