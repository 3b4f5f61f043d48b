//! Sending and reading at the same time, and what can go wrong with it.

use std::thread;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::diagnose;
use crate::manner::find;
use crate::matcher::Matcher;
use crate::probe::{Came, Client, is_for_later};
use crate::show::{Difference, brief, difference, group};
use crate::story::seconds;
use crate::trouble::{Symptom, Trouble};

/// How fast a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    Fast,
    /// Not at all at first; then in small bites.
    Slow,
}

/// Whether an answer must be text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Bytes,
}

impl Client {
    /// Sends a line and reads its answer.
    pub(crate) fn say(&mut self, line: &[u8]) -> Result<(), Trouble> {
        self.exchange(line, Kind::Text, Pace::Fast)?;
        if self.name.is_some() {
            self.story.add_to_last(", and read its answer");
        }
        Ok(())
    }

    /// The same, for a server that may be busy with someone else: waits only for so long.
    pub(crate) fn say_for(&mut self, line: &[u8], wait: Duration) -> Result<bool, Trouble> {
        self.send(line)?;
        let (came, _) = self.listen_until(line, wait);
        let answered = find(&came, line).is_some();
        if answered && self.name.is_some() {
            self.story.add_to_last(", and read its answer");
        }
        Ok(answered)
    }

    /// The same, told only by the caller.
    pub(crate) fn say_quietly(&mut self, line: &[u8]) -> Result<(), Trouble> {
        let told = self.story.steps().len();
        let result = self.say(line);
        self.story.forget_after(told);
        result
    }

    /// Reads until everything in `sent` has come back.
    pub(crate) fn expect(&mut self, sent: &[u8], kind: Kind) -> Result<(), Trouble> {
        self.pump(&[], sent, kind, Pace::Fast).map(drop)
    }

    /// Sends and reads at the same time, until everything has come back. How often the server would not take
    /// more.
    pub(crate) fn exchange(&mut self, payload: &[u8], kind: Kind, pace: Pace) -> Result<usize, Trouble> {
        self.step(format!("sent {}", brief(payload)));
        self.pump(payload, payload, kind, pace)
    }

