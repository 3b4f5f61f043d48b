//! Any bytes are a head, or no head yet, or are refused; and it does not depend on how they are cut. One thing wrong
//! with a good head, and it is refused.

use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use socket_steps::web::head::{Head, MOST_BYTES, Method};
use socket_steps::web::refusal::Refusal;

use crate::corpus::inputs;
use crate::support::figures::figure;
use crate::support::figures::tries;
use crate::support::web::{Response, Site};
use crate::support::{Client, PREFIX};

const CORPUS: &str = include_str!("corpus/heads.txt");

/// What is decided about bytes that arrive in pieces of these sizes, and then one at a time; as soon as it is.
fn in_pieces(bytes: &[u8], sizes: &[usize]) -> Result<Option<(Head, usize)>, Refusal> {
    let (mut end, mut sizes) = (0, sizes.iter());
    while end < bytes.len() {
        end = (end + sizes.next().copied().unwrap_or(1)).min(bytes.len());
        match Head::parse(&bytes[..end]) {
            Ok(None) => {}
            decided => return decided,
        }
    }
    Ok(None)
}

#[test]
fn the_corpus_gets_its_statuses_from_the_page_however_it_is_cut() {
    let site = Site::start(&[]);
    let corpus = inputs(CORPUS);
    for input in &corpus {
        let whole = Head::parse(&input.bytes);
        let length = input.bytes.len();
        for cut in [1, 2, 17, length / 2, 1024, 8190, 8191, 8192, 8193, 8194].into_iter().chain([length.max(3) - 2]) {
            // In two pieces, and from there on in pieces that a read would return.
            let sizes = [&[cut][..], &[1024; 20]].concat();
            assert_eq!(in_pieces(&input.bytes, &sizes), whole, "cut at {cut}: {}", input.why);
        }
        if length < 1000 {
            assert_eq!(in_pieces(&input.bytes, &[]), whole, "byte by byte: {}", input.why);
        }
        let mut client = Client::connect(site.page);
        // It may be refused before all of it is sent.
        let _ = std::io::Write::write_all(&mut client.0, &input.bytes);
        let _ = client.0.shutdown(std::net::Shutdown::Write);
        let response = Response::of(&client.rest_and_end().0);
        assert_eq!(response.status.to_string(), input.expected, "{}: {response:?}", input.why);
    }
    figure("B22", true, format!("HTTP: {} requests of the corpus, each with its status", corpus.len()));
    is_as_good_as_new(site);
}

/// It serves, it has not panicked, and nothing of a client's has reached its log as it was.
fn is_as_good_as_new(site: Site) {
    assert_eq!(site.get("/").status, 200);
    site.server.client().send("hello").expect(format!("{PREFIX}hello"));
    let ended = site.server.stop();
    assert!(ended.status.success() && !ended.log.contains("panicked"), "{ended:?}");
    assert!(!ended.log.contains(|character: char| character.is_control() && character != '\n'), "{:?}", ended.log);
}

/// A head that is right, in its parts.
#[derive(Clone, Debug)]
struct Good {
    method: &'static str,
    target: String,
    path: String,
    authority: String,
    version: &'static str,
    /// `Host` is one of them.
    fields: Vec<(String, String)>,
}

impl Good {
    fn bytes(&self) -> Vec<u8> {
        let fields: String = self.fields.iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect();
        format!("{} {} {}\r\n{fields}\r\n", self.method, self.target, self.version).into_bytes()
    }
}

fn hosts() -> impl Strategy<Value = String> {
    "([a-z][a-zA-Z0-9._-]{0,20}|127[.]0[.]0[.]1|\\[::1\\]|\\[2001:db8::[0-9a-f]{1,4}\\])(:[0-9]{0,4})?"
}

