//! The machine lets a running server start no more threads: for want of memory to put a stack in, of thread numbers in
//! its control group, or of processes that its user may have. (That descriptors run out is in `tests/descriptors.rs`.)

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, geteuid, getrlimit, prlimit};
use socket_steps::pool::STACK;

use crate::control_group::ControlGroup;
use crate::support::needs::{has_program, skip};
use crate::support::{Client, Server, address_space, program, wait_until};

/// How many clients come while no thread can be started.
const NEWCOMERS: usize = 20;

const OPTIONS: [&str; 6] = ["--no-page", "--listen", "127.0.0.1:0", "--service", "lines", "--min-workers=2"];

fn start(command: &mut Command) -> Server {
    Server::from_command(command.args(OPTIONS))
}

const TOLD: &str = "busy: no thread could be started, try again later\n";

/// While the limit is there, those who have a thread are served, and newcomers are told; once it is lifted, everyone is
/// served again.
fn is_survived(server: Server, limit: impl FnOnce(&Server), lift: impl FnOnce(&Server)) {
    let mut held = vec![server.client(), server.client()];
    held.iter_mut().for_each(Client::say_hello);
    limit(&server);
    let mut told = 0;
    while told < NEWCOMERS {
        let mut newcomer = server.client();
        if let Err(busy) = newcomer.send("hello\n").hear("hello\n") {
            assert_eq!(busy, TOLD);
            told += 1;
        } else {
            // A thread more had been started: the others were not there yet when somebody came.
            held.push(newcomer);
            assert!(held.len() <= 4, "threads can be started");
        }
        held.iter_mut().for_each(Client::say_hello);
    }
    lift(&server);
    let mut more: Vec<Client> = (0..NEWCOMERS).map(|_| server.client()).collect();
    more.iter_mut().chain(&mut held).for_each(Client::say_hello);
    let served = (held.len() + more.len()) as u64;
    drop((held, more));
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    let counted = ["served", "refused", "failed"].map(|name| ended.accounts.of(name));
    println!("no thread for {NEWCOMERS}, who were told; {served} were served before, meanwhile, and after");
    assert_eq!(counted, [served, NEWCOMERS as u64, 0]);
    assert!(ended.log.contains("no thread could be started: Resource temporarily unavailable"), "{}", ended.log);
}

/// Lowers one of its limits, or sets it back to what it was when it was started by us.
fn set(server: &Server, resource: Resource, lower: Option<u64>) {
    let Rlimit { current, maximum } = getrlimit(resource);
    let limit = Rlimit { current: lower.or(current), maximum };
    prlimit(Pid::from_raw(server.pid() as i32), resource, limit).unwrap();
}

#[test]
fn without_room_for_another_stack_newcomers_are_told() {
    // While a thread allocates for the first time, the C library maps far more than it keeps, for a moment.
    let settled = |server: &Server| {
        server.wait_for_log("#2 ");
        let mut same = (0, 0);
        wait_until("the address space has settled", || {
            let now = 1024 * address_space(server.pid());
            same = if same.1 == now { (same.0 + 1, now) } else { (0, now) };
            (same.0 == 20).then_some(now)
        })
    };
    // As with `ulimit -v`. There is no room for a stack; what it needs besides, it has.
    let limit = |server: &Server| set(server, Resource::As, Some(settled(server) + STACK as u64 / 2));
    is_survived(start(&mut program()), limit, |server| set(server, Resource::As, None));
}

#[test]
fn without_a_process_more_for_its_user_newcomers_are_told() {
    // The limit counts all that a user has, and root has none. A user that nobody is:
    const NOBODY: u32 = 64_123;
    let as_nobody = |mut command: Command| {
        if geteuid().is_root() {
            command.uid(NOBODY);
        }
        command
    };
    // Whoever is to change the limits of a program is the same user as the program.
    let prlimit = |server: &Server, limit: &str| {
        let mut prlimit = as_nobody(Command::new("prlimit"));
        prlimit.arg(format!("--pid={}", server.pid())).arg(format!("--nproc={limit}:"));
        assert!(prlimit.status().unwrap().success());
    };
    if !has_program("prlimit") {
        return;
    }
    let looked = as_nobody(program()).arg("--version").stdout(Stdio::null()).status();
    if !looked.is_ok_and(|status| status.success()) {
        return skip("another-user", "root has no limit of processes, and nobody else may run the program here");
    }
    let usual = getrlimit(Resource::Nproc).current.map_or("unlimited".to_owned(), |limit| limit.to_string());
    // As with `ulimit -u`: less than it has already.
    is_survived(start(&mut as_nobody(program())), |server| prlimit(server, "1"), |server| prlimit(server, &usual));
}

#[test]
fn without_a_thread_more_for_its_control_group_newcomers_are_told() {
    // Outlives the server, however this test ends.
    let group = match ControlGroup::new("limits") {
        Ok(group) => group,
        Err(why) => return skip("cgroup", why),
    };
    let server = start(&mut program());
    if let Err(error) = group.write("cgroup.procs", server.pid()) {
        return skip("cgroup", format_args!("the server cannot be moved to another one: {error}"));
    }
    let now = |_: &Server| group.write("pids.max", group.read("pids.current").trim()).unwrap();
    let lift = |_: &Server| {
        let events = group.read("pids.events");
        let hits = events.lines().find_map(|line| line.strip_prefix("max ")).unwrap();
        assert!(hits.parse::<usize>().unwrap() >= NEWCOMERS, "{events}");
        group.write("pids.max", "max").unwrap();
    };
    is_survived(server, now, lift);
}
