//! The first answer, which also shows how this server answers: what it puts in front.

use std::rc::Rc;
use std::time::Duration;

use super::Context;
use crate::diagnose;
use crate::manner::{Manner, find};
use crate::probe::Ending;
use crate::show::{brief, difference, escape, group};
use crate::story::seconds;
use crate::trouble::{Symptom, Trouble, Verdict};

/// A longer text in front of an answer is no prefix.
const LONGEST_PREFIX: usize = 1000;

/// Also finds out how this server answers.
pub(super) fn greeting(context: &mut Context<'_>) -> Verdict {
    context.manner = None;
    let manner = probe(context, "A")?;
    let again = probe(context, "B")?;
    if manner != again {
        let first = escape(&manner.prefix);
        let cause = "What stands in front of the answer is not the same each time. A counter, a time or a name of the client? \
                     It may be any text, but always the same one.";
        let received = if manner.prefix == again.prefix { &again.suffix } else { &again.prefix };
        let trouble = Trouble::new(Symptom::Changed, format!("{first} again"), escape(received));
        return Err(trouble.seen(Some(cause)).into());
    }
    let note = match manner.prefix.is_empty() {
        true => None,
        false => Some(format!("puts {:?} in front", String::from_utf8_lossy(&manner.prefix))),
    };
    let suffix = manner.suffix.clone();
    context.manner = Some(Rc::new(manner));
    if !suffix.is_empty() {
        context.step(format!("read the line, and behind it {}", brief(&suffix)));
        return Err(Trouble::new(Symptom::Extra, "nothing behind the line", escape(&suffix)).into());
    }
    Ok(note)
}

/// One line, and everything that comes back: what stands around it.
fn probe(context: &mut Context<'_>, name: &str) -> Result<Manner, Trouble> {
    let line = format!("안녕하세요, 서버님! {}", context.random.plain()).into_bytes();
    let line = [line.as_slice(), b"\n"].concat();
    let mut client = context.client(name)?;
    client.send(&line)?;
    let (mut answer, ended) = client.listen_for(&line, LONGEST_PREFIX + line.len());
    if let Some(ending) = ended {
        return Err(no_answer(context, &line, &answer, ending));
    }
    let (early, _) = client.listen(Duration::from_millis(50), LONGEST_PREFIX);
    client.end();
    let (late, _) = client.listen(Duration::from_millis(500), LONGEST_PREFIX);
    let rest = [early.as_slice(), &late].concat();
    answer.extend_from_slice(&rest);
    let manner = Manner::of(&line, &answer).unwrap_or_default();
    let body = line.strip_suffix(b"\n").unwrap_or(&line);
    if rest.len() >= LONGEST_PREFIX {
        context.step(format!("read {} bytes, and they did not end", group(answer.len())));
        return Err(Trouble::new(Symptom::Flood, "the line", brief(&answer)));
    }
    if find(&manner.prefix, body).is_some() || find(&manner.suffix, body).is_some() {
        context.step(format!("read {}", brief(&answer)));
        let trouble = Trouble::new(Symptom::Changed, "the line once", brief(&answer));
        return Err(trouble.seen(Some("The answer came twice.")));
    }
    if early.is_empty() && !late.is_empty() {
        context.step(format!("read {}", brief(&late)));
        let cause =
            "Something was sent at the end that nobody asked for. Is the end (read returns 0) answered like a message?";
        return Err(Trouble::new(Symptom::Unasked, "the end, and nothing before it", escape(&late)).seen(Some(cause)));
    }
    if std::str::from_utf8(&manner.prefix).is_err() {
        context.step(format!("read {}", brief(&answer)));
        let trouble =
            Trouble::new(Symptom::Changed, "a text in front of the answer, or nothing", brief(&manner.prefix));
        let cause = "What stands in front of the answer is no text. Is more sent than was read, or memory that was never written?";
        return Err(trouble.seen(Some(cause)));
    }
    Ok(manner)
}

fn no_answer(context: &Context<'_>, line: &[u8], answer: &[u8], ending: Ending) -> Trouble {
    let (symptom, instead) = match ending {
        Ending::Clean => (Symptom::Ended, "then the server ended the connection"),
        Ending::Reset => (Symptom::Reset, "then the connection was reset"),
        Ending::Open => (Symptom::Silent, "then nothing more"),
    };
    if answer.is_empty() {
        context.step("waited for the answer: nothing came");
        let instead = match ending {
            Ending::Open => format!("nothing for {}", seconds(context.story.patience())),
            _ => instead.trim_start_matches("then ").to_owned(),
        };
        return Trouble::differs(symptom, difference(b"", line, b"", &instead));
    }
    context.step(format!("read {}", brief(answer)));
    if answer.len() > LONGEST_PREFIX {
        return Trouble::new(Symptom::Flood, escape(line), brief(answer));
    }
    // Without knowing the prefix, the comparison begins where the answer has most in common with the line.
    let start = (0..answer.len()).max_by_key(|&at| (common(&answer[at..], line), answer.len() - at)).unwrap_or(0);
    let right = common(&answer[start..], line);
    let prefix = if right > 0 { &answer[..start] } else { b"" };
    let (seen, wrong) = answer.split_at(prefix.len() + right);
    let shown = difference(seen, &line[right..], wrong, instead);
    let manner = Manner { prefix: prefix.to_vec(), suffix: Vec::new() };
    Trouble::differs(Symptom::Changed, shown).seen(
        diagnose::what_differs(line, answer, &manner)
            .or_else(|| diagnose::what_differs(line, answer, &Manner::default())),
    )
}

/// How many bytes two texts have in common at their beginning.
fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}