fn good_heads() -> impl Strategy<Value = Good> {
    let names = "[A-Za-z0-9!#$%&'*+.^_`|~-]{1,20}";
    let values = "[ \t]{0,3}([!-~\u{80}-\u{7ff}]([ -~\t]{0,40}[!-~])?)?[ \t]{0,3}";
    let fields = prop::collection::vec((names, values), 0..20);
    let paths = "/[!-\"$->@-~]{0,30}";
    let request = (prop_oneof![Just("GET"), Just("HEAD")], paths, "([?][!-\"$-~]{0,20})?", any::<bool>());
    let version = prop_oneof![9 => Just("HTTP/1.1"), 1 => Just("HTTP/1.0")];
    let host = (hosts(), hosts(), "(Host|host|HOST|hOsT)", any::<Index>());
    (request, version, host, fields, any::<Option<Index>>()).prop_map(|(request, version, host, fields, length)| {
        // The names of fields that mean something are put in on purpose, and not met by accident.
        let meant = ["host", "content-length", "transfer-encoding"];
        let is_other = |(name, _): &(String, String)| !meant.contains(&name.to_ascii_lowercase().as_str());
        let mut fields: Vec<(String, String)> = fields.into_iter().filter(is_other).collect();
        if let Some(at) = length {
            fields.insert(at.index(fields.len() + 1), ("Content-Length".to_owned(), " 0".to_owned()));
        }
        let (method, path, query, is_absolute) = request;
        let (host, other, name, at) = host;
        fields.insert(at.index(fields.len() + 1), (name, format!(" {host}")));
        let target = if is_absolute { format!("http://{other}{path}{query}") } else { format!("{path}{query}") };
        Good { method, target, path, authority: if is_absolute { other } else { host }, version, fields }
    })
}

/// What makes a good head a bad one. `at` chooses a place where there are several.
fn spoiled(good: &Good, at: Index) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = good.bytes();
    let line_ends: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"\r\n")).collect();
    let with = |change: &dyn Fn(&mut Good)| {
        let mut changed = Good { version: "HTTP/1.1", ..good.clone() };
        change(&mut changed);
        changed.bytes()
    };
    let with_field = |name: &str, value: &str| {
        with(&|head| head.fields.insert(at.index(head.fields.len() + 1), (name.to_owned(), value.to_owned())))
    };
    let put = |place: usize, what: &[u8]| {
        let mut bytes = bytes.clone();
        bytes.splice(place..place, what.iter().copied());
        bytes
    };
    let is_host = |field: &(String, String)| field.0.eq_ignore_ascii_case("host");
    let with_host = |value: &'static str| {
        with(&|head| head.fields.iter_mut().filter(|field| is_host(field)).for_each(|field| field.1 = value.to_owned()))
    };
    let of_a_field = |change: &dyn Fn(&mut (String, String))| {
        with(&|head| {
            let at = at.index(head.fields.len());
            change(&mut head.fields[at]);
        })
    };
    let (before_an_end, inside) = (line_ends[at.index(line_ends.len())], at.index(bytes.len() - 4));
    let mut without_cr = bytes.clone();
    without_cr.remove(before_an_end);
    let mut spoiled = vec![
        ("a bare LF", without_cr),
        ("a bare CR", put(before_an_end, b"\r")),
        ("a line that goes on in the next", put(line_ends[at.index(line_ends.len() - 2)] + 2, b" ")),
        ("no Host", with(&|head| head.fields.retain(|field| !is_host(field)))),
        ("a second Host", with_field("hOST", " localhost")),
        ("a length and an encoding", {
            with(&|head| {
                head.fields.retain(|(name, _)| name != "Content-Length");
                let two = [("Content-Length", "0"), ("Transfer-Encoding", "chunked")];
                head.fields.extend(two.map(|(name, value)| (name.to_owned(), value.to_owned())));
            })
        }),
        ("an encoding", with_field("Transfer-Encoding", "chunked")),
        ("an encoding of HTTP/1.0", {
            let mut old = Good { version: "HTTP/1.0", ..good.clone() };
            old.fields.push(("transfer-encoding".to_owned(), " gzip".to_owned()));
            old.bytes()
        }),
        ("a body", with_field("content-length", " 07")),
        ("a blank before the colon", of_a_field(&|field| field.0.push(' '))),
        ("a blank in a name", of_a_field(&|field| field.0.insert(1, '\t'))),
        ("no name", of_a_field(&|field| field.0.clear())),
        ("a name of another script", of_a_field(&|field| field.0.push('é'))),
        ("a character that no name has", of_a_field(&|field| field.0.push('('))),
        ("no colon", with(&|head| head.fields.push(("x".to_owned(), "\r\nno-colon\r\na:".to_owned())))),
        ("two blanks", with(&|head| head.target.insert(0, ' '))),
        ("a blank first", put(0, b" ")),
        ("a blank in the target", with(&|head| head.target.push_str(" x"))),
        ("a fragment", with(&|head| head.target.push('#'))),
        ("a target of another script", with(&|head| head.target.push('é'))),
        ("a target that is no path", with(&|head| head.target.insert(0, 'x'))),
        ("too many fields", with(&|head| head.fields.extend(vec![("a".to_owned(), "b".to_owned()); 64]))),
        ("too long", of_a_field(&|field| field.1.push_str(&"x".repeat(MOST_BYTES)))),
        ("too long a target", with(&|head| head.target.push_str(&"x".repeat(MOST_BYTES)))),
        ("an empty line too many", put(0, b"\r\n\r\n")),
    ];
    let two_lengths = |head: &mut Good| {
        head.fields.retain(|(name, _)| name != "Content-Length");
        head.fields.extend(vec![("Content-Length".to_owned(), "0".to_owned()); 2]);
    };
    spoiled.push(("two lengths", with(&two_lengths)));
    for length in ["", "+0", "-0", "0x0", "0,0", "0 0", "0.0", "18446744073709551616", "４"] {
        let other = |head: &mut Good| {
            head.fields.retain(|(name, _)| name != "Content-Length");
            head.fields.push(("Content-Length".to_owned(), length.to_owned()));
        };
        spoiled.push(("a length that is none", with(&other)));
    }
    for host in ["", " ", "a b", "a@b", "a/b", "a:b", "a:65536", "a:-1", "[::1", "[a]", "::1", "a\\b", "é", "a,b"] {
        spoiled.push(("a Host that is none", with_host(host)));
    }
    for version in ["HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "HTTP/11", "HTTP/1", "http/1.1", "HTTP/1.1 ", "HTTP/1.1x", ""] {
        spoiled.push(("another version", with(&|head| head.version = version)));
    }
    for method in ["get", "GETS", "POST", "CONNECT", "", "G(T", "G\tT"] {
        spoiled.push(("another method", with(&|head| head.method = method)));
    }
    for control in (0..=0x1f).chain([0x7f]).filter(|control| ![b'\t', b'\r', b'\n'].contains(control)) {
        spoiled.push(("a control character", put(inside, &[control])));
    }
    spoiled
}

