//! Two machines in one, with a cable between them that can be cut: network namespaces, and a pair of virtual devices.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::needs::is_installed;
use crate::support::wait_until;

/// A network of its own, for as long as this is held.
pub(crate) struct Machine {
    /// A program that lives there and does nothing. It ends with its input, so at the latest with us, and with the
    /// last program in it the network ends too.
    resident: Child,
}

impl Machine {
    /// A machine that is connected to nothing yet; or why there is none.
    pub(crate) fn new() -> Result<Machine, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may make a network of its own".to_owned());
        }
        for program in ["unshare", "ip"] {
            if !is_installed(program) {
                return Err(format!("{program} is not installed here"));
            }
        }
        let mut command = Command::new("unshare");
        command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut machine = Machine { resident: command.spawn().unwrap() };
        let ours = fs::read_link("/proc/self/ns/net").unwrap();
        let moved = wait_until("it has a network of its own", || {
            let theirs = fs::read_link(machine.proc("ns/net")).ok().filter(|theirs| *theirs != ours);
            let ended = machine.resident.try_wait().unwrap();
            if ended.is_some() { Some(false) } else { theirs.map(|_| true) }
        });
        if moved { Ok(machine) } else { Err("this root may not make a network of its own".to_owned()) }
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.resident.id()))
    }

    /// Does this there: what it listens on, connects, and starts, stays there.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let network = File::open(self.proc("ns/net")).unwrap();
        let on_a_thread = || {
            // Of this thread alone.
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(on_a_thread).join().unwrap())
    }

    /// Runs ip(8) there.
    pub(crate) fn ip(&self, words: &str) -> Result<(), String> {
        let output = self.run(|| Command::new("ip").args(words.split(' ')).output().unwrap());
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        }
    }

    /// What its kernel has counted: a table of `/proc/net/snmp` or `/proc/net/netstat`, and a column in it.
    pub(crate) fn counter(&self, table: &str, column: &str) -> u64 {
        let read = |file| fs::read_to_string(self.proc(file)).unwrap();
        let text = read("net/snmp") + &read("net/netstat");
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(table)?.strip_prefix(": "));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let at = names.split(' ').position(|name| name == column).unwrap();
        values.split(' ').nth(at).unwrap().parse().unwrap()
    }

    /// How many TCP sockets there are that do not listen, whatever they wait for.
    pub(crate) fn connections(&self) -> usize {
        const LISTEN: &str = "0A";
        let table = fs::read_to_string(self.proc("net/tcp")).unwrap();
        table.lines().skip(1).filter(|line| line.split_whitespace().nth(3) != Some(LISTEN)).count()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.resident.kill();
        let _ = self.resident.wait();
    }
}

/// A server's machine and a client's, with a cable between them.
pub(crate) struct Cable {
    pub(crate) server: Machine,
    pub(crate) client: Machine,
}

/// Where the server's machine is, from the addresses for documentation (RFC 5737).
pub(crate) const SERVER: &str = "192.0.2.1";

/// Where the client's machine is.
pub(crate) const PEER: &str = "192.0.2.2";

impl Cable {
    /// Or why there is none.
    pub(crate) fn new() -> Result<Cable, String> {
        let (server, client) = (Machine::new()?, Machine::new()?);
        let (here, there) = (server.resident.id(), client.resident.id());
        server.ip(&format!(
            "link add name cable address 02:00:00:00:00:01 netns {here} type veth \
             peer name cable address 02:00:00:00:00:02 netns {there}"
        ))?;
        for (machine, address) in [(&server, SERVER), (&client, PEER)] {
            machine.ip("link set lo up")?;
            machine.ip(&format!("address add {address}/30 dev cable"))?;
            machine.ip("link set cable up")?;
        }
        // As if a router were in between: nobody asks for the client's hardware, and nobody is told that it is gone.
        server.ip(&format!("neighbour replace {PEER} lladdr 02:00:00:00:00:02 nud permanent dev cable"))?;
        Ok(Cable { server, client })
    }

    /// From now on, what goes to the client's machine reaches nobody, and nobody is told so. What the client's machine
    /// would like to say, it cannot say either.
    pub(crate) fn cut(&self) {
        self.client.ip(&format!("address delete {PEER}/30 dev cable")).unwrap();
    }

    /// How many packets for the client have come to nobody since the cut.
    pub(crate) fn lost(&self) -> u64 {
        self.client.counter("Ip", "InAddrErrors")
    }

    /// How often the server's kernel has sent something once more.
    pub(crate) fn sent_again(&self) -> u64 {
        self.server.counter("Tcp", "RetransSegs")
    }
}
