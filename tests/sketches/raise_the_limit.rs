//! Chapter 11, exercise: a program may raise its own limit of descriptors, up to the hard one.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

// ANCHOR: raise_the_limit
/// Raises the soft limit of descriptors to the hard one; returns both as they were.
fn raise_the_limit() -> io::Result<Rlimit> {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before })?;
    Ok(before)
}
// ANCHOR_END: raise_the_limit

#[test]
fn afterwards_the_soft_limit_is_the_hard_one() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // One less than now: the other tests of this process do not notice.
    let less = current.or(maximum).map(|limit| limit - 1);
    setrlimit(Resource::Nofile, Rlimit { current: less, maximum }).unwrap();
    assert_eq!(raise_the_limit().unwrap().current, less);
    let now = getrlimit(Resource::Nofile);
    assert_eq!(now.current, now.maximum);
    assert_ne!(now.current, less, "nothing was raised");
}
