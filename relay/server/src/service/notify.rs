//! The notification protocol of service managers (sd_notify(3)): lines of text in one datagram to the socket that `$NOTIFY_SOCKET` names.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_send::clock;

/// Where notifications go; nowhere where no manager asked for them.
#[derive(Debug)]
pub(crate) struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// Another process speaks to the manager now.
    over: AtomicBool,
}

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State<'a> {
    /// The relay serves, or serves again after a reload; with a line for people.
    Ready(&'a str),
    /// A reload has begun.
    Reloading,
    /// The relay drains.
    Stopping,
    /// Every shard has turned.
    Watchdog,
    /// A line for people.
    Status(&'a str),
    /// This process is the relay now, or again.
    MainProcess(u32),
}

impl Notify {
    /// The socket of `address`, the value of `$NOTIFY_SOCKET`: a path, or a name in the abstract namespace behind an `@`.
    ///
    /// # Errors
    /// The address is of another kind or too long, or there is no descriptor.
    pub(crate) fn to(address: &OsStr) -> io::Result<Self> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an @name")),
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not hold up who feeds its watchdog.
        socket.set_nonblocking(true)?;
        Ok(Notify { to: Some((socket, address)), over: AtomicBool::new(false) })
    }

    /// What the environment asks for. An address that cannot be used is logged, and nobody is notified.
    pub(crate) fn from_environment(variable: &dyn Fn(&str) -> Option<std::ffi::OsString>) -> Self {
        let Some(address) = variable("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Notify::nobody();
        };
        Notify::to(&address).unwrap_or_else(|error| {
            tracing::warn!(%error, ?address, "NOTIFY_SOCKET cannot be used: the service manager is told nothing");
            Notify::nobody()
        })
    }

    fn nobody() -> Self {
        Notify { to: None, over: AtomicBool::new(false) }
    }

    /// Whether somebody listens.
    pub(crate) fn is_wanted(&self) -> bool {
        self.to.is_some()
    }

    /// Says nothing from now on: another process is the relay.
    pub(crate) fn leave(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Sends one notification. A manager that is gone or does not read misses it, which is logged for those who look for it.
    pub(crate) fn send(&self, state: State<'_>) {
        let Some((socket, address)) = self.to.as_ref().filter(|_| !self.over.load(Ordering::Relaxed)) else {
            return;
        };
        let text = match state {
            State::Ready(status) => format!("READY=1\nSTATUS={}", one_line(status)),
            // Which reload the next READY=1 belongs to is told by the time (sd_notify(3), Type=notify-reload).
            State::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", clock::now().monotonic_ns / 1_000),
            State::Stopping => "STOPPING=1\nSTATUS=Draining: running answers finish".to_owned(),
            State::Watchdog => "WATCHDOG=1".to_owned(),
            State::Status(status) => format!("STATUS={}", one_line(status)),
            State::MainProcess(process) => format!("MAINPID={process}"),
        };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            tracing::debug!(%error, ?state, "the service manager was not told");
        }
    }
}

/// A line break would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What arrives at `listener` when everything that can be said is sent to `address`.
    #[track_caller]
    fn check(listener: &UnixDatagram, address: &str) {
        let notify = Notify::to(OsStr::new(address)).unwrap();
        let before = clock::now().monotonic_ns / 1_000;
        for state in [State::Ready("2\nshards"), State::Reloading, State::Watchdog, State::Status("a\nb")] {
            notify.send(state);
        }
        notify.send(State::Stopping);
        let mut bytes = [0; 256];
        let mut next = || {
            let count = listener.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        };
        assert_eq!(next(), "READY=1\nSTATUS=2 shards");
        let reloading = next();
        let at: u64 = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!((before..=clock::now().monotonic_ns / 1_000).contains(&at), "{reloading}");
        assert_eq!(next(), "WATCHDOG=1");
        assert_eq!(next(), "STATUS=a b");
        assert!(next().starts_with("STOPPING=1\n"));
    }

    #[test]
    fn a_path_and_an_abstract_name_are_notified() {
        let name = format!("millrace-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let _ = std::fs::remove_file(&path);
        check(&UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap());
        std::fs::remove_file(path).unwrap();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        check(&UnixDatagram::bind_addr(&address).unwrap(), &format!("@{name}"));
    }

    #[test]
    fn an_address_of_another_kind_is_refused_and_nobody_is_notified() {
        assert!(Notify::to(OsStr::new("vsock:2:1234")).is_err());
        assert!(Notify::to(OsStr::new(&format!("/{}", "a".repeat(200)))).is_err());
        let environment =
            |value: &'static str| Notify::from_environment(&move |_| Some(std::ffi::OsString::from(value)));
        assert!(!environment("vsock:2:1234").is_wanted() && !environment("").is_wanted());
        environment("").send(State::Watchdog);
    }

    #[test]
    fn a_manager_that_is_gone_is_no_failure() {
        Notify::to(OsStr::new("/nonexistent/notify")).unwrap().send(State::Watchdog);
    }
}
