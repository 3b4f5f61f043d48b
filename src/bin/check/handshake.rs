//! How a WebSocket begins: as a request of HTTP, and its answer (RFC 6455, section 4).

use data_encoding::BASE64;

use crate::frames::accept_key;
use crate::probe::{Client, Ending};
use crate::random::Random;
use crate::show::{brief, difference, escape};
use crate::story::seconds;
use crate::target::UrlPath;
use crate::trouble::{Symptom, Trouble};

/// A longer head is not read.
const LONGEST_HEAD: usize = 16 * 1024;

const MOST_FIELDS: usize = 64;

/// What a WebSocket is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    /// As `Host` says it.
    pub(crate) host: String,
    pub(crate) path: UrlPath,
}

/// A new key: 16 random bytes, which the server shall hash, and which are no secret.
pub(crate) fn new_key(random: &mut Random) -> String {
    let bytes = [random.next().to_be_bytes(), random.next().to_be_bytes()].concat();
    BASE64.encode(&bytes)
}

/// The fields of a handshake as they should be.
pub(crate) fn fields(key: &str) -> Vec<(&'static str, String)> {
    vec![
        ("Upgrade", "websocket".to_owned()),
        ("Connection", "Upgrade".to_owned()),
        ("Sec-WebSocket-Key", key.to_owned()),
        ("Sec-WebSocket-Version", "13".to_owned()),
    ]
}

/// A request with these fields.
pub(crate) fn request(resource: &Resource, fields: &[(&str, String)]) -> String {
    let mut request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", resource.path, resource.host);
    for (name, value) in fields {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request + "\r\n"
}

/// The head of an answer, and what came behind it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    fields: Vec<(String, String)>,
    pub(crate) rest: Vec<u8>,
}

impl Answer {
    /// The value of a field; empty when it is not there.
    pub(crate) fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    /// Whether a field, which may be a list, has this word.
    pub(crate) fn lists(&self, name: &str, word: &str) -> bool {
        let fields = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        fields.flat_map(|(_, value)| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(word))
    }

    /// Whether this answer makes a WebSocket of the connection.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub(crate) fn accepts(&self, key: &str) -> Result<(), Trouble> {
        for (name, word) in [("Upgrade", "websocket"), ("Connection", "Upgrade")] {
            if !self.lists(name, word) {
                let received = match self.field(name) {
                    "" => format!("no field {name}"),
                    value => format!("{name}: {}", escape(value.as_bytes())),
                };
                return Err(Trouble::new(Symptom::Seen, format!("{name}: {word}"), received)
                    .seen(Some("An answer with 101 names what the connection becomes: it has both fields.")));
            }
        }
        let (right, came) = (accept_key(key), self.field("Sec-WebSocket-Accept"));
        if came != right {
            let same = right.bytes().zip(came.bytes()).take_while(|(one, other)| one == other).count();
            let (context, expected) = right.as_bytes().split_at(same);
            let shown = difference(context, expected, &came.as_bytes()[same..], "no field Sec-WebSocket-Accept");
            return Err(Trouble::differs(Symptom::Seen, shown).seen(Some(ACCEPT)));
        }
        for (name, why) in [
            ("Sec-WebSocket-Extensions", "The client has offered no extension, so the server cannot choose one."),
            ("Sec-WebSocket-Protocol", "The client has offered no protocol, so the server cannot choose one."),
        ] {
            let value = self.field(name);
            if !value.is_empty() {
                let received = format!("{name}: {}", escape(value.as_bytes()));
                return Err(Trouble::new(Symptom::Seen, format!("no field {name}"), received).seen(Some(why)));
            }
        }
        Ok(())
    }
}

const ACCEPT: &str = "Sec-WebSocket-Accept is: the key as it came, not decoded; behind it, without a space, \
                      258EAFA5-E914-47DA-95CA-C5AB0DC85B11; of both the SHA-1, 20 bytes, and these in base64 (not as \
                      hexadecimal digits).";

impl Client {
    /// Sends a request, and reads the head of its answer.
    pub(crate) fn ask(&mut self, what: &str, request: &str) -> Result<Answer, Trouble> {
        self.step(what);
        self.send_for(request.as_bytes(), self.story.patience())?;
        self.answer()
    }

    /// Reads the head of an answer.
    pub(crate) fn answer(&mut self) -> Result<Answer, Trouble> {
        const HTTP: &str = "an answer in HTTP";
        let (came, ended) = self.listen_for(b"\r\n\r\n", LONGEST_HEAD);
        if let Some(ending) = ended {
            let (symptom, then) = match ending {
                Ending::Clean => (Symptom::Ended, "the end of the connection".to_owned()),
                Ending::Reset => (Symptom::Reset, "a reset".to_owned()),
                Ending::Open => (Symptom::Silent, format!("nothing for {}", seconds(self.story.patience()))),
            };
            if came.is_empty() {
                self.step("waited for the answer: nothing came");
                return Err(Trouble::new(symptom, HTTP, then).seen(Some(
                    "An answer of HTTP begins with a line such as `HTTP/1.1 101 Switching Protocols`, and ends with an \
                     empty line; a request that is refused has an answer, too.",
                )));
            }
            self.step(format!("read {}", brief(&came)));
            return Err(Trouble::new(symptom, HTTP, format!("{}, then {then}", brief(&came)))
                .seen(Some("The head of an answer of HTTP ends with an empty line; each line ends with \\r\\n.")));
        }
        self.parse(&came).inspect(|answer| {
            if self.name.is_some() {
                self.story.add_to_last(&format!(", and read {}", answer.status));
            }
        })
    }

    fn parse(&self, came: &[u8]) -> Result<Answer, Trouble> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let parsed = response.parse(came);
        let (Ok(httparse::Status::Complete(end)), Some(status)) = (parsed, response.code) else {
            self.step(format!("read {}", brief(came)));
            return Err(Trouble::new(Symptom::Changed, "an answer in HTTP", brief(came)).seen(Some(
                "An answer of HTTP begins with a line such as `HTTP/1.1 101 Switching Protocols`, and then has a field \
                 in each line, such as `Upgrade: websocket`.",
            )));
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = response.headers.iter().map(|field| (field.name.to_owned(), text(field.value))).collect();
        Ok(Answer { status, fields, rest: came[end..].to_vec() })
    }
}
