//! Where there is no timer of this kind, the loop wakes when its poll says so: to the millisecond.

use std::io;
use std::time::Duration;

use mio::{Registry, Token};

/// No timer.
pub(crate) struct Timer;

impl Timer {
    pub(crate) fn new(_: &Registry, _: Token) -> io::Result<Timer> {
        Ok(Timer)
    }

    pub(crate) fn set(&self, _: Duration) -> io::Result<()> {
        Ok(())
    }
}