    fn pump(&mut self, to_send: &[u8], wanted: &[u8], kind: Kind, pace: Pace) -> Result<usize, Trouble> {
        let mut matcher = Matcher::new(wanted, &self.manner);
        let mut buffer = vec![0; if pace == Pace::Slow { 16 * 1024 } else { 64 * 1024 }];
        let mut sent = 0;
        let mut blocked = 0;
        let mut since = Instant::now();
        // A slow reader does not read before it has sent what it can.
        let mut reads = pace == Pace::Fast;
        loop {
            let left = self.story.left(since, self.story.patience());
            if left.is_zero() {
                return Err(self.gave_up(&matcher, sent < to_send.len()));
            }
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::OUT, sent < to_send.len());
            flags.set(PollFlags::IN, reads);
            let ready = self.wait(flags, if reads { left } else { left.min(Duration::from_millis(100)) });
            let broken = ready.intersects(PollFlags::ERR | PollFlags::HUP);
            if ready.contains(PollFlags::OUT) && sent < to_send.len() {
                match self.stream().write_now(&to_send[sent..]) {
                    Ok(count) => {
                        sent += count;
                        since = Instant::now();
                    }
                    Err(error) if is_for_later(&error) => {}
                    // What was still on its way to us comes first; the end of it is met by the next read.
                    Err(_) => sent = to_send.len(),
                }
            } else if sent < to_send.len() {
                blocked += 1;
            }
            if !reads && (ready.is_empty() || sent == to_send.len()) {
                self.step("paused, then read slowly");
                reads = true;
                since = Instant::now();
                continue;
            }
            if !(ready.contains(PollFlags::IN) || broken) || !reads {
                continue;
            }
            match self.read(&mut buffer, Duration::ZERO) {
                Came::Nothing => {}
                Came::Bytes(count) => {
                    since = Instant::now();
                    if !matcher.take(&buffer[..count]) {
                        return Err(self.gone_wrong(&matcher, wanted, &mut buffer, count));
                    }
                    if matcher.is_complete() && sent == to_send.len() {
                        return self.check_text(matcher.received(), kind).map(|()| blocked);
                    }
                    if matcher.received().len() > matcher.most() {
                        return Err(self.flood(matcher.received()));
                    }
                    if pace == Pace::Slow {
                        thread::sleep(Duration::from_millis(2));
                    }
                }
                Came::End if since.elapsed() >= self.story.long_silence => {
                    // It waited for us, as we for it, until a deadline of its own.
                    self.over = true;
                    let symptom = if matcher.received().is_empty() { Symptom::Silent } else { Symptom::Partial };
                    let waited = seconds(since.elapsed());
                    return Err(self.missing(&matcher, symptom, &format!("then nothing for {waited}, then the end")));
                }
                Came::End => {
                    self.over = true;
                    return Err(self.missing(&matcher, Symptom::Ended, "then the server ended the connection"));
                }
                Came::Reset => {
                    self.over = true;
                    return Err(self.missing(&matcher, Symptom::Reset, "then the connection was reset"));
                }
            }
        }
    }

    fn check_text(&self, received: &[u8], kind: Kind) -> Result<(), Trouble> {
        match std::str::from_utf8(received) {
            Err(error) if kind == Kind::Text => {
                self.step("read the whole answer: the bytes are right, but the prefix tears a character apart");
                let at = error.valid_up_to();
                let torn = difference(&received[..at], b"", &received[at..], "");
                let whole = Difference { expected: "text".to_owned(), ..torn };
                Err(Trouble::torn(whole))
            }
            _ => Ok(()),
        }
    }

    fn gave_up(&self, matcher: &Matcher, was_sending: bool) -> Trouble {
        let waited = seconds(self.story.patience());
        if was_sending {
            self.step(format!("could not send the rest: nothing moved in either direction for {waited}"));
        }
        let symptom = if matcher.received().is_empty() { Symptom::Silent } else { Symptom::Partial };
        self.missing(matcher, symptom, &format!("then nothing for {waited}"))
    }

    fn missing(&self, matcher: &Matcher, symptom: Symptom, instead: &str) -> Trouble {
        let received = matcher.received();
        if received.is_empty() {
            self.step("waited for the answer: nothing came");
        } else {
            let (came, all) = (group(matcher.matched()), group(matcher.sent_len()));
            self.step(format!("read the answer: {came} of its {all} bytes came"));
        }
        let instead = if received.is_empty() { instead.trim_start_matches("then ") } else { instead };
        Trouble::differs(symptom, difference(received, &matcher.expected_next(), b"", instead))
    }

    fn gone_wrong(&self, matcher: &Matcher, wanted: &[u8], buffer: &mut [u8], count: usize) -> Trouble {
        // The bytes of this read that were not right, and a little of what follows them, for the comparison.
        let mut wrong = matcher.wrong_tail(&buffer[..count]);
        let began = Instant::now();
        while wrong.len() < 4096 {
            let wait = Duration::from_millis(100).saturating_sub(began.elapsed());
            match self.read(buffer, wait) {
                Came::Bytes(more) => wrong.extend_from_slice(&buffer[..more]),
                _ => break,
            }
        }
        let received = matcher.received();
        let more = matcher.is_complete();
        self.step(if more {
            format!("read the whole answer, and then {} that should not be there", brief(&wrong))
        } else if received.is_empty() {
            "read the answer: it differs from its first byte on".to_owned()
        } else if matcher.matched() == 0 {
            "read the answer: it differs right behind the prefix".to_owned()
        } else {
            format!("read the answer: it differs after {} right bytes", group(matcher.matched()))
        });
        let symptom = if more { Symptom::Extra } else { Symptom::Changed };
        let all = [received, &wrong].concat();
        Trouble::differs(symptom, difference(received, &matcher.expected_next(), &wrong, ""))
            .seen(diagnose::what_differs(wanted, &all, &self.manner))
    }

    fn flood(&self, received: &[u8]) -> Trouble {
        self.step(format!("read {} bytes, and they did not end", group(received.len())));
        let head = &received[..received.len().min(64)];
        Trouble::new(Symptom::Flood, "an answer as long as what was sent", brief(head))
    }
}
