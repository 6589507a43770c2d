//! The running program's side of an upgrade: it starts the new one and gives it everything.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use tokio::sync::OwnedRwLockWriteGuard;

use super::following::Successor;
use super::link::Link;
use super::message::{Loose, Message, PROTOCOL, RUNS_MAX, Role};
use super::predecessor::VARIABLE;
use super::teller::ALL_TOGETHER;
use crate::relay::Relay;
use crate::service::{Notify, State};
use crate::sockets::Kept;

/// What the kernel calls a program whose file was replaced.
const REPLACED: &str = " (deleted)";

/// Of the time that an upgrade may take, ranges under way have this part to come to their end: readers who wait for other bytes get none
/// meanwhile.
const REST_PART: u32 = 30;

/// How often somebody is looked at who has to come to an end first.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Why an upgrade is not made. The running program goes on as before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// There is no such program, or it cannot be started.
    #[error("{program} does not start: {source}")]
    Start {
        /// What was started.
        program: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// It said why.
    #[error("the new program cannot take over: {0}")]
    Failed(String),
    /// It ended without a word.
    #[error(
        "the new program ended before it was ready ({0}): its log says why, or it is a version that cannot take over and needs a restart"
    )]
    Ended(String),
    /// It is of a version that understands something else.
    #[error("the new program (version {version}) takes over in another way: restart the relay instead")]
    Protocol {
        /// Its version.
        version: String,
    },
    /// It took too long.
    #[error("the new program was not ready within {} s: raise limits.upgrade-timeout, or look into its log", .0.as_secs())]
    Late(Duration),
    /// Somebody is in the middle of a change.
    #[error("a change over the admin socket is under way and does not end: try again")]
    Busy,
    /// The pulls do not come to rest, or the line is lost.
    #[error("{what}: {source}")]
    Line {
        /// What was tried.
        what: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
}

fn line(what: &'static str) -> impl FnOnce(io::Error) -> UpgradeError {
    move |source| UpgradeError::Line { what, source }
}

/// All that a new program is given.
#[derive(Debug)]
pub(crate) struct Handover {
    pub(crate) relay: Arc<Relay>,
    pub(crate) kept: Arc<Kept>,
    pub(crate) notify: Arc<Notify>,
    /// Where the new program lies.
    pub(crate) program: PathBuf,
}

/// A program that is starting.
struct Starting {
    link: Link,
    child: Child,
    until: Instant,
}

