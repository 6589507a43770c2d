//! The line between the two programs of an upgrade: a pair of Unix sockets that keep packets apart and carry descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use socket2::SockRef;

use super::message::Message;

/// More than any message has.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// One end. Sending waits for room, receiving for a message.
#[derive(Debug)]
pub(super) struct Link(OwnedFd);

impl Link {
    /// Both ends, closed on exec.
    pub(super) fn pair() -> io::Result<(Link, Link)> {
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Link(one), Link(other)))
    }

    /// The end that another program left here.
    pub(super) fn of(socket: OwnedFd) -> Link {
        Link(socket)
    }

    /// The socket, for a program that is started.
    pub(super) fn into_socket(self) -> OwnedFd {
        self.0
    }

    /// The same end, for another thread.
    pub(super) fn try_clone(&self) -> io::Result<Link> {
        Ok(Link(self.0.try_clone()?))
    }

    /// How long [`Link::receive`] waits before it fails; for ever with none.
    pub(super) fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        SockRef::from(&self.0).set_read_timeout(patience)
    }

    /// How long sending waits for room before it fails.
    pub(super) fn set_sending_patience(&self, patience: Duration) -> io::Result<()> {
        SockRef::from(&self.0).set_write_timeout(Some(patience))
    }

    /// Ends both directions: whoever waits at either end is let go.
    pub(super) fn hang_up(&self) {
        // It fails where the other end is gone, which comes to the same.
        let _ = SockRef::from(&self.0).shutdown(std::net::Shutdown::Both);
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The other end is gone.
    pub(super) fn send(&self, message: &Message) -> io::Result<()> {
        self.send_with(message, &[])
    }

    /// Sends a message and a descriptor.
    ///
    /// # Errors
    /// The other end is gone.
    pub(super) fn give(&self, message: &Message, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.send_with(message, &[descriptor])
    }

    fn send_with(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        loop {
            match sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                sent => return sent.map(drop).map_err(Into::into),
            }
        }
    }

    /// The next message, and its descriptor. `None` when the other end is gone.
    ///
    /// # Errors
    /// `WouldBlock` when none came in time; what cannot be read.
    pub(super) fn receive(&self) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut pieces = [IoSliceMut::new(&mut bytes)];
        let received = loop {
            match recvmsg(&self.0, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC) {
                // The other end is gone and has not read all; what it said before comes after this, once.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
                received => break received?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let message = serde_json::from_slice(&bytes[..received.bytes])?;
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        Ok(Some((message, descriptor)))
    }
}

impl AsFd for Link {
    /// Readable when there is a message, or the other end is gone.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::upgrade::message::Role;

    #[test]
    fn messages_stay_apart_and_descriptors_come_with_theirs() {
        let (one, other) = Link::pair().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        one.send(&Message::All).unwrap();
        one.give(&Message::Descriptor { role: Role::Admin }, far.as_fd()).unwrap();
        drop((one, far));
        assert!(matches!(other.receive().unwrap(), Some((Message::All, None))));
        let Some((Message::Descriptor { role: Role::Admin }, Some(given))) = other.receive().unwrap() else {
            panic!("no descriptor");
        };
        UnixStream::from(given).write_all(b"here").unwrap();
        let mut read = String::new();
        near.read_to_string(&mut read).unwrap();
        assert_eq!(read, "here");
        assert!(other.receive().unwrap().is_none(), "the other end is gone");
    }

    #[test]
    fn last_words_are_heard_of_who_did_not_listen() {
        let (one, other) = Link::pair().unwrap();
        one.send(&Message::All).unwrap();
        other.send(&Message::Ready).unwrap();
        drop(other);
        assert!(matches!(one.receive().unwrap(), Some((Message::Ready, None))));
        assert!(one.receive().unwrap().is_none());
    }

    #[test]
    fn nobody_is_waited_for_longer_than_said() {
        let (one, other) = Link::pair().unwrap();
        other.set_patience(Some(Duration::from_millis(1))).unwrap();
        assert_eq!(other.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        one.hang_up();
        assert!(other.receive().unwrap().is_none());
    }
}
