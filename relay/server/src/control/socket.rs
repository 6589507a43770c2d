//! The admin socket: made so that only its owner and the group `millrace` can speak to it, and never in the place of a relay that is
//! still running.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::{ConfigError, check_socket_path};

/// The group that may administrate.
const GROUP: &str = "millrace";

/// Connections that may wait to be accepted.
const WAITING_MAX: i32 = 128;

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// No socket can have this path.
    #[error(transparent)]
    Path(#[from] ConfigError),
    /// Somebody answers there.
    #[error("another relay is running behind {0}: stop it, or choose another socket with --admin")]
    InUse(String),
    /// Something that is no socket lies there.
    #[error("{0} is there and no socket: remove it, or choose another path with --admin")]
    Occupied(String),
    /// The kernel refuses.
    #[error("cannot make the admin socket {path}: {source}; choose another path with --admin")]
    Refused {
        /// The path.
        path: String,
        /// The kernel's word.
        source: io::Error,
    },
}

/// The socket's file, which goes with this value.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl SocketFile {
    /// The file of a socket that was made by the program before.
    #[must_use]
    pub(crate) fn of(path: PathBuf) -> Self {
        SocketFile(path)
    }

    /// Leaves the file where it is: another program has the socket now.
    pub(crate) fn leave(mut self) {
        self.0 = PathBuf::new();
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // One that stays is found stale by the next relay, and replaced.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Makes the socket, and its folder where that is missing. A socket that a dead relay left behind is replaced.
///
/// # Errors
/// See [`SocketError`].
pub fn make(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    check_socket_path(path)?;
    let name = || path.display().to_string();
    let refused = |source| SocketError::Refused { path: name(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(refused)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::Occupied(name())),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(SocketError::InUse(name())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(refused)?;
            }
            Err(error) => return Err(refused(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refused(error)),
    }
    // Nobody can connect before it listens, and by then its mode is what it should be.
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(refused)?;
    listener.bind(&SockAddr::unix(path).map_err(refused)?).map_err(refused)?;
    let file = SocketFile(path.to_owned());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(refused)?;
    if let Ok(Some(group)) = nix::unistd::Group::from_name(GROUP)
        && let Err(error) = std::os::unix::fs::chown(path, None, Some(group.gid.as_raw()))
    {
        tracing::warn!(%error, "the admin socket is not given to the group {GROUP}: only its owner can use it");
    }
    listener.listen(WAITING_MAX).map_err(refused)?;
    Ok((listener.into(), file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("millrace-socket-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = folder("stale");
        let path = folder.join("deeper/admin.sock");
        let (first, first_file) = make(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(make(&path), Err(SocketError::InUse(_))));
        // As after a kill: the file stays, nobody listens.
        drop(first);
        std::mem::forget(first_file);
        let second = make(&path).unwrap();
        drop(second);
        assert!(!path.exists(), "an orderly end leaves nothing");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = folder("file");
        let path = folder.join("admin.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(make(&path), Err(SocketError::Occupied(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