impl Handover {
    /// Starts the program that is on the disk now and gives it everything. Waits for it.
    ///
    /// # Errors
    /// See [`UpgradeError`]; nothing has changed then.
    pub(crate) fn run(&self) -> Result<Successor, UpgradeError> {
        let timeout = self.relay.config.upgrade.ready;
        let (link, theirs) = Link::pair().map_err(line("no sockets to speak to a new program"))?;
        let program = &self.program;
        let mut command = Command::new(program);
        command.args(std::env::args_os().skip(1)).stdin(theirs.into_socket()).env(VARIABLE, "stdin");
        // These speak of this process.
        ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"].iter().for_each(|name| {
            command.env_remove(name);
        });
        let named = |source| UpgradeError::Start { program: program.display().to_string(), source };
        let child = command.spawn().map_err(named)?;
        drop(command);
        tracing::info!(program = %program.display(), process = child.id(), "upgrade: the new program starts");
        let mut starting = Starting { link, child, until: Instant::now() + timeout };
        match self.give(&mut starting) {
            Ok((version, changes)) => {
                let Starting { link, child, .. } = starting;
                Ok(Successor::new(link, child, version, changes))
            }
            Err(error) => {
                starting.end();
                self.relay.caps.change_share(|share| share.after = 0);
                self.relay.ingest.take_back();
                Err(match error {
                    UpgradeError::Late(_) => UpgradeError::Late(timeout),
                    error => error,
                })
            }
        }
    }

    fn give(&self, starting: &mut Starting) -> Result<(String, OwnedRwLockWriteGuard<()>), UpgradeError> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        starting.tell(&Message::Hello { protocol: PROTOCOL, version })?;
        let version = match starting.next()? {
            Message::Hello { protocol: PROTOCOL, version } => version,
            Message::Hello { version, .. } => return Err(UpgradeError::Protocol { version }),
            _ => return Err(UpgradeError::Protocol { version: "unknown".to_owned() }),
        };
        self.give_descriptors(&starting.link).map_err(|error| starting.last_words(error))?;
        let changes = self.hold_changes(starting.until)?;
        self.relay.caps.change_share(|share| share.after = 1);
        let halved_at = Instant::now();
        let rested = self.relay.ingest.rest(self.relay.config.upgrade.ready / REST_PART);
        let loose = rested.ok_or(UpgradeError::Busy)?;
        loose.into_iter().flat_map(chunks).try_for_each(|message| starting.tell(&message))?;
        starting.tell(&Message::All)?;
        match starting.next()? {
            Message::Ready => {}
            _ => return Err(UpgradeError::Protocol { version }),
        }
        if self.relay.caps.has_shared_caps() {
            std::thread::sleep(ALL_TOGETHER.saturating_sub(halved_at.elapsed()));
        }
        // Said by the process that is still the main one, so that the manager believes it.
        self.notify.send(State::MainProcess(starting.child.id()));
        let halvings = self.relay.caps.halvings();
        starting.tell(&Message::Go { halvings }).inspect_err(|_| {
            self.notify.send(State::MainProcess(std::process::id()));
        })?;
        Ok((version, changes))
    }

    fn give_descriptors(&self, link: &Link) -> io::Result<()> {
        let Relay { store, config, peer_id, .. } = &*self.relay;
        let give = |role, descriptor| link.give(&Message::Descriptor { role }, descriptor);
        let kept = &self.kept;
        kept.http.iter().try_for_each(|socket| give(Role::Http, socket.as_fd()))?;
        kept.https.iter().try_for_each(|socket| give(Role::Https, socket.as_fd()))?;
        kept.bittorrent.iter().try_for_each(|socket| give(Role::BitTorrent, socket.as_fd()))?;
        give(Role::Udp, kept.udp.as_fd())?;
        kept.pages.iter().try_for_each(|socket| give(Role::Pages, socket.as_fd()))?;
        kept.metrics.iter().try_for_each(|socket| give(Role::Metrics, socket.as_fd()))?;
        give(Role::Admin, kept.admin.as_fd())?;
        give(Role::Lock, store.lock()?.as_fd())?;
        link.send(&Message::Store {
            folder: std::path::absolute(&config.store)?,
            owns_admin_file: kept.owns_admin_file,
            peer_id: HEXLOWER.encode(peer_id),
        })
    }

    /// Has changes over the admin socket refused from now on, after those under way have come to their end.
    fn hold_changes(&self, until: Instant) -> Result<OwnedRwLockWriteGuard<()>, UpgradeError> {
        loop {
            match Arc::clone(&self.relay.changes).try_write_owned() {
                Ok(held) => return Ok(held),
                Err(_) if Instant::now() > until => return Err(UpgradeError::Busy),
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
    }
}

impl Starting {
    fn tell(&mut self, message: &Message) -> Result<(), UpgradeError> {
        self.link.send(message).map_err(|error| self.last_words(error))
    }

    /// Why it does not listen any more: it may have said so.
    fn last_words(&mut self, source: io::Error) -> UpgradeError {
        match self.next() {
            Err(error) => error,
            Ok(_) => UpgradeError::Line { what: "the new program does not listen", source },
        }
    }

    /// What it says next.
    fn next(&mut self) -> Result<Message, UpgradeError> {
        let left = self.until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.link.set_patience(Some(left)).map_err(line("the line to the new program"))?;
        match self.link.receive() {
            Ok(Some((Message::Failed { why }, _))) => Err(UpgradeError::Failed(why)),
            Ok(Some((message, _))) => Ok(message),
            Ok(None) => {
                let status =
                    self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(UpgradeError::Ended(status))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(UpgradeError::Late(left)),
            Err(source) => Err(UpgradeError::Line { what: "the new program cannot be understood", source }),
        }
    }

    /// Ends it. It has done nothing that anybody noticed.
    fn end(mut self) {
        // It fails where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn chunks(loose: Loose) -> impl Iterator<Item = Message> {
    let Loose { id, visible, arrived } = loose;
    let chunks = |runs: Vec<std::ops::Range<u64>>| {
        runs.chunks(RUNS_MAX).map(<[_]>::to_vec).collect::<Vec<_>>().into_iter()
    };
    let visible = chunks(visible).map(move |visible| Loose { id, visible, arrived: Vec::new() });
    let arrived = chunks(arrived).map(move |arrived| Loose { id, visible: Vec::new(), arrived });
    visible.chain(arrived).map(Message::Content)
}

/// Where this program lies. To be asked early: what is replaced is somewhere else by then.
pub(crate) fn this_program() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_else(|_| "millrace-relay".into());
    match path.to_str().and_then(|path| path.strip_suffix(REPLACED)) {
        Some(path) => path.into(),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use millrace_proto::id::ContentId;

    use super::*;

    #[test]
    fn many_runs_are_several_messages() {
        let runs = |count: u64| (0..count).map(|at| at * 2..at * 2 + 1).collect::<Vec<_>>();
        let (visible, arrived) = (runs(2 * 1024 + 1), runs(3));
        let loose = Loose { id: ContentId([1; 16]), visible: visible.clone(), arrived: arrived.clone() };
        let told: Vec<_> = chunks(loose)
            .map(|message| match message {
                Message::Content(loose) => loose,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told.len(), 4);
        assert_eq!(told.iter().flat_map(|loose| loose.visible.clone()).collect::<Vec<_>>(), visible);
        assert_eq!(told.iter().flat_map(|loose| loose.arrived.clone()).collect::<Vec<_>>(), arrived);
    }
}
