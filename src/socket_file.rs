//! The file of a Unix-domain socket: made, replaced when stale, removed at the end.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use socket2::{Domain, SockAddr, Socket as RawSocket, Type};

/// A socket file of ours. Dropping it removes the file, if the file is still ours: so drop it before the
/// socket is closed. As long as the socket is open, no other file can have its inode, and no other server
/// takes it for stale.
///
/// Closing a Unix socket leaves its file behind, and a file that is there makes the next `bind` fail. A
/// server that is killed cannot clean up, so the next one has to tell a dead file from a living server's.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: another file may have the same name later.
    identity: (u64, u64),
}

impl SocketFile {
    /// Binds `socket` to `path` with mode 0600 and listens.
    ///
    /// # Errors
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) when a living server has the path,
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) when something that is not a socket does.
    pub(crate) fn bind(socket: &RawSocket, path: &Path, backlog: i32) -> io::Result<SocketFile> {
        // Between another server's bind and its listen, its file looks stale. So this is done by one
        // server at a time: whoever holds the lock of the folder.
        let _lock = lock_folder_of(path)?;

        let address = SockAddr::unix(path)?;
        // ANCHOR: bind
        match socket.bind(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_if_stale(path, &address)?;
                socket.bind(&address)?;
            }
            bound => bound?,
        }
        // Nobody can connect before listen, so there is no moment in which others could.
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        let identity = identity(&fs::symlink_metadata(path)?);
        socket.listen(backlog)?;
        // ANCHOR_END: bind
        Ok(SocketFile { path: path.to_owned(), identity })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Under the lock, or another server could put its file there between the look and the removal. If
        // the lock cannot be had, that is still unlikely; a file that is left behind is certain.
        let _lock = lock_folder_of(&self.path);
        if fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Removes the socket of a server that is no more: it is a socket, and it refuses connections.
fn remove_if_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    // Not `metadata`: that would follow a symbolic link to someone else's file.
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => {}
        Ok(_) => {
            let why = "a file of that name exists, and is not a socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        // Its owner has removed it just now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    // ANCHOR: stale
    let probe = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    // A living server whose backlog is full would make us wait.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
    // ANCHOR_END: stale
}

/// The lock of a file's folder, held until it is dropped; other servers hold it for microseconds. A folder
/// that may be written to but not listed cannot be locked, and is used without.
fn lock_folder_of(path: &Path) -> io::Result<Option<File>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = match File::open(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        opened => opened?,
    };
    for _ in 0..1000 {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(1)),
            locked => return locked.map(|()| Some(file)).map_err(io::Error::from),
        }
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "another program holds the lock of the folder"))
}
