//! A socket file of the section's own instead of `/tmp/NAME.sock`, which several sections want at the same time.

use std::sync::LazyLock;

use regex_lite::Regex;
use tempfile::TempDir;

use crate::markdown::pattern;

static SOCKET: LazyLock<Regex> = LazyLock::new(|| pattern(r"/tmp/([a-z0-9_-]+\.sock)\b"));

/// The socket files of a section.
pub(crate) struct Paths {
    folder: TempDir,
}

impl Paths {
    pub(crate) fn new() -> Paths {
        Paths { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn with_real(&self, command: &str) -> String {
        SOCKET.replace_all(command, format!("{}/${{1}}", self.folder.path().display())).into_owned()
    }

    pub(crate) fn as_shown(&self, line: &str) -> String {
        line.replace(&self.folder.path().display().to_string(), "/tmp")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_file_has_the_name_of_the_page() {
        let paths = Paths::new();
        let real = paths.with_real("talk unix:/tmp/ch15_ipc.sock | tail");
        assert!(!real.contains("/tmp/ch15_ipc.sock"), "{real}");
        assert_eq!(paths.as_shown(&real), "talk unix:/tmp/ch15_ipc.sock | tail");
        assert_eq!(paths.with_real("cat /tmp/other"), "cat /tmp/other");
    }
}
