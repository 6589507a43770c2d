//! The real program, as an operator meets it: exit statuses, errors of one line that say what to do, signals.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says where")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// Time that a start or an end may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace-relay"));
    command
        .args(arguments)
        .env_remove("MILLRACE_ADMIN")
        .env_remove("STATE_DIRECTORY")
        .env_remove("RUNTIME_DIRECTORY");
    command
}

/// Runs to the end; the exit status and the last line of stderr are as expected.
#[track_caller]
fn check(arguments: &[&str], status: i32, said: &[&str]) -> Output {
    let output = program(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    for part in said {
        assert!(last.contains(part), "{arguments:?}: `{last}` lacks `{part}`");
    }
    output
}

/// A folder of one test, empty at its start, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mr-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A relay as a process of its own.
struct Relay {
    child: Child,
    http: u16,
}

/// The port that a relay was given, by its admin socket; none while it starts.
fn http_port(admin: &str) -> Option<u16> {
    let output = program(&["status", "--json", "--admin", admin]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let address: SocketAddr = status["relay"]["addresses"]["http"].as_str()?.parse().unwrap();
    Some(address.port())
}

impl Relay {
    fn start(folder: &Folder, arguments: &[&str]) -> Relay {
        Relay::start_by(program(&["serve"]), folder, arguments)
    }

    /// Starts it by a command that ends in `serve`.
    fn start_by(mut command: Command, folder: &Folder, arguments: &[&str]) -> Relay {
        let admin = folder.path("admin.sock");
        command.args(arguments).args(["--store", &folder.path("store"), "--admin", &admin]);
        command.args(["--http", "127.0.0.1:0", "--bt", "127.0.0.1:0", "--metrics", "off", "--cores", "0"]);
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut relay = Relay { child, http: 0 };
        relay.until("it answers", |relay| {
            if let Some(status) = relay.child.try_wait().unwrap() {
                let mut said = String::new();
                let _ = relay.child.stderr.take().unwrap().read_to_string(&mut said);
                panic!("the relay ended: {status}\n{said}");
            }
            if relay.http == 0 && Path::new(&admin).exists() {
                relay.http = http_port(&admin).unwrap_or(0);
            }
            relay.http != 0 && relay.get("/readyz").starts_with("HTTP/1.1 200")
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

    fn get(&self, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.http)) else { return String::new() };
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut answer = Vec::new();
        let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut answer));
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    fn exit_status(&mut self) -> Option<i32> {
        self.until("it ends", |relay| relay.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn wrong_usage_is_status_2_and_one_line() {
    check(&[], 2, &["name a command"]);
    check(&["serve", "--stroe", "x"], 2, &["--store"]);
    check(&["serve", "--http", "8080"], 2, &["--http", "127.0.0.1:8080"]);
    check(&["serve", "--egress", "fast"], 2, &["--egress", "2Gbit/s"]);
    check(&["serve", "--cores", "9999"], 2, &["--cores", "9999"]);
    check(&["serve", "--io", "magic"], 2, &["--io", "auto, uring or epoll"]);
    check(&["serve", "--ingest-io", "ring"], 2, &["--ingest-io", "auto, uring or pwrite"]);
    check(&["serve", "--io", "epoll", "--ingest-io", "uring"], 2, &["--ingest-io", "epoll opens no ring"]);
    check(&["remove", "nonsense"], 2, &["nonsense", "status"]);
    check(&["caps", "set", "egress.htp=5"], 2, &["egress.htp", "`http`"]);
    check(&["caps", "set", "egress.http=fast"], 2, &["egress.http", "2Gbit/s"]);
    check(&["caps", "show", "--layer", "mine"], 2, &["`mine`", "controller"]);
    check(&["caps", "set", "--egress", "5"], 2, &["'--egress' found; see --help"]);
    check(&["add", "x", "--sha256", "12"], 2, &["--sha256", "64 hexadecimal digits"]);
    check(&["top", "--twice"], 2, &["'--twice' found"]);
}

#[test]
fn the_configuration_file_is_named_with_its_line_and_key() {
    let folder = Folder::new("config");
    let file = folder.path("relay.toml");
    std::fs::write(&file, "http = \"127.0.0.1:0\"\n\ncapactiy = \"5GB\"\n").unwrap();
    check(&["serve", "--config", &file], 2, &[&format!("{file}:3"), "`capactiy`"]);
    check(&["serve", "--config", &folder.path("none.toml")], 2, &["none.toml", "--config"]);
    std::fs::write(&file, "capacity = \"5GB\"\n").unwrap();
    let output = check(&["serve", "--config", &file, "--check-config"], 0, &[]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.lines().any(|line| line == "capacity = 5000000000"), "{printed}");
    std::fs::write(&file, &printed).unwrap();
    let again = check(&["serve", "--config", &file, "--check-config"], 0, &[]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), printed, "what is printed is a configuration file");
}

#[test]
fn a_socket_path_that_is_too_long_is_refused_before_anything_starts() {
    let path = format!("/{}", "s".repeat(107));
    check(&["serve", "--admin", &path], 2, &["108 bytes", "107", "--admin"]);
    check(&["status", "--admin", &path], 2, &["108 bytes"]);
}

#[test]
fn an_occupied_port_and_an_unusable_store_are_status_1() {
    let folder = Folder::new("occupied");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let rest = ["--bt", "127.0.0.1:0", "--metrics", "off", "--cores", "0"];
    let with = |more: &[&str]| {
        [&["serve"][..], more, &rest[..]].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = |arguments: Vec<String>, said: &[&str]| {
        check(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), 1, said);
    };
    run(with(&["--store", &folder.path("store"), "--http", &address]), &[&address, "in use", "--http"]);
    let file = folder.path("file");
    std::fs::write(&file, "not a folder").unwrap();
    run(with(&["--store", &file, "--http", "127.0.0.1:0"]), &["--store"]);
    assert!(!Path::new(&folder.path("store/admin.sock")).exists());
}

#[test]
fn a_source_that_is_not_there_leaves_no_store_behind() {
    let folder = Folder::new("missing");
    let (store, missing) = (folder.path("store"), folder.path("missing.iso"));
    let rest = ["--http", "127.0.0.1:0", "--bt", "127.0.0.1:0", "--metrics", "off", "--cores", "0"];
    check(&[&["serve", &missing, "--store", &store], &rest[..]].concat(), 1, &[&missing, "No such file"]);
    assert!(!Path::new(&store).exists());
}

#[test]
fn commands_without_a_relay_say_where_they_looked() {
    let folder = Folder::new("alone");
    let admin = folder.path("admin.sock");
    check(&["status", "--admin", &admin], 1, &[&admin, "serve"]);
    check(&["verify", "--store", &folder.path("none")], 1, &["no store", "--store"]);
}

/// Starts a relay with these flags: how many rings it has open, and what `status` says of it. Memory for them is waited for: tests
/// beside this one have rings of the same user, and end.
fn rings(folder: &Folder, flags: &[&str]) -> (usize, String) {
    let started = Instant::now();
    loop {
        let relay = Relay::start(folder, flags);
        let open = std::fs::read_dir(format!("/proc/{}/fd", relay.child.id())).unwrap();
        let links = open.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        let rings = links.filter(|link| link.as_os_str() == "anon_inode:[io_uring]").count();
        let status = check(&["status", "--admin", &folder.path("admin.sock")], 0, &[]);
        let status = String::from_utf8(status.stdout).unwrap();
        if !status.contains("ENOMEM") || started.elapsed() > PATIENCE {
            return (rings, status);
        }
    }
}

/// A command that ends in `serve`, for a user who may lock memory for the probe of io_uring and not for a shard's ring. None, and a
/// line that says so, where this machine cannot do that. As root it is a user of its own, whom no other test takes memory from.
fn serve_with_little_memory(folder: &Folder) -> Option<Command> {
    const LIMIT: &str = "--memlock=81920:81920";
    const USER: u32 = 61_234;
    // Where the program was built not everybody may look. By a process of its own, since a file that this one writes to may be open
    // in what other tests have just forked, and cannot be run then (ETXTBSY).
    let copy = folder.path("millrace-relay");
    assert!(
        Command::new("cp").args([env!("CARGO_BIN_EXE_millrace-relay"), &copy]).status().unwrap().success()
    );
    let mut command = Command::new("prlimit");
    command.args([LIMIT, "--"]);
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&folder.0, Some(USER), Some(USER)).unwrap();
        let user = [format!("--reuid={USER}"), format!("--regid={USER}")];
        command.arg("setpriv").args(user).args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    }
    let found = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !found("prlimit") || !found("setpriv") {
        let _ = writeln!(std::io::stderr(), "skipped: little memory to lock (apt install util-linux)");
        return None;
    }
    command.args([&copy, "serve"]);
    Some(command)
}

#[test]
fn without_memory_for_the_rings_auto_goes_over_epoll_and_says_why() {
    let folder = Folder::new("memlock");
    let Some(command) = serve_with_little_memory(&folder) else { return };
    let relay = Relay::start_by(command, &folder, &[]);
    assert!(relay.get("/healthz").starts_with("HTTP/1.1 200"));
    let status = check(&["status", "--admin", &folder.path("admin.sock")], 0, &[]);
    let status = String::from_utf8(status.stdout).unwrap();
    // Where io_uring is forbidden, that is the reason.
    assert!(status.contains("over epoll because: io_uring is not usable"), "{status}");
    let can_have = check(&["doctor"], 0, &[]);
    if String::from_utf8_lossy(&can_have.stdout).contains("uring: set-up flags") {
        assert!(status.contains("RLIMIT_MEMLOCK") && status.contains("81920 bytes now"), "{status}");
    }
}

#[test]
fn without_memory_for_the_rings_a_ring_that_was_asked_for_is_an_error_of_one_line() {
    let folder = Folder::new("memlock-uring");
    let Some(mut command) = serve_with_little_memory(&folder) else { return };
    let folder = |name: &str| folder.path(name);
    command.args(["--io", "uring", "--store", &folder("store"), "--admin", &folder("admin.sock")]);
    command.args(["--http", "127.0.0.1:0", "--bt", "127.0.0.1:0", "--metrics", "off", "--cores", "0"]);
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let told = stderr.lines().last().unwrap_or_default();
    assert!(told.contains("--io uring was asked for, and io_uring is not usable"), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn ingest_has_a_ring_only_where_one_is_asked_for() {
    let folder = Folder::new("rings");
    let (epoll, status) = rings(&folder, &["--io", "epoll"]);
    assert_eq!(epoll, 0);
    assert!(status.contains("over epoll") && status.contains("written by pwrite"), "{status}");
    let doctor = check(&["doctor"], 0, &[]);
    if String::from_utf8_lossy(&doctor.stdout).contains("--ingest-io uring would not start here") {
        let refused = &["--ingest-io uring was asked for, and io_uring is not usable"];
        check(&["serve", "--store", &folder.path("store"), "--ingest-io", "uring"], 1, refused);
        let _ = writeln!(std::io::stderr(), "skipped: ingest through io_uring, which is forbidden here");
        return;
    }
    let (usual, status) = rings(&folder, &[]);
    assert!(status.contains("over uring") && status.contains("written by pwrite"), "{status}");
    let (more, status) = rings(&folder, &["--ingest-io", "uring"]);
    assert_eq!(more, usual + 1);
    assert!(status.contains("written by uring"), "{status}");
}

/// `/readyz` over the admin socket.
fn readiness(folder: &Folder) -> String {
    let mut stream = UnixStream::connect(folder.path("admin.sock")).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_stuck_shard_makes_the_relay_unready_until_it_turns_again() {
    let folder = Folder::new("stuck");
    let mut relay = Relay::start(&folder, &[]);
    assert!(readiness(&folder).starts_with("HTTP/1.1 200"));
    let threads = std::fs::read_dir(format!("/proc/{}/task", relay.child.id())).unwrap();
    let is_shard = |thread: &PathBuf| std::fs::read_to_string(thread.join("comm")).unwrap() == "shard-0\n";
    let shard = threads.map(|thread| thread.unwrap().path()).find(is_shard).unwrap();
    let shard = Pid::from_raw(shard.file_name().unwrap().to_str().unwrap().parse().unwrap());
    // One thread alone is stopped by who traces it.
    if let Err(error) = ptrace::seize(shard, ptrace::Options::empty()) {
        let _ =
            writeln!(std::io::stderr(), "skipped: a stuck shard (a thread cannot be traced here: {error})");
        return;
    }
    ptrace::interrupt(shard).unwrap();
    waitpid(shard, Some(WaitPidFlag::__WALL)).unwrap();
    relay.until("it is unready", |_| {
        let answer = readiness(&folder);
        answer.starts_with("HTTP/1.1 503") && answer.contains("shard 0 has not turned")
    });
    ptrace::detach(shard, None).unwrap();
    relay.until("it is ready again", |_| readiness(&folder).starts_with("HTTP/1.1 200"));
}

#[test]
fn help_shows_defaults() {
    let output = check(&["serve", "--help"], 0, &[]);
    let help = String::from_utf8(output.stdout).unwrap();
    for default in ["[::]:8080", "[::]:6881", "127.0.0.1:9185", "millrace-store", "unlimited", "auto", "text"]
    {
        assert!(help.contains(default), "{default}");
    }
}

#[test]
fn sigterm_drains_and_what_was_served_is_there_again_afterwards() {
    let folder = Folder::new("sigterm");
    let source = folder.path("seven.bin");
    std::fs::write(&source, vec![7; 100_000]).unwrap();
    let mut relay = Relay::start(&folder, &[&source]);
    relay.until("it is complete", |relay| relay.get("/index.json").contains("\"state\":\"complete\""));
    let before = relay.get("/index.json");
    let listed = check(&["status", "--admin", &folder.path("admin.sock")], 0, &[]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("seven.bin"));
    // The store is locked: the running relay verifies.
    let verified =
        check(&["verify", "--store", &folder.path("store"), "--admin", &folder.path("admin.sock")], 0, &[]);
    assert!(String::from_utf8_lossy(&verified.stdout).contains("0 damaged"));
    // So is the store of a relay that alone is named.
    let verified = check(&["verify", "--admin", &folder.path("admin.sock")], 0, &[]);
    assert!(String::from_utf8_lossy(&verified.stdout).contains("1 contents, 0 damaged"));
    // Who reads the answer may leave.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let left = program(&["status", "--admin", &folder.path("admin.sock")]).stdout(writer).status().unwrap();
    assert_eq!(left.code(), Some(0));
    check(
        &[
            "serve",
            "--store",
            &folder.path("store"),
            "--http",
            "127.0.0.1:0",
            "--bt",
            "127.0.0.1:0",
            "--metrics",
            "off",
        ],
        1,
        &["in use by another process"],
    );
    relay.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(relay.exit_status(), Some(0));
    assert!(!Path::new(&folder.path("admin.sock")).exists(), "the socket goes with the relay");

    let mut again = Relay::start(&folder, &[]);
    again.until("it is listed", |relay| relay.get("/index.json").contains("seven.bin"));
    let id = |index: &str| index.split("\"id\":\"").nth(1).map(|rest| rest[..26].to_owned());
    assert_eq!(id(&before), id(&again.get("/index.json")));
    // Over the admin socket it drains as well.
    check(&["drain", "--admin", &folder.path("admin.sock")], 0, &[]);
    assert_eq!(again.exit_status(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let folder = Folder::new("second");
    let source = folder.path("big.bin");
    std::fs::write(&source, vec![1; 64 << 20]).unwrap();
    let mut relay = Relay::start(&folder, &[&source]);
    relay.until("it is complete", |relay| relay.get("/index.json").contains("\"state\":\"complete\""));
    let index = relay.get("/index.json");
    let path = index.split("\"http_url\":\"http://").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let path = &path[path.find('/').unwrap()..];
    // A reader that takes its time holds the drain up.
    let mut slow = TcpStream::connect(("127.0.0.1", relay.http)).unwrap();
    slow.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut begin = [0; 1024];
    let bytes = slow.read(&mut begin).unwrap();
    assert!(begin.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&begin[..bytes]));
    relay.signal(nix::sys::signal::Signal::SIGTERM);
    relay.until("it drains", |relay| TcpStream::connect(("127.0.0.1", relay.http)).is_err());
    assert!(relay.child.try_wait().unwrap().is_none(), "the reader is still served");
    relay.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(relay.exit_status(), Some(1));
}

#[test]
fn damage_is_found_offline() {
    let folder = Folder::new("damage");
    let source = folder.path("file.bin");
    std::fs::write(&source, vec![3; 300_000]).unwrap();
    let mut relay = Relay::start(&folder, &[&source]);
    relay.until("it is complete", |relay| relay.get("/index.json").contains("\"state\":\"complete\""));
    relay.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(relay.exit_status(), Some(0));
    let mut entries = std::fs::read_dir(folder.path("store/contents")).unwrap().map(Result::unwrap);
    // Names with a dot are folders made in advance.
    let contents =
        entries.find(|entry| !entry.file_name().to_str().unwrap().starts_with('.')).unwrap().path();
    let stored = contents.join("data/file.bin");
    if !stored.exists() {
        // Served from where it is: nothing of it is stored.
        return;
    }
    let mut bytes = std::fs::read(&stored).unwrap();
    bytes[200_000] ^= 1;
    std::fs::write(&stored, bytes).unwrap();
    let output = program(&["verify", "--store", &folder.path("store"), "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["damaged"], 1);
    assert_eq!(report["contents"][0]["damaged_pieces"].as_array().unwrap().len(), 1);
}