#[test]
fn one_thing_wrong_with_a_good_head_and_it_is_refused() {
    let tries = tries(100, 1000);
    let mut runner = TestRunner::new(tries.clone());
    let met = Cell::new(BTreeMap::<&str, u64>::new());
    let outcome = runner.run(&(good_heads(), any::<Index>(), prop::collection::vec(1..300_usize, 0..10)), |input| {
        let (good, at, sizes) = input;
        let bytes = good.bytes();
        let whole = Head::parse(&bytes);
        let (head, length) = match &whole {
            Ok(Some(decided)) => decided,
            refused => return Err(TestCaseError::fail(format!("{refused:?}"))),
        };
        let method = if head.method == Method::Get { "GET" } else { "HEAD" };
        prop_assert_eq!((method, &head.path, *length), (good.method, &good.path, bytes.len()));
        prop_assert_eq!((head.authority.as_ref(), head.is_1_1), (Some(&good.authority), good.version == "HTTP/1.1"));
        prop_assert_eq!(in_pieces(&bytes, &sizes), whole.clone());
        let mut counts = met.take();
        for (what, bytes) in spoiled(&good, at) {
            let decided = Head::parse(&bytes);
            let refused = matches!(&decided, Err(refusal) if (400..=505).contains(&refusal.status));
            prop_assert!(refused, "{}: {:?} became {:?}", what, String::from_utf8_lossy(&bytes), decided);
            prop_assert_eq!(in_pieces(&bytes, &[&sizes[..], &[700; 20]].concat()), decided, "{}", what);
            *counts.entry(what).or_default() += 1;
        }
        met.set(counts);
        Ok(())
    });
    outcome.unwrap();
    let met = met.take();
    figure(
        "B22",
        true,
        format!(
            "HTTP heads: {} good ones understood; {} with one of {} things wrong, each refused; seed {}",
            tries.cases,
            met.values().sum::<u64>(),
            met.len(),
            tries.rng_seed
        ),
    );
}

