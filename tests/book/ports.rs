//! A free port instead of 8080, which several pages want at the same time; and in what is printed, 8080 again.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::LazyLock;

use regex_lite::{Captures, Regex};
use socket2::{Domain, Socket, Type};

use crate::commands::Command;
use crate::markdown::pattern;
use crate::normalise::replace_in_columns;

static LOOPBACK: LazyLock<Regex> = LazyLock::new(|| pattern(r"((?:127\.0\.0\.1|localhost|\[::1\]):)(\d{1,5})\b"));
static ADDRESS: LazyLock<Regex> = LazyLock::new(|| pattern(r"(127\.0\.0\.1|localhost|\[::1\])([: ])(\d{4})\b"));

/// The ports of a section: what the page calls them, and what they are.
#[derive(Default)]
pub(crate) struct Ports {
    /// Where something listens now, or nothing, by the page's number.
    open: BTreeMap<u16, u16>,
    /// Every real port that had a number in the page.
    shown: BTreeMap<u16, u16>,
    /// Ports that nobody listens on, kept from everybody else.
    kept: Vec<Socket>,
    others: BTreeMap<u16, u16>,
}

impl Ports {
    /// The command with real ports, and for a server the numbers that the page has for what it listens on.
    pub(crate) fn with_real(&mut self, command: &Command) -> Result<(String, Vec<u16>), String> {
        let mut to_come = Vec::new();
        let mut in_background = Vec::new();
        let mut failed = None;
        let text = ADDRESS.replace_all(&command.text, |found: &Captures<'_>| {
            let page: u16 = found[3].parse().unwrap();
            let real = match self.open.get(&page) {
                Some(real) => *real,
                None if command.is_server => {
                    to_come.push(page);
                    0
                }
                None => self.keep(page, command.starts_server).unwrap_or_else(|error| {
                    failed = Some(format!("cannot keep a port free: {error}"));
                    0
                }),
            };
            if command.starts_server {
                self.open.insert(page, real);
                in_background.push(real);
            }
            format!("{}{}{real}", &found[1], &found[2])
        });
        let text = until_listening(&text, &in_background);
        failed.map_or(Ok((text, to_come)), Err)
    }

    /// A port that is bound, but does not listen: a connection is refused, and nobody else is given it. If it is
    /// `for_a_server`, one may listen there, as all of ours set SO_REUSEADDR.
    fn keep(&mut self, page: u16, for_a_server: bool) -> std::io::Result<u16> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(for_a_server)?;
        socket.bind(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into())?;
        let real = socket.local_addr()?.as_socket().map_or(0, |address| address.port());
        self.kept.push(socket);
        self.shown.insert(real, page);
        Ok(real)
    }

    /// A server has said where it listens.
    pub(crate) fn listens(&mut self, page: u16, real: u16) {
        self.open.insert(page, real);
        self.shown.insert(real, page);
    }

    /// A server has ended.
    pub(crate) fn closed(&mut self, page: u16) {
        self.open.remove(&page);
    }

    /// The real ports in this command that something listens on.
    pub(crate) fn listening_in(&self, command: &str) -> Option<u16> {
        LOOPBACK
            .captures_iter(command)
            .filter_map(|found| found[2].parse().ok())
            .find(|port| self.shown.contains_key(port))
    }

    /// A program started the server of the page by itself, and says where it is.
    pub(crate) fn starts_servers(&mut self, lines: &[String]) {
        static SERVER: LazyLock<Regex> = LazyLock::new(|| pattern(r"\bserver at 127\.0\.0\.1:(\d+)\b"));
        for found in lines.iter().filter_map(|line| SERVER.captures(line)) {
            self.shown.insert(found[1].parse().unwrap_or_default(), 8080);
        }
    }

    /// A line of output with the page's ports. Those that the kernel chose are 50001, 50002, …; `zero` is what
    /// a server was meant to ask for instead of any port.
    pub(crate) fn as_shown(&mut self, line: &str, zero: Option<u16>) -> String {
        let shown = &self.shown;
        let others = &mut self.others;
        for found in LOOPBACK.captures_iter(line) {
            if let Ok(port) = found[2].parse()
                && !shown.contains_key(&port)
                && port >= FIRST_EPHEMERAL
            {
                let next = 50001 + others.len() as u16;
                others.entry(port).or_insert(next);
            }
        }
        replace_in_columns(line, &LOOPBACK, |found| {
            let port: Option<u16> = found[2].parse().ok();
            let new = match port {
                Some(0) => zero.as_ref(),
                Some(port) => shown.get(&port).or_else(|| others.get(&port)),
                None => None,
            };
            new.map_or(found[0].to_owned(), |new| format!("{}{new}", &found[1]))
        })
    }
}

