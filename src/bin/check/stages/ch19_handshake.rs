//! The handshake of a WebSocket: a right one, one as others may write it, and wrong ones.

use super::{Context, failed};
use crate::handshake::{self, Answer};
use crate::probe::Client;
use crate::trouble::{Stop, Verdict};

type Fields = Vec<(&'static str, String)>;

/// A handshake with one thing wrong, and the statuses that are right; where none is named, any but 101.
struct Wrong {
    what: &'static str,
    spoil: fn(&mut Fields),
    right: &'static [u16],
}

const WRONG: &[Wrong] = &[
    Wrong { what: "version 12", spoil: |fields| put(fields, "Sec-WebSocket-Version", "12"), right: &[426, 400] },
    Wrong { what: "no key", spoil: |fields| fields.retain(|(name, _)| *name != "Sec-WebSocket-Key"), right: &[400] },
    Wrong { what: "a key of 5 bytes", spoil: |fields| put(fields, "Sec-WebSocket-Key", "c2hvcnQ="), right: &[400] },
    Wrong { what: "no word of WebSocket", spoil: Vec::clear, right: &[] },
];

const NOT_REFUSED: &str = "Look at the request before you answer 101. A version that is not 13 is answered with 426, and the field \
                           Sec-WebSocket-Version: 13; a key that is missing, or is not 16 bytes in base64, with 400. Both are \
                           answers of HTTP, and end the connection.";

fn put(fields: &mut Fields, name: &str, value: &str) {
    fields.iter_mut().filter(|(one, _)| *one == name).for_each(|(_, old)| *old = value.to_owned());
}

pub(super) fn handshake(context: &mut Context<'_>) -> Verdict {
    context.opens = false;
    let resource = super::ch19::resource(context);
    let key = handshake::new_key(&mut context.random);
    let mut client = context.client("A")?;
    let request = handshake::request(resource, &handshake::fields(&key));
    let answer = client.ask(&format!("sent a right handshake, with the key {key}"), &request)?;
    is_101(&answer)?;
    context.opens = true;
    answer.accepts(&key)?;
    as_others_write_it(context)?;

    let mut notes = Vec::new();
    for Wrong { what, spoil, right } in WRONG {
        let mut fields = handshake::fields(&handshake::new_key(&mut context.random));
        spoil(&mut fields);
        let mut client = context.client("C")?;
        let answer = client.ask(&format!("sent a request with {what}"), &handshake::request(resource, &fields))?;
        let is_right = if right.is_empty() { answer.status != 101 } else { right.contains(&answer.status) };
        if !is_right {
            let expected = match right {
                [] => "any other status than 101".to_owned(),
                right => right.iter().map(|status| format!("status {status}")).collect::<Vec<_>>().join(" or "),
            };
            return Err(failed(&expected, format!("status {}", answer.status), NOT_REFUSED));
        }
        notes.push(format!("{what}: {}", answer.status));
    }
    Ok(Some(notes.join(", ")))
}

/// As some browsers write it, and as the network may cut it.
fn as_others_write_it(context: &mut Context<'_>) -> Result<(), Stop> {
    let key = handshake::new_key(&mut context.random);
    let mut client: Client = context.client("B")?;
    let fields = handshake::fields(&key).into_iter().map(|(name, value)| match name {
        "Connection" => ("connection", "keep-alive, Upgrade".to_owned()),
        "Upgrade" => ("upgrade", "WebSocket".to_owned()),
        "Sec-WebSocket-Key" => ("sec-websocket-key", value),
        name => (name, value),
    });
    let request = handshake::request(super::ch19::resource(context), &fields.collect::<Fields>());
    let (begin, rest) = request.as_bytes().split_at(request.len() / 2);
    client.step(format!("sent another, with `connection: keep-alive, Upgrade`, in two pieces; its key is {key}"));
    client.send_for(begin, context.story.patience())?;
    client.let_it_read();
    client.send_for(rest, context.story.patience())?;
    let answer = client.answer()?;
    is_101(&answer)?;
    answer.accepts(&key)?;
    Ok(())
}

fn is_101(answer: &Answer) -> Result<(), Stop> {
    let cause = match answer.status {
        101 => return Ok(()),
        404 => "Is there a WebSocket at another path?",
        403 | 421 => "The server does not like who asks. A program, other than a browser, sends no Origin.",
        _ => {
            "The request is a right one. Names of fields, and the words `websocket` and `Upgrade`, may be in upper or lower \
             case; Connection may be a list; and a request may come in pieces: read on to the empty line."
        }
    };
    Err(failed("HTTP/1.1 101 Switching Protocols", format!("status {}", answer.status), cause))
}
