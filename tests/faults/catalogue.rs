//! The list of what is broken on purpose: each row of it has tests, and they are there, or it has a reason why not; and
//! none is passed over in silence.

use std::env;
use std::path::Path;
use std::process::{Command, Output};

const LIST: &str = include_str!("README.md");

/// The cells of each row of the tables below a heading, and above the next one of its kind.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, below) = LIST.split_once(heading).unwrap();
    let part = below.split("\n## ").next().unwrap();
    let rows = part.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    let rows = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    rows.filter(|row| !matches!(row[0], "row" | "fault" | "---")).collect()
}

/// What stands between backticks in a cell, and what stands around that.
fn words(cell: &str) -> (Vec<&str>, Vec<&str>) {
    let parts: Vec<&str> = cell.split('`').collect();
    (parts.iter().copied().skip(1).step_by(2).collect(), parts.into_iter().step_by(2).collect())
}

/// What is wrong with the last cell of a row: it should name tests, as `target::path::of::test` between backticks, and
/// nothing else; or say in words why there is none, where that is allowed.
fn wrong(cell: &str, may_have_a_reason: bool) -> Option<String> {
    let (tests, around) = words(cell);
    let is_a_reason = cell.split_whitespace().count() > 3;
    if tests.is_empty() {
        return (!may_have_a_reason || !is_a_reason).then(|| format!("neither a test nor a reason: {cell:?}"));
    }
    let missing: Vec<&str> = tests.into_iter().filter(|test| !exists(test)).collect();
    let more = around.iter().any(|text| !matches!(text.trim(), "" | ","));
    (!missing.is_empty() || more).then(|| format!("not a test: {missing:?} in {cell:?}"))
}

/// Whether the file that a test's path leads to has that test.
fn exists(test: &str) -> bool {
    let Some((path, name)) = test.rsplit_once("::") else { return false };
    let (target, module) = path.split_once("::").unwrap_or((path, ""));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = match (target, module) {
        ("socket_steps", module) => {
            vec![root.join("src").join(format!("{}.rs", module.replace("::tests", "").replace("::", "/")))]
        }
        (target, "") => vec![root.join(format!("tests/{target}.rs")), root.join(format!("tests/{target}/main.rs"))],
        (target, module) => vec![root.join(format!("tests/{target}/{module}.rs"))],
    };
    let texts = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
    texts.into_iter().any(|text| has_test(&text, name))
}

/// Whether a source has this function, with `#[test]` among the attributes above it.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let Some(at) = lines.iter().position(|line| line.starts_with(&format!("fn {name}("))) else { return false };
    lines[..at].iter().rev().take_while(|line| line.starts_with("#[")).any(|line| *line == "#[test]")
}

#[test]
fn every_row_has_tests_that_are_there_or_a_reason_why_there_is_none() {
    let (bar, catalogue) = (rows("\n## The bar\n"), rows("\n## The catalogue\n"));
    let rows = bar.iter().map(|row| (row, false)).chain(catalogue.iter().map(|row| (row, true)));
    let wrong: Vec<String> = rows
        .filter_map(|(row, may_have_a_reason)| match row[..] {
            [what, _, tests] => wrong(tests, may_have_a_reason).map(|why| format!("{what}: {why}")),
            _ => Some(format!("{} cells: {row:?}", row.len())),
        })
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
    println!("{} rows of the bar, {} of the catalogue, 0 without a test or a reason", bar.len(), catalogue.len());
    assert!(bar.len() == 25 && catalogue.len() > 100, "these are not the tables");
}

#[test]
fn a_row_without_tests_would_be_found() {
    assert!(exists("faults::catalogue::a_row_without_tests_would_be_found"), "it can find a test");
    assert!(!exists("faults::catalogue::a_test_that_nobody_wrote"), "it can miss one");
    assert!(!exists("faults::catalogue::exists"), "a function is no test");
    assert!(has_test("#[test]\n#[ignore = \"\"]\nfn one() {}\nfn two() {}", "one"));
    assert!(!has_test("#[test]\nfn one() {}\nfn two() {}", "two"), "it is another one's attribute");
    let row = "`faults::catalogue::a_row_without_tests_would_be_found`";
    assert_eq!(wrong(row, false), None);
    assert_eq!(wrong("cannot be done, because of the kernel", true), None);
    for cell in ["", "later", "`faults::catalogue::exists`", &format!("{row}, `exists`"), &format!("{row} and others")]
    {
        assert!(wrong(cell, true).is_some(), "{cell:?}");
    }
    assert!(wrong("cannot be done, because of the kernel", false).is_some(), "the bar has a figure for each row");
}

/// One of these tests, where no program is to be found, and with this list of what must be there.
fn without_any_program(must_have: &str) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "life::a_server_started_with_nohup_outlives_its_terminal_and_stops_when_it_is_asked_to"]);
    command.env("PATH", "/nowhere").env("MUST_HAVE", must_have).output().unwrap()
}

#[test]
fn what_is_skipped_says_so_aloud_and_fails_if_it_was_asked_for_by_name() {
    let heard = |output: &Output| String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    for must_have in ["", "strace,node"] {
        let skipped = without_any_program(must_have);
        assert!(skipped.status.success() && heard(&skipped).contains("1 passed"), "{}", heard(&skipped));
        assert!(heard(&skipped).contains("SKIPPED for want of nohup: "), "{}", heard(&skipped));
    }
    for (must_have, why) in
        [("strace,nohup", "MUST_HAVE names nohup"), ("strace,no-hup", "nothing is called \"no-hup\"")]
    {
        let failed = without_any_program(must_have);
        assert!(!failed.status.success() && heard(&failed).contains(why), "{}", heard(&failed));
    }
}