/// A page gives a server in the background a second to begin. Here it is waited for, however busy the machine is.
fn until_listening(command: &str, ports: &[u16]) -> String {
    static TO_BEGIN: LazyLock<Regex> = LazyLock::new(|| pattern(r"([&{]) sleep \d+;"));
    let kernel_tells = Path::new("/proc/net/tcp").exists();
    if ports.is_empty() || !kernel_tells {
        return command.to_owned();
    }
    let listens = |port: &u16| format!("grep -q ':{port:04X} 00000000:0000 0A' /proc/net/tcp");
    let all_listen = ports.iter().map(listens).collect::<Vec<_>>().join(" && ");
    TO_BEGIN.replace(command, format!("${{1}} until {all_listen}; do sleep 0.05; done;")).into_owned()
}

/// Below, ports are chosen by people.
const FIRST_EPHEMERAL: u16 = 10_000;

/// The local ports of all connections to this port, from the kernel's table.
pub(crate) fn connections_to(port: u16) -> Vec<String> {
    let wanted = format!(":{port:04X}");
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let ends = lines.filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(2)?.ends_with(&wanted).then(|| fields[1].to_owned())
    });
    ends.collect()
}

/// How a server says where it can be found.
const HERE: [&str; 2] = ["listening on ", "live page on http://"];

pub(crate) fn says_where(line: &str) -> bool {
    HERE.iter().any(|start| line.starts_with(start))
}

/// The port of `listening on ADDR` or `live page on http://ADDR/`, if it is one.
pub(crate) fn listening_on(line: &str) -> Option<u16> {
    let address = HERE.iter().find_map(|start| line.strip_prefix(start))?;
    address.rsplit_once(':')?.1.trim_end_matches('/').parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn ports_have_the_numbers_of_the_page() {
        let mut ports = Ports::default();
        ports.listens(8080, 44444);
        assert_eq!(ports.as_shown("listening on 127.0.0.1:44444", None), "listening on 127.0.0.1:8080");
        assert_eq!(ports.as_shown("from 127.0.0.1:55555", None), "from 127.0.0.1:50001");
        assert_eq!(ports.as_shown("from [::1]:55556", None), "from [::1]:50002");
        assert_eq!(ports.as_shown("and 127.0.0.1:55555 again", None), "and 127.0.0.1:50001 again");
        assert_eq!(ports.as_shown("bind to 127.0.0.1:0", Some(8080)), "bind to 127.0.0.1:8080");
        assert_eq!(ports.as_shown("bind to 127.0.0.1:0", None), "bind to 127.0.0.1:0");
        assert_eq!(ports.as_shown("a port of ours: 127.0.0.1:80", None), "a port of ours: 127.0.0.1:80");
    }

    #[test]
    fn a_server_says_its_ports() {
        assert_eq!(listening_on("listening on [::1]:44444"), Some(44444));
        assert_eq!(listening_on("live page on http://127.0.0.1:44445/"), Some(44445));
        assert_eq!(listening_on("listening on unix:/tmp/steps.sock"), None);
        assert!(says_where("listening on unix:/tmp/steps.sock") && !says_where("live page: none"));
    }

    #[test]
    fn a_port_that_the_page_leaves_alone_refuses() {
        let mut ports = Ports::default();
        let text = "talk 127.0.0.1:8080".into();
        let client = Command { text, is_server: false, starts_server: false, quoted: Vec::new() };
        let (text, _) = ports.with_real(&client).unwrap();
        let address = text.strip_prefix("talk ").unwrap();
        assert!(std::net::TcpStream::connect(address).is_err());
        assert!(TcpListener::bind(address).is_err(), "nobody else gets it");
        assert_eq!(ports.as_shown(address, None), "127.0.0.1:8080");
    }
}