/// Bytes that are almost a head.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..300);
    let alike = "(\r\n)?(GET|HEAD|POST|X)? ?[ -~]{0,20} HTTP/1.[0-2]\r\n(([!-~]{1,8}|Host|Content-Length): ?[ -~]{0,10}\r\n){0,5}(\r\n)?";
    let long = (0..300_usize, "[x\r\n:]{0,4}")
        .prop_map(|(more, end)| format!("GET / HTTP/1.1\r\na: {}{end}", "x".repeat(8000 + more)));
    let changed = (good_heads(), any::<Index>(), any::<u8>(), 0..3).prop_map(|(good, at, byte, how)| {
        let mut bytes = good.bytes();
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
        bytes
    });
    let begun = (good_heads(), any::<Index>()).prop_map(|(good, end)| {
        let mut bytes = good.bytes();
        bytes.truncate(end.index(bytes.len()));
        bytes
    });
    let [alike, long] = [alike.prop_map(String::into_bytes).boxed(), long.prop_map(String::into_bytes).boxed()];
    let starts = prop_oneof![noise.clone(), alike, long, changed, begun];
    let ends = prop_oneof![Just(Vec::new()), noise];
    (starts, ends).prop_map(|(start, end)| [start, end].concat())
}

#[test]
fn any_bytes_are_decided_alike_however_they_are_cut() {
    let tries = tries(500, 5000);
    let met = Cell::new([0; 3]);
    let outcome =
        TestRunner::new(tries.clone()).run(&(bytes(), prop::collection::vec(1..1500_usize, 20)), |(bytes, sizes)| {
            let whole = Head::parse(&bytes);
            prop_assert_eq!(in_pieces(&bytes, &sizes), whole.clone());
            let mut counts = met.get();
            match whole {
                Ok(None) => {
                    prop_assert!(bytes.len() < MOST_BYTES, "a head without end is kept");
                    counts[0] += 1;
                }
                Ok(Some((_, length))) => {
                    prop_assert!(length <= MOST_BYTES && bytes[..length].ends_with(b"\r\n\r\n"));
                    prop_assert_eq!(Head::parse(&bytes[..length]), Head::parse(&bytes));
                    counts[1] += 1;
                }
                Err(refusal) => {
                    prop_assert!(refusal.phrase() != "Unknown", "{}", refusal);
                    counts[2] += 1;
                }
            }
            met.set(counts);
            Ok(())
        });
    outcome.unwrap();
    let [unfinished, heads, refused] = met.get();
    assert!(unfinished > 0 && heads > 0 && refused > 0, "{:?}", met.get());
    figure(
        "B22",
        true,
        format!(
            "HTTP heads: {} thought up, {heads} understood, {refused} refused, {unfinished} without end, 0 failed; seed {}",
            tries.cases, tries.rng_seed
        ),
    );
}

#[test]
fn any_bytes_get_the_answer_from_the_page_that_the_head_deserves() {
    let site = Site::start(&[]);
    let tries = tries(100, 1000);
    let outcome = TestRunner::new(tries.clone()).run(&bytes(), |bytes| {
        let mut client = Client::connect(site.page);
        let _ = std::io::Write::write_all(&mut client.0, &bytes);
        let _ = client.0.shutdown(std::net::Shutdown::Write);
        let answer = client.rest_and_end().0;
        match Head::parse(&bytes) {
            Ok(None) if bytes.is_empty() => prop_assert!(answer.is_empty()),
            Ok(None) => prop_assert_eq!(Response::of(&answer).status, 400),
            Ok(Some(_)) => prop_assert!([200, 404, 421, 426].contains(&Response::of(&answer).status), "{:?}", answer),
            Err(refusal) => prop_assert_eq!(Response::of(&answer).status, refusal.status),
        }
        Ok(())
    });
    outcome.unwrap();
    let (cases, seed) = (tries.cases, tries.rng_seed);
    figure("B22", true, format!("HTTP: {cases} requests thought up and sent to the page, 0 failed; seed {seed}"));
    is_as_good_as_new(site);
}
