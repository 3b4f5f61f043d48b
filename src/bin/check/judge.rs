//! Runs the stages: a server for each that needs a new one, a bound on each, and on all of them.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::handshake::Resource;
use crate::manner::Manner;
use crate::random::Random;
use crate::spawned::Spawned;
use crate::stages::{self, Context, Need, Stage};
use crate::story::{self, Story, reason};
use crate::target::{Address, UrlPath, Written};
use crate::trouble::{Stop, Symptom, Trouble, Verdict};
use crate::websocket::Voice;

/// No stage takes longer, apart from what its deadlines make it wait.
const STAGE: Duration = Duration::from_secs(10);

/// After this no further stage is begun.
const ALL: Duration = Duration::from_secs(60);

/// How often a stage is tried that this machine was too slow for.
const TRIES: usize = 3;

/// What is to be judged.
pub(crate) enum Target {
    Running(Written),
    Command { words: Vec<String>, port: Option<u16>, path: Option<UrlPath> },
}

/// How a stage ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Passed { note: Option<String> },
    Skipped { why: String },
    Failed { trouble: Box<Trouble>, cause: String, steps: Vec<String> },
}

pub(crate) struct Judged {
    pub(crate) stage: &'static Stage,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

pub(crate) struct Judge {
    target: Target,
    server: Option<Spawned>,
    address: Option<Address>,
    /// What is asked for at that address, if that is a WebSocket.
    resource: Option<Resource>,
    /// Why the server could not be started again.
    lost: Option<String>,
    /// The next stage needs another server.
    is_stale: bool,
    told_lost: bool,
    seed: u64,
    limit: Option<usize>,
    deadline: Option<Duration>,
    patience: Duration,
    manner: Option<Rc<Manner>>,
    answers_pieces: Option<bool>,
    opens: bool,
    voice: Option<Voice>,
}

impl Judge {
    pub(crate) fn new(
        target: Target,
        seed: u64,
        limit: Option<usize>,
        deadline: Option<Duration>,
        patience: Duration,
    ) -> Judge {
        Judge {
            target,
            server: None,
            address: None,
            resource: None,
            lost: None,
            is_stale: false,
            told_lost: false,
            seed,
            limit,
            deadline,
            patience,
            manner: None,
            answers_pieces: None,
            opens: true,
            voice: None,
        }
    }

