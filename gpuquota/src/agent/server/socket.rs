//! The unix socket for the tools of this node: root and the agent's own user are answered.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// Who a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Anybody who reaches the port.
    Tcp,
    /// Root or the agent's own user, on the unix socket.
    Trusted,
    /// Another user, on the unix socket.
    Stranger,
}

/// The socket's name; it goes with this value, if it is still ours.
pub struct Name {
    path: PathBuf,
    inode: u64,
}

/// Binds the socket. One that nobody listens on any more is replaced, and nothing else is.
pub fn bind(path: &Path) -> io::Result<(UnixListener, Name)> {
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::Error::other("something that is no socket is there"));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) => return Err(error),
        },
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    // Who came before is asked who it is all the same.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let inode = std::fs::symlink_metadata(path)?.ino();
    Ok((listener, Name { path: path.to_owned(), inode }))
}

impl Drop for Name {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|there| there.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Who is on the other side.
pub fn peer(stream: &UnixStream) -> Peer {
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(credentials) if credentials.uid() == 0 || credentials.uid() == own => Peer::Trusted,
        _ => Peer::Stranger,
    }
}
