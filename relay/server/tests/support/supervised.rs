//! The real program as a service manager runs it: a socket for notifications, a configuration file, sockets handed over.
#![allow(dead_code, reason = "each test program uses its own part of it")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Time that anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where descriptors lie while the shell has not yet moved them to 3 and on.
const PARKED: i32 = 100;

/// One child at a time is started: what is handed over is open on exec for that moment.
static STARTING: Mutex<()> = Mutex::new(());

/// A folder of one test with a configuration file, gone at its end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ms-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Writes the configuration: these lines behind what every test needs.
    pub(crate) fn configure(&self, lines: &str) {
        let store = self.path("store");
        let text = format!("store = \"{store}\"\nbt = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n{lines}\n");
        std::fs::write(self.path("relay.toml"), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The relay and what it says.
pub(crate) struct Supervised {
    pub(crate) child: Child,
    admin: String,
    notified: UnixDatagram,
    log: Arc<Mutex<String>>,
}

impl Supervised {
    /// Starts it with these variables and sockets, each with its name; does not wait.
    pub(crate) fn spawn(folder: &Folder, variables: &[(&str, &str)], sockets: &[(&str, OwnedFd)]) -> Self {
        let _alone = STARTING.lock().unwrap();
        let notify = folder.path("notify.sock");
        let _ = std::fs::remove_file(&notify);
        let notified = UnixDatagram::bind(&notify).unwrap();
        notified.set_read_timeout(Some(PATIENCE)).unwrap();
        // Not closed on exec, as F_DUPFD leaves them.
        let parked: Vec<_> = sockets
            .iter()
            .map(|(_, socket)| fcntl(socket.as_fd(), FcntlArg::F_DUPFD(PARKED)).unwrap())
            .collect();
        let mut script = String::new();
        for (target, parked) in (3..).zip(&parked) {
            script += &format!("exec {target}<&{parked} {parked}<&-; ");
        }
        script += "[ -z \"$LISTEN_FDS\" ] || export LISTEN_PID=$$; exec \"$@\"";
        let mut command = Command::new("bash");
        command.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_millrace-relay"), "serve", "--config"]);
        command.args([&folder.path("relay.toml"), "--admin", &folder.path("admin.sock"), "--cores", "0"]);
        for name in ["MILLRACE_ADMIN", "MILLRACE_LOG", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "LISTEN_FDS"] {
            command.env_remove(name);
        }
        command.env("NOTIFY_SOCKET", &notify).envs(variables.iter().copied());
        if !sockets.is_empty() {
            let names: Vec<_> = sockets.iter().map(|(name, _)| *name).collect();
            command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        for parked in parked {
            nix::unistd::close(parked).unwrap();
        }
        let log = Arc::new(Mutex::new(String::new()));
        let mut stderr = child.stderr.take().unwrap();
        std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = stderr.read(&mut bytes) {
                    log.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
                }
            }
        });
        Supervised { child, admin: folder.path("admin.sock"), notified, log }
    }

    /// Starts it and waits until it says that it is ready.
    pub(crate) fn start(folder: &Folder, variables: &[(&str, &str)], sockets: &[(&str, OwnedFd)]) -> Self {
        let mut relay = Supervised::spawn(folder, variables, sockets);
        relay.until("it is ready", |relay| {
            if let Some(status) = relay.child.try_wait().unwrap() {
                panic!("the relay ended: {status}\n{}", relay.log());
            }
            relay.notified.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            relay.next_notification().is_some_and(|said| said.starts_with("READY=1\n"))
        });
        relay.notified.set_read_timeout(Some(PATIENCE)).unwrap();
        relay
    }

    /// The next notification, if one comes within the time that reading may take.
    pub(crate) fn next_notification(&self) -> Option<String> {
        let mut bytes = [0; 1024];
        let count = self.notified.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
    }

    /// Waits for a notification that begins so; others before it are returned too, in order.
    #[track_caller]
    pub(crate) fn notification(&self, begin: &str) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            let Some(next) = self.next_notification() else { panic!("no {begin}: {said:?}\n{}", self.log()) };
            said.push(next);
            if said.last().is_some_and(|last| last.starts_with(begin)) {
                return said;
            }
        }
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let started = Instant::now();
        while !is_so(self) {
            assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The answer of the admin socket.
    pub(crate) fn admin(&self, path: &str) -> String {
        ask(UnixStream::connect(&self.admin).unwrap(), path)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    #[track_caller]
    pub(crate) fn exit_status(&mut self) -> Option<i32> {
        self.until("it ends", |relay| relay.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request on a connection, and its whole answer.
pub(crate) fn ask(mut stream: impl Read + Write, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The same on a new connection.
pub(crate) fn get(address: SocketAddr, path: &str) -> String {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(stream, path)
}