    /// Finds the server, or starts it.
    ///
    /// # Errors
    /// In one line, why there is nothing to judge.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        let (server, address, resource) = match &self.target {
            Target::Running(written) => {
                let address = written.find_listener(self.patience);
                let address = address.map_err(|error| format!("cannot connect to {written}: {}", reason(&error)))?;
                let resource = match written {
                    Written::WebSocket { path, .. } => Some(Resource { host: written.authority(), path: path.clone() }),
                    _ => None,
                };
                (None, address, resource)
            }
            Target::Command { words, port, path } => {
                let (server, address) = Spawned::start(words, *port, story::long(self.patience))?;
                if path.is_some() && matches!(address, Address::Unix(_)) {
                    return Err(format!("--path is for a WebSocket at HOST:PORT; the server listens on {address}"));
                }
                let resource = path.clone().map(|path| Resource { host: address.to_string(), path });
                (Some(server), address, resource)
            }
        };
        self.server = server;
        self.resource = resource;
        self.address = Some(address);
        Ok(())
    }

    pub(crate) fn address(&self) -> String {
        match (&self.resource, &self.address) {
            (Some(resource), _) => format!("ws://{}{}", resource.host, resource.path),
            (None, Some(address)) => address.to_string(),
            (None, None) => String::new(),
        }
    }

    /// Runs the stages in turn, and tells how each ended as soon as it has.
    pub(crate) fn run(&mut self, stages: &[&'static Stage], tell: &mut dyn FnMut(Judged)) {
        let began = Instant::now();
        let looks_first = self.resource.is_none() && stages.iter().any(|stage| stage.needs.contains(&Need::Answers));
        let greeting = stages::all().find(|stage| stage.name == "greeting");
        if let Some(greeting) =
            greeting.filter(|greeting| looks_first && !stages.iter().any(|one| one.name == greeting.name))
        {
            // How it answers has to be known all the same; told only when that fails.
            let judged = self.judge(greeting);
            if matches!(judged.outcome, Outcome::Failed { .. }) && self.manner.is_none() {
                tell(judged);
            }
        }
        for stage in stages {
            let all = ALL + self.deadline.unwrap_or_default() * 6;
            let judged = if began.elapsed() > all {
                let why = format!("not run: all of it may take {} s; try --stage {}", all.as_secs(), stage.name);
                Judged { stage, outcome: Outcome::Skipped { why }, took: Duration::ZERO }
            } else {
                self.judge(stage)
            };
            tell(judged);
        }
    }

    fn judge(&mut self, stage: &'static Stage) -> Judged {
        let began = Instant::now();
        if let Some(why) = &self.lost {
            let outcome = if self.told_lost {
                Outcome::Skipped { why: "the server could not be started again".to_owned() }
            } else {
                self.told_lost = true;
                not_started_again(why, self.address.as_ref())
            };
            return Judged { stage, outcome, took: Duration::ZERO };
        }
        // A server that died between two stages did so because of the one before, and that has been told.
        if (self.is_stale || self.server.as_mut().is_some_and(Spawned::has_ended))
            && let Err(outcome) = self.restart()
        {
            return Judged { stage, outcome, took: began.elapsed() };
        }
        let (mut outcome, mut is_doubtful) = self.attempt_and_doubt(stage);
        let mut tries = 1;
        while is_doubtful && tries < TRIES {
            if let Err(outcome) = self.restart() {
                return Judged { stage, outcome, took: began.elapsed() };
            }
            (outcome, is_doubtful) = self.attempt_and_doubt(stage);
            tries += 1;
        }
        if matches!(outcome, Outcome::Passed { .. }) && !stage.uses_up_the_server && stage.name != "writes-first" {
            outcome = self.still_alive(stage, outcome);
        }
        let took = began.elapsed();
        // What a failure has left behind must not make the next stage fail.
        self.is_stale |= matches!(outcome, Outcome::Failed { .. });
        Judged { stage, outcome, took }
    }

    /// How it ended, and whether that is doubtful: then it is worth another try.
    fn attempt_and_doubt(&mut self, stage: &'static Stage) -> (Outcome, bool) {
        let began = Instant::now();
        let (outcome, is_doubtful) = self.attempt(stage);
        // A client that this machine kept from speaking for a while is silent in the server's eyes.
        let is_slow = self.deadline.is_some_and(|deadline| began.elapsed() > deadline * 3 / 4);
        let is_doubtful = is_doubtful || is_slow && may_be_our_silence(stage, &outcome);
        (outcome, is_doubtful)
    }

    fn attempt(&mut self, stage: &'static Stage) -> (Outcome, bool) {
        let Some(address) = self.address.clone() else {
            return (Outcome::Skipped { why: "there is no server".to_owned() }, false);
        };
        let extra = self.deadline.unwrap_or_default() * 6;
        let story = Story::new(self.patience, STAGE + extra, self.deadline);
        let mut context = Context {
            address: &address,
            server: self.server.as_mut(),
            manner: self.manner.clone(),
            random: Random::new(self.seed, stage.name),
            limit: self.limit,
            deadline: self.deadline,
            answers_pieces: self.answers_pieces,
            resource: self.resource.as_ref(),
            opens: self.opens,
            voice: self.voice.clone(),
            story: Rc::clone(&story),
        };
        if let Some(why) = stages::missing(stage, &context) {
            return (Outcome::Skipped { why }, false);
        }
        self.is_stale |= stage.uses_up_the_server;
        let verdict = (stage.run)(&mut context);
        let manner = context.manner.take();
        self.answers_pieces = context.answers_pieces;
        self.opens = context.opens;
        self.voice = context.voice.take();
        if stage.name == "greeting" {
            self.manner = manner;
        }
        (self.settle(stage, verdict, &story), story.is_doubtful())
    }

    fn settle(&mut self, stage: &'static Stage, verdict: Verdict, story: &Story) -> Outcome {
        match verdict {
            Ok(note) => Outcome::Passed { note },
            Err(Stop::Skipped(why)) => Outcome::Skipped { why },
            Err(Stop::Failed(mut trouble)) => {
                let mut cause = stage.cause(&trouble);
                // The end of a process takes a moment to be seen.
                // A server that floods may also die of our leaving; that is another story.
                let may_have_died = !matches!(
                    trouble.symptom,
                    Symptom::Changed
                        | Symptom::Extra
                        | Symptom::Torn
                        | Symptom::Seen
                        | Symptom::Unasked
                        | Symptom::Flood
                );
                let died = !stage.uses_up_the_server
                    && may_have_died
                    && self.server.as_mut().is_some_and(|server| server.ends_within(Duration::from_millis(100)));
                if let Some(how) = self.server.as_mut().filter(|_| died).and_then(Spawned::how_it_ended) {
                    story.step(format!("the server's process ended: {how}"));
                    cause = stage.hint(Symptom::Died).to_owned();
                    trouble.symptom = Symptom::Died;
                }
                Outcome::Failed { trouble, cause, steps: story.steps() }
            }
        }
    }

    /// A server that answered and then died has not passed.
    fn still_alive(&mut self, stage: &'static Stage, outcome: Outcome) -> Outcome {
        let Some(how) = self.server.as_mut().and_then(Spawned::how_it_ended) else { return outcome };
        let trouble = Box::new(Trouble::new(Symptom::Died, "a server that goes on", "the end of its process"));
        let steps = vec!["everything was answered".to_owned(), format!("the server's process ended: {how}")];
        Outcome::Failed { trouble, cause: stage.hint(Symptom::Died).to_owned(), steps }
    }

    fn restart(&mut self) -> Result<(), Outcome> {
        self.is_stale = false;
        if self.server.is_some() {
            // The old one has to be gone first: both may want the same port.
            drop(self.server.take());
            self.lost = self.start().err();
        }
        match &self.lost {
            None => Ok(()),
            Some(why) => {
                self.told_lost = true;
                Err(not_started_again(why, self.address.as_ref()))
            }
        }
    }
}

fn not_started_again(why: &str, address: Option<&Address>) -> Outcome {
    let is_in_use = why.to_lowercase().contains("address already in use") || why.contains("EADDRINUSE");
    let cause = if is_in_use && matches!(address, Some(Address::Unix(_))) {
        "Its socket file is still there, and bind fails where a file is. Remove it when the server ends; and for a \
         server that was killed, see chapter 15."
    } else if is_in_use {
        "The port is kept for a minute for connections that have just ended. Set SO_REUSEADDR before bind: then the \
         server can be started again at once."
    } else {
        "The server could be started once, and not a second time: does it leave something behind?"
    };
    let trouble = Box::new(Trouble::new(Symptom::Died, "a server that can be started again", why));
    let steps = vec!["ended the server, and started it again for this stage".to_owned()];
    Outcome::Failed { trouble, cause: cause.to_owned(), steps }
}

/// Whether a deadline of the server may have ended a connection that was to stay.
fn may_be_our_silence(stage: &Stage, outcome: &Outcome) -> bool {
    let Outcome::Failed { trouble, .. } = outcome else { return false };
    !stage.needs.contains(&Need::Deadline) && matches!(trouble.symptom, Symptom::Ended | Symptom::Reset)
}
