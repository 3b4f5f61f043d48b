//! The list of what is broken on purpose names no test that is not there.

use std::path::Path;

const LIST: &str = include_str!("README.md");

/// The tests that a line names, as `target::path::of::test` between backticks.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).filter(|word| word.contains("::") && !word.contains(' '))
}

/// Whether the file that a test's path leads to has that function, marked as a test or not.
fn exists(test: &str) -> bool {
    let (path, name) = test.rsplit_once("::").unwrap();
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
    texts.into_iter().any(|text| text.contains(&format!("fn {name}(")))
}

#[test]
fn every_test_that_the_list_names_exists() {
    let missing: Vec<&str> = LIST.lines().flat_map(named).filter(|test| !exists(test)).collect();
    assert_eq!(missing, Vec::<&str>::new());
    assert!(exists("faults::catalogue::every_test_that_the_list_names_exists"), "it can find a test");
    assert!(!exists("faults::catalogue::a_test_that_nobody_wrote"), "it can miss one");
}
