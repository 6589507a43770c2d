//! The new program's side of an upgrade: it takes everything over, and afterwards tells the old one what its readers wait for.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use data_encoding::HEXLOWER;
use millrace_pagecache::disk::{Left, VisibleRuns};
use millrace_send::Mailbox;

use super::link::Link;
use super::message::{Loose, Message, PROTOCOL, Role};
use super::teller::{self, LEAVING};
use crate::relay::Relay;
use crate::service::inherited::Inherited;

/// Says where the line to the running program is: `stdin`.
pub(crate) const VARIABLE: &str = "MILLRACE_UPGRADE";

/// Why nothing is taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeOverError {
    /// The line.
    #[error("the running program cannot be understood: {0}")]
    Line(#[from] io::Error),
    /// The other end is gone, or takes everything back.
    #[error("the running program has taken everything back")]
    TakenBack,
    /// It says something else than it should.
    #[error("the running program (version {0}) hands over in another way: restart the relay instead")]
    Protocol(String),
    /// The configuration names another store.
    #[error(
        "the configuration names the store {configured}, and the running program has {running}: restart the relay instead"
    )]
    Store {
        /// What the configuration says.
        configured: String,
        /// What is handed over.
        running: String,
    },
    /// Something is missing.
    #[error("the running program hands over no {0}")]
    Missing(&'static str),
}

/// The line to the program that was the relay until now.
#[derive(Debug)]
pub(crate) struct Predecessor(Link);

/// What it gave.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Listening sockets.
    pub(crate) inherited: Inherited,
    /// The store.
    pub(crate) left: Left,
    /// What waits for the rest of its piece.
    pub(crate) arrived: VisibleRuns,
    /// Whether the file of the admin socket is ours to remove.
    pub(crate) owns_admin_file: bool,
    /// BitTorrent peer id.
    pub(crate) peer_id: [u8; 20],
}

impl Predecessor {
    /// The program that started this one in order to be replaced, if one did. Standard input is nothing afterwards.
    ///
    /// # Errors
    /// There is nobody on standard input.
    pub(crate) fn from_environment(
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> io::Result<Option<Predecessor>> {
        if variable(VARIABLE).is_none_or(|value| value != "stdin") {
            return Ok(None);
        }
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        let link = Link::of(socket);
        link.set_sending_patience(LEAVING)?;
        Ok(Some(Predecessor(link)))
    }

    /// Says that nothing will come of it.
    pub(crate) fn fail(&self, why: &str) {
        // It may be gone.
        let _ = self.0.send(&Message::Failed { why: why.to_owned() });
    }

    /// Takes everything over, for a relay whose store is in `folder`. The running program writes nothing any more after this.
    ///
    /// # Errors
    /// See [`TakeOverError`].
    pub(crate) fn take(&self, folder: &std::path::Path) -> Result<Taken, TakeOverError> {
        match self.next()?.0 {
            Message::Hello { protocol: PROTOCOL, .. } => {}
            Message::Hello { version, .. } => return Err(TakeOverError::Protocol(version)),
            _ => return Err(TakeOverError::Protocol("unknown".to_owned())),
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        self.0.send(&Message::Hello { protocol: PROTOCOL, version })?;
        let mut gathered = Gathered::default();
        loop {
            match self.next()? {
                (Message::Descriptor { role }, Some(descriptor)) => gathered.put(role, descriptor),
                (Message::Store { folder: running, owns_admin_file, peer_id }, _) => {
                    let configured = std::path::absolute(folder)?;
                    check_store(configured, &running)?;
                    let digits = HEXLOWER.decode(peer_id.as_bytes()).ok();
                    gathered.peer_id = digits.and_then(|digits| digits.try_into().ok());
                    gathered.owns_admin_file = owns_admin_file;
                }
                (Message::Content(loose), _) => gathered.note(loose),
                (Message::All, _) => return gathered.taken(),
                (other, _) => return Err(TakeOverError::Protocol(format!("{other:?}"))),
            }
        }
    }

    /// Says that all is there, and waits to be let. How often caps were halved for the old program.
    ///
    /// # Errors
    /// The running program has taken everything back.
    pub(crate) fn ready(&self) -> Result<u32, TakeOverError> {
        self.0.send(&Message::Ready)?;
        match self.next()?.0 {
            Message::Go { halvings } => Ok(halvings),
            other => Err(TakeOverError::Protocol(format!("{other:?}"))),
        }
    }

    fn next(&self) -> Result<(Message, Option<OwnedFd>), TakeOverError> {
        self.0.receive()?.ok_or(TakeOverError::TakenBack)
    }

    /// Starts the thread that speaks to the old program until that is gone. `mailbox` is one of the shards' at the place `number`.
    ///
    /// # Errors
    /// No thread, no descriptor.
    pub(crate) fn serve(
        &self,
        relay: Arc<Relay>,
        mailbox: Mailbox,
        number: u32,
    ) -> io::Result<JoinHandle<()>> {
        teller::start(self.0.try_clone()?, relay, mailbox, number)
    }
}

fn check_store(configured: PathBuf, running: &PathBuf) -> Result<(), TakeOverError> {
    if configured == *running {
        return Ok(());
    }
    let [configured, running] = [configured.display().to_string(), running.display().to_string()];
    Err(TakeOverError::Store { configured, running })
}

#[derive(Debug, Default)]
struct Gathered {
    inherited: Inherited,
    lock: Option<File>,
    visible: VisibleRuns,
    arrived: VisibleRuns,
    owns_admin_file: bool,
    peer_id: Option<[u8; 20]>,
}

impl Gathered {
    fn put(&mut self, role: Role, descriptor: OwnedFd) {
        match role {
            Role::Http => self.inherited.http.push(descriptor),
            Role::Https => self.inherited.https.push(descriptor),
            Role::BitTorrent => self.inherited.bittorrent.push(descriptor),
            Role::Udp => self.inherited.udp = Some(descriptor.into()),
            Role::Pages => self.inherited.pages = Some(descriptor.into()),
            Role::Metrics => self.inherited.metrics = Some(descriptor.into()),
            Role::Admin => self.inherited.admin = Some(descriptor.into()),
            Role::Lock => self.lock = Some(descriptor.into()),
        }
    }

    fn note(&mut self, loose: Loose) {
        let Loose { id, visible, arrived } = loose;
        self.visible.entry(id).or_default().extend(visible);
        self.arrived.entry(id).or_default().extend(arrived);
    }

    fn taken(self) -> Result<Taken, TakeOverError> {
        if self.inherited.http.is_empty() || self.inherited.bittorrent.is_empty() {
            return Err(TakeOverError::Missing("listening sockets"));
        }
        Ok(Taken {
            inherited: self.inherited,
            left: Left { lock: self.lock.ok_or(TakeOverError::Missing("lock"))?, visible: self.visible },
            arrived: self.arrived,
            owns_admin_file: self.owns_admin_file,
            peer_id: self.peer_id.ok_or(TakeOverError::Missing("peer id"))?,
        })
    }
}
