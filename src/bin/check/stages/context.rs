//! What a stage works with: clients, lines to send, the server's process.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::exchange::Kind;
use crate::handshake::Resource;
use crate::manner::{Manner, find};
use crate::probe::Client;
use crate::random::Random;
use crate::spawned::Spawned;
use crate::story::Story;
use crate::target::Address;
use crate::trouble::{Symptom, Trouble};
use crate::websocket::{Voice, WebSocket};

/// How long the answer to a piece may take.
const PIECE: Duration = Duration::from_millis(300);

/// How long many clients may take to leave.
const PARTING: Duration = Duration::from_millis(500);

/// What a stage works with.
pub(crate) struct Context<'a> {
    pub(crate) address: &'a Address,
    pub(crate) server: Option<&'a mut Spawned>,
    /// Found by the first stage that looks.
    pub(crate) manner: Option<Rc<Manner>>,
    pub(crate) random: Random,
    pub(crate) limit: Option<usize>,
    pub(crate) deadline: Option<Duration>,
    /// Whether part of a line is answered, once that is known.
    pub(crate) answers_pieces: Option<bool>,
    /// What is asked for, where that is a WebSocket.
    pub(crate) resource: Option<&'a Resource>,
    /// Whether a handshake is answered, as far as is known.
    pub(crate) opens: bool,
    /// Who hears what is said in a WebSocket, once that is known.
    pub(crate) voice: Option<Voice>,
    pub(crate) story: Rc<Story>,
}

impl Context<'_> {
    /// A client. The name tells it from others in the same stage; alone, it needs none.
    pub(crate) fn client(&self, name: &str) -> Result<Client, Trouble> {
        self.connect(Some(name), None)
    }

    /// One of many, whose steps are not told one by one.
    pub(crate) fn one_of_many(&self) -> Result<Client, Trouble> {
        self.connect(None, None)
    }

    pub(crate) fn connect(&self, name: Option<&str>, window: Option<usize>) -> Result<Client, Trouble> {
        let manner = self.manner.clone().unwrap_or_default();
        Client::connect(self.address, name, window, &self.story, &manner)
    }

    /// A client that has become one of WebSocket.
    pub(crate) fn websocket(&mut self, name: &str) -> Result<WebSocket, Trouble> {
        let resource = self.resource.expect("a stage that needs a WebSocket runs only with one");
        let random = self.random.split();
        WebSocket::open(self.client(name)?, resource, random)
    }

    /// A line of Korean, with its newline.
    pub(crate) fn korean(&mut self) -> Vec<u8> {
        self.line(Random::korean)
    }

    /// A line of ASCII, with its newline.
    pub(crate) fn plain(&mut self) -> Vec<u8> {
        self.line(Random::plain)
    }

    /// A line that does not contain the prefix, if there is one.
    fn line(&mut self, make: fn(&mut Random) -> String) -> Vec<u8> {
        let manner = self.manner.clone().unwrap_or_default();
        let mut line = Vec::new();
        for _ in 0..100 {
            line = make(&mut self.random).into_bytes();
            line.push(b'\n');
            if manner.prefix.is_empty() || find(&line, &manner.prefix).is_none() {
                break;
            }
        }
        line
    }

    /// How many clients at once a stage may have, out of those that it would like.
    pub(crate) fn at_most(&self, wish: usize) -> usize {
        self.limit.map_or(wish, |limit| wish.min(limit))
    }

    /// A wait of ours, shortened so that nobody meets the server's deadline meanwhile.
    pub(crate) fn within_the_deadline(&self, wait: Duration) -> Duration {
        self.deadline.map_or(wait, |deadline| wait.min(deadline / 6))
    }

    pub(crate) fn step(&self, what: impl Into<String>) {
        self.story.step(what);
    }

    pub(crate) fn spawned(&mut self) -> &mut Spawned {
        self.server.as_mut().expect("a stage that needs a spawned server runs only with one")
    }

    /// Many clients end together, in good order, and within a moment.
    pub(crate) fn part(&self, clients: Vec<Client>) {
        for client in &clients {
            client.end_quietly();
        }
        let began = Instant::now();
        for mut client in clients {
            client.discard(PARTING.saturating_sub(began.elapsed()));
            client.is_over();
        }
    }

    /// Whether part of a line is answered at once. Found out once, with a client that says half a line, waits, and
    /// says the rest.
    pub(crate) fn answers_pieces(&mut self) -> Result<bool, Trouble> {
        if let Some(known) = self.answers_pieces {
            return Ok(known);
        }
        // Asked once, so its line must be none of the stage's: a second try says the same as the first.
        let stages_own = self.random.clone();
        self.random = stages_own.aside();
        let line = self.plain();
        self.random = stages_own;
        let mut client = self.one_of_many()?;
        let (half, rest) = line.split_at(line.len() / 2);
        client.send(half)?;
        client.let_it_read();
        let wait = self.deadline.map_or(PIECE, |deadline| PIECE.min(deadline / 3));
        let (came, _) = client.listen_until(half, wait);
        let answered = find(&came, half).is_some();
        client.send(rest)?;
        client.expect(if answered { rest } else { &line }, Kind::Text)?;
        self.answers_pieces = Some(answered);
        Ok(answered)
    }

    /// New clients are answered again, within a few seconds; told as one step. Places and descriptors of clients
    /// that have just left may take a moment to be free. Three at once, so that the next stage has room.
    pub(crate) fn recovers(&mut self, within: Duration) -> Result<(), Trouble> {
        let began = Instant::now();
        let lines: Vec<Vec<u8>> = (0..self.at_most(3)).map(|_| self.korean()).collect();
        loop {
            let told = self.story.steps().len();
            let mut clients = Vec::new();
            let outcome = lines.iter().try_for_each(|line| {
                let mut client = self.one_of_many()?;
                let outcome = client.say(line);
                clients.push(client);
                outcome
            });
            match outcome {
                Ok(()) => {
                    self.step("new clients are answered again");
                    return Ok(());
                }
                Err(trouble) if began.elapsed() > within => {
                    self.step("a new client sent a line");
                    return Err(trouble);
                }
                Err(_) => {
                    self.story.forget_after(told);
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    /// Clients that have been answered and stay, one for each place.
    pub(crate) fn fill(&mut self, places: usize) -> Result<Vec<Client>, Trouble> {
        let mut clients: Vec<Client> = Vec::new();
        let began = Instant::now();
        for number in 1..=places {
            let line = self.plain();
            // A place may still be on its way back from the stage before.
            let answered = self.until_free(|context| {
                let mut client = context.one_of_many()?;
                client.say(&line)?;
                Ok(client)
            });
            match answered {
                Ok(client) => clients.push(client),
                Err(trouble) => {
                    self.step(format!("{} of {places} clients connected, were answered, and stay", clients.len()));
                    self.step(format!("client {number} of {places} connected and sent a line"));
                    return Err(trouble);
                }
            }
        }
        self.step(format!("{places} clients connected, were answered, and stay"));
        if self.deadline.is_some_and(|deadline| began.elapsed() > deadline / 3) {
            // The first of them may have gone before whoever comes next.
            self.story.doubt();
        }
        Ok(clients)
    }

    fn until_free<T>(&mut self, mut attempt: impl FnMut(&mut Self) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let began = Instant::now();
        loop {
            let told = self.story.steps().len();
            match attempt(self) {
                Err(trouble) if trouble.symptom != Symptom::Silent && began.elapsed() < Duration::from_secs(1) => {
                    self.story.forget_after(told);
                    std::thread::sleep(Duration::from_millis(10));
                }
                result => return result,
            }
        }
    }
}
