//! The guards are guarded: what they must notice, on small pages made for it.

mod of_consoles;
mod of_form;
mod of_quotes;

use std::fs;

use tempfile::TempDir;

use crate::book::{Book, Report};
use crate::programs;

const SOURCE: &str = "\
// ANCHOR: outer
fn main() {
    // ANCHOR: greet
    let name = \"서버\";
    println!(\"안녕하세요, {name}님!\");
    // ANCHOR_END: greet
}
// ANCHOR_END: outer
";

const QUOTE: &str = "\
<!-- code: src/bin/ch99_guard.rs#greet -->
```rust
let name = \"서버\";
println!(\"안녕하세요, {name}님!\");
```
";

const CONSOLE: &str = "\
<!-- run: server -->
```console
$ cargo run -q --bin ch04_reply -- server
listening on 127.0.0.1:8080
```

<!-- run: client -->
```console
$ cargo run -q --bin ch04_reply -- client
client: connected
client: sending 안녕하세요, 서버님!
서버 응답: 안녕하세요, 서버님!
client: ending
```

<!-- run: server -->
```console
server: a client has connected
server: received 안녕하세요, 서버님!
server: the client has ended
^C
```
";

/// A book of one page.
struct Small {
    folder: TempDir,
}

impl Small {
    fn new(page: &str) -> Small {
        let folder = tempfile::tempdir().unwrap();
        let small = Small { folder };
        small.write("src/bin/ch99_guard.rs", SOURCE);
        small.write("tutorial/en/guard.md", page);
        small
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.folder.path().join(path)).unwrap()
    }

    fn check(&self, update: bool) -> Report {
        Book::new(self.folder.path().to_owned(), programs()).check(update)
    }

    #[track_caller]
    fn fails_with(&self, text: &str) {
        let report = self.check(false);
        assert!(report.problems.iter().any(|problem| problem.contains(text)), "{text:?} is not in {report:#?}");
    }

    /// The page fails, `UPDATE` mends it, and a second time finds nothing to do.
    #[track_caller]
    fn is_mended_into(&self, page: &str) {
        self.fails_with("UPDATE=1 cargo test --test book");
        assert_eq!(self.check(true).rewritten, ["tutorial/en/guard.md"]);
        assert_eq!(self.read("tutorial/en/guard.md"), page);
        let again = self.check(true);
        assert!(again.problems.is_empty() && again.rewritten.is_empty(), "{again:#?}");
    }
}

fn good() -> String {
    format!("# A page\n\n{QUOTE}\n{CONSOLE}")
}
