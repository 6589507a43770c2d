//! Who may use the admin socket of the real program: the kernel keeps others out by the file's mode, and the relay by who they are.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says where")]

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Time that anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A user and a group that nobody here belongs to.
const STRANGER: u32 = 61_236;

/// A relay as a process of its own, in a folder that everybody may look into.
struct Relay {
    folder: PathBuf,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Relay {
    fn start() -> Relay {
        let folder = std::env::temp_dir().join(format!("mr-{}-access", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        // Where the program was built not everybody may look. By a process of its own, since a file that this one writes to may be
        // open in what other tests have just forked, and cannot be run then (ETXTBSY).
        let copied =
            Command::new("cp").arg(env!("CARGO_BIN_EXE_millrace-relay")).arg(folder.join("relay")).status();
        assert!(copied.unwrap().success());
        let mut child = Command::new(folder.join("relay"))
            .arg("serve")
            .arg("--store")
            .arg(folder.join("store"))
            .arg("--admin")
            .arg(folder.join("admin.sock"))
            .args(["--http", "127.0.0.1:0", "--bt", "127.0.0.1:0", "--metrics", "off", "--cores", "0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (mut stderr, written) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(bytes @ 1..) = stderr.read(&mut chunk) {
                written.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..bytes]));
            }
        });
        let mut relay = Relay { folder, child, log };
        relay.until("it answers", |relay| {
            assert!(relay.child.try_wait().unwrap().is_none(), "{}", relay.log.lock().unwrap());
            relay.status(&[]).status.success()
        });
        relay
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&mut Self) -> bool) {
        let started = Instant::now();
        while !is_so(self) {
            assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// `status`, as the user that these arguments of setpriv make.
    fn status(&self, user: &[String]) -> Output {
        let mut command = match user {
            [] => Command::new(self.folder.join("relay")),
            user => {
                let mut command = Command::new("setpriv");
                command.args(user).arg("--inh-caps=-all").arg(self.folder.join("relay"));
                command
            }
        };
        command.arg("status").arg("--admin").arg(self.socket()).output().unwrap()
    }

    #[track_caller]
    fn check(&self, user: &[String], status: i32, said: &[&str]) {
        let output = self.status(user);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{user:?}: {out}{err}");
        for part in said {
            assert!(err.contains(part), "{user:?}: `{err}` lacks `{part}`");
        }
        assert!(err.lines().count() <= 1, "{err}");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn user(group: u32, more: &[u32]) -> Vec<String> {
    let groups = match more {
        [] => "--clear-groups".to_owned(),
        more => format!("--groups={}", more.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
    };
    vec![format!("--reuid={STRANGER}"), format!("--regid={group}"), groups]
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn another_user_cannot_use_the_admin_socket() {
    let skipped = |why: &str| {
        let _ = writeln!(std::io::stderr(), "skipped: another user at the admin socket ({why})");
    };
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can be another user");
    }
    if Command::new("setpriv").arg("--version").output().is_err() {
        assert!(
            std::env::var_os("MILLRACE_REQUIRE_CLIENTS").is_none_or(|value| value != "1"),
            "setpriv is missing"
        );
        return skipped("apt install util-linux");
    }
    let mut relay = Relay::start();
    let socket = relay.socket();
    let file = std::fs::metadata(&socket).unwrap();
    let group = file.gid();
    assert_eq!(file.permissions().mode() & 0o777, 0o660);

    // The kernel keeps a stranger out, and lets the group in.
    relay.check(&user(STRANGER, &[]), 1, &["does not answer (Permission denied", "may you use its socket?"]);
    relay.check(&user(group, &[]), 0, &[]);
    relay.check(&user(STRANGER, &[group]), 0, &[]);
    assert!(!relay.log.lock().unwrap().contains("refused somebody"));

    // Where the mode says otherwise, the relay looks who it is.
    chmod(&socket, 0o666);
    relay.check(&user(STRANGER, &[]), 1, &["User 61236 may not administrate this relay", "socket's group"]);
    relay.check(&user(group, &[]), 0, &[]);
    relay.check(&user(STRANGER, &[4, group]), 0, &[]);
    relay.check(&[], 0, &[]);
    relay.until("it is logged", |relay| {
        let log = relay.log.lock().unwrap();
        log.contains("refused somebody at the admin socket") && log.contains("61236")
    });
}
