//! Who may use the admin socket: root, the relay's own user, and members of the socket's group. The socket's mode says the same to
//! the kernel; this is looked at again on each connection, so that a mode that somebody changed, or a socket that was handed over,
//! opens nothing.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use nix::unistd::{Gid, Uid, User};
use tokio::net::UnixStream;

use super::door::Door;
use super::parting::Parting;
use super::problem::Refusal;

/// Who may.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    own: Uid,
    group: Option<Gid>,
}

/// Who is at the other end of a connection, as the kernel noted it when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    uid: Uid,
    gid: Gid,
    /// None where the peer is of a process namespace that cannot be seen from here.
    pid: Option<i32>,
}

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Peer {
            uid: Uid::from_raw(credentials.uid()),
            gid: Gid::from_raw(credentials.gid()),
            pid: credentials.pid().filter(|pid| *pid > 0),
        })
    }
}

#[cfg(test)]
impl Peer {
    pub(super) fn uid(self) -> Uid {
        self.uid
    }
}

impl Connected<IncomingStream<'_, Parting<Door>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Parting<Door>>) -> Self {
        *stream.remote_addr()
    }
}

impl Access {
    /// The group is that of the socket's file.
    pub(super) fn to(socket: &Path) -> Self {
        let group = std::fs::metadata(socket).ok().map(|file| Gid::from_raw(file.gid()));
        Access { own: nix::unistd::geteuid(), group }
    }

    fn admits(&self, peer: Peer) -> bool {
        peer.uid.is_root()
            || peer.uid == self.own
            || self.group.is_some_and(|group| peer.gid == group || is_member(peer, group))
    }
}

/// Whether the group is one that the peer has besides its own: as its process says, or the user database.
fn is_member(peer: Peer, group: Gid) -> bool {
    let status = peer.pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
    if status.is_some_and(|status| lists(&status, group)) {
        return true;
    }
    let Ok(Some(user)) = User::from_uid(peer.uid) else { return false };
    let Ok(name) = std::ffi::CString::new(user.name) else { return false };
    nix::unistd::getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group))
}

/// Whether `/proc/PID/status` lists the group (proc_pid_status(5)).
fn lists(status: &str, group: Gid) -> bool {
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    groups.split_whitespace().any(|word| word.parse() == Ok(group.as_raw()))
}

/// Lets requests of those through who may.
pub(super) async fn guard(
    State(access): State<Arc<Access>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    // The user database may be somewhere else: nobody waits for it here.
    let admitted = tokio::task::spawn_blocking(move || access.admits(peer)).await.unwrap_or(false);
    if admitted {
        return next.run(request).await;
    }
    tracing::warn!(
        uid = peer.uid.as_raw(), gid = peer.gid.as_raw(), pid = peer.pid,
        method = %request.method(), path = request.uri().path(),
        "refused somebody at the admin socket: only root, this relay's user and the socket's group may use it"
    );
    let mut refused = Refusal::new(
        StatusCode::FORBIDDEN,
        format!("User {} may not administrate this relay: only root, the relay's own user and members of the socket's group may.", peer.uid),
    )
    .into_response();
    refused
        .headers_mut()
        .insert(axum::http::header::CONNECTION, axum::http::HeaderValue::from_static("close"));
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Uid = Uid::from_raw(65_534);

    #[test]
    fn root_the_owner_and_the_group_may_and_nobody_else() {
        let access = Access { own: Uid::from_raw(990), group: Some(Gid::from_raw(991)) };
        let peer = |uid: u32, gid: u32| Peer { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), pid: None };
        assert!(access.admits(peer(0, 5)) && access.admits(peer(990, 5)) && access.admits(peer(5, 991)));
        assert!(!access.admits(Peer { uid: NOBODY, gid: Gid::from_raw(65_534), pid: None }));
        let closed = Access { group: None, ..access };
        assert!(!closed.admits(peer(5, 991)));
    }

    #[test]
    fn groups_of_a_process_are_read_whole() {
        let status = "Name:\tx\nGid:\t7\t7\t7\t7\nGroups:\t4 24 991 \nNStgid:\t1\n";
        assert!(lists(status, Gid::from_raw(991)) && lists(status, Gid::from_raw(4)));
        assert!(
            !lists(status, Gid::from_raw(99)) && !lists(status, Gid::from_raw(7)) && !lists("", NOBODY_GROUP)
        );
    }

    const NOBODY_GROUP: Gid = Gid::from_raw(65_534);
}
