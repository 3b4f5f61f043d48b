//! A control group of a test's own, to limit the threads of the server that is put into it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::support::wait_until;

/// Removed when dropped, which is possible once it is empty.
pub(crate) struct ControlGroup(PathBuf);

impl ControlGroup {
    /// A new one, unless nobody but the administrator makes one here, or it cannot limit threads: why.
    pub(crate) fn new(name: &str) -> Result<ControlGroup, String> {
        // Version 1 has a hierarchy for each controller, version 2 one for all, and there it may be switched off.
        let roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists());
        let root = root.ok_or("there are no control groups here")?;
        let path = root.join(format!("socket-steps-{name}-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("cannot make a control group: {error}"))?;
        let group = ControlGroup(path);
        match group.file("pids.max").exists() {
            true => Ok(group),
            false => Err("control groups have no limit of threads here".to_owned()),
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, file: &str, value: impl ToString) -> io::Result<()> {
        fs::write(self.file(file), value.to_string())
    }

    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.file(file)).unwrap()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        wait_until("the control group is empty", || fs::remove_dir(&self.0).ok());
    }
}
