//! The program end to end, against the relay as it is built beside it: every scenario runs, wrong bytes are found, missed floors are told by
//! the exit status, and Ctrl-C leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{perf, relay, text};

const PROMPT: Duration = Duration::from_secs(60);

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("millrace-perf-test-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// A child that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[track_caller]
fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(started.elapsed() < PROMPT, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Status of an answer to GET, and its body.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn every_scenario_runs() {
    let folder = Folder::new("scenarios");
    let scenarios: Vec<PathBuf> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let output = perf(&["run", "--tiny", "--json", "-", "--relay"])
        .arg(relay())
        .arg("--folder")
        .arg(&folder.0)
        .args(&scenarios)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let measurements = report["measurements"].as_array().unwrap();
    let pulls = report["pulls"].as_array().unwrap();
    assert!(measurements.len() + pulls.len() >= scenarios.len());
    let some = |key: &str| measurements.iter().any(|measurement| !measurement[key].is_null());
    for key in ["idle", "beside_cold", "caps", "resident_before"] {
        assert!(some(key), "no measurement has `{key}`");
    }
    assert!(pulls.iter().any(|pull| pull["aborting"] != 0), "no client went away");
    for pull in pulls {
        assert_eq!(pull["errors"], 0, "{pull}");
        assert_eq!(
            pull["first_byte"]["count"].as_u64(),
            Some((pull["clients"].as_u64().unwrap() - pull["aborting"].as_u64().unwrap()) * 2),
            "{pull}"
        );
        assert_eq!((&pull["origin_ratio"]["min"], &pull["origin_ratio"]["max"]), (&1.0.into(), &1.0.into()));
    }
    for measurement in measurements {
        let bytes = |key: &str| measurement[key].as_u64().unwrap();
        assert!(bytes("http_bytes") + bytes("bittorrent_bytes") > 0, "{measurement}");
        assert_eq!(measurement["errors"], 0, "{measurement}");
        assert!(measurement["server_cpu"]["seconds"].as_f64().unwrap() > 0.0, "{measurement}");
        assert_eq!(measurement["connections"], measurement["connections_served"], "{measurement}");
    }
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0, "something was left behind");
}

/// What is not installed is said, with what brings it.
#[test]
fn a_client_that_is_not_there_is_named_with_its_package() {
    let output = perf(&["compare", "--tiny", "--rows", "aria2", "--relay"])
        .arg(relay())
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("aria2c is not here"), "{}", text(&output));
    assert!(text(&output).contains("apt install aria2"), "{}", text(&output));
}

/// Rows of `compare` that are about us alone need no other program; what they miss is no failure of the test.
#[test]
fn rows_about_ourselves_are_compared() {
    let folder = Folder::new("compare");
    let rows = "P6,P7,P9,P10,P11,P12";
    let written = Folder::new("compare-written");
    let (page, picture) = (written.0.join("page.html"), written.0.join("picture.svg"));
    let output = perf(&["compare", "--tiny", "--rows", rows, "--json", "-", "--relay"])
        .arg(relay())
        .arg("--folder")
        .arg(&folder.0)
        .arg("--html")
        .arg(&page)
        .arg("--svg")
        .arg(&picture)
        .output()
        .unwrap();
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    let outcomes = report["outcomes"].as_array().unwrap();
    assert_eq!(report["failed"].as_array().unwrap().len(), 0, "{}", report["failed"]);
    let (page, picture) = (std::fs::read_to_string(page).unwrap(), std::fs::read_to_string(picture).unwrap());
    assert!(picture.starts_with("<svg") && picture.contains("P12 "), "{picture}");
    for row in rows.split(',') {
        assert!(page.contains(&format!("<h2>{row}: ")), "{row} is not on the page");
        let mut found = outcomes.iter().filter(|outcome| outcome["name"] == row).peekable();
        assert!(found.peek().is_some(), "no {row}");
        for outcome in found {
            let verdicts = outcome["verdicts"].as_array().unwrap();
            assert!(!verdicts.is_empty(), "{outcome}");
            for verdict in verdicts {
                // A new cap is judged over half a second, which is longer than a tiny run.
                let is_known = verdict["value"]["median"].is_number();
                assert!(is_known || verdict["quantity"] == "new cap in force", "{row}: {verdict}");
                let nobody = verdict["quantity"] != "connections that failed" || verdict["first_met"] == true;
                assert!(nobody, "{outcome}");
            }
        }
    }
    let left: Vec<_> = std::fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().path()).collect();
    let found = Command::new("find").args(&left).output().unwrap();
    assert!(left.is_empty(), "left behind: {}", text(&found));
}

#[test]
fn a_missed_floor_is_status_1_and_wrong_usage_is_2() {
    let tiny = ["http", "--duration", "200ms", "--warm-up", "0s", "--content-bytes", "1MiB", "--relay"];
    let run = |floor: &str| perf(&tiny).arg(relay()).args(["--floor", floor]).output().unwrap();
    let missed = run("throughput=1PB/s");
    assert_eq!(missed.status.code(), Some(1), "{}", text(&missed));
    assert!(text(&missed).contains("throughput=1PB/s was missed"), "{}", text(&missed));
    let kept = run("errors=0");
    assert_eq!(kept.status.code(), Some(0), "{}", text(&kept));
    assert_eq!(run("speed=1").status.code(), Some(2));
    for wrong in [
        &["http", "--scenario", "/nonexistent"][..],
        &["http", "--queue", "3"],
        &["http", "--io", "threads"],
        &["http", "--congestion", "nonexistent"],
        &["http", "--html", "/nonexistent/page.html"],
        &["http", "--sweep", "1,2", "--svg", "picture.svg"],
        &["compare", "--rows", "P99"],
        &["compare", "--against", "nobody"],
        &["compare", "--repeats", "0"],
        &["compare", "--relay", "/nonexistent"],
        &["compare", "--json", "/nonexistent/result.json"],
    ] {
        let output = perf(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", text(&output));
        assert_eq!(text(&output).lines().count(), 1, "{wrong:?}: {}", text(&output));
    }
}

/// A relay of another: it serves the test file, in which one byte is wrong.
#[test]
fn a_wrong_byte_is_found_over_either_protocol() {
    const LENGTH: &str = "3000000";
    let folder = Folder::new("wrong");
    let path = folder.0.join("file.bin");
    let written = perf(&["payload", "--seed", "5", "--content-bytes", LENGTH]).arg(&path).status().unwrap();
    assert!(written.success());
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (http, bittorrent, metrics) = (free(), free(), free());
    let serve = |name: &str| {
        let relay = Command::new(relay())
            .arg("serve")
            .arg(&path)
            .args(["--http", &http.to_string(), "--bt", &bittorrent.to_string()])
            .args(["--metrics", &metrics.to_string()])
            .args(["--public-url", &format!("http://{http}/"), "--store"])
            .arg(folder.0.join(name))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let relay = Running(relay);
        until("the torrent", || {
            get(http, "/index.json").filter(|index| index.contains("\"torrent_url\":\"")).map(drop)
        });
        relay
    };
    let (url, address, metrics) = (format!("http://{http}/"), bittorrent.to_string(), metrics.to_string());
    let run = |kind: &str| {
        let arguments = [
            kind,
            "--target",
            &url,
            "--target-bt",
            &address,
            "--target-metrics",
            &metrics,
            "--verify",
            "--seed",
            "5",
            "--connections",
            "3",
        ];
        perf(&arguments).args(["--duration", "500ms", "--warm-up", "0s"]).output().unwrap()
    };
    let relay = serve("right");
    for kind in ["http", "bt", "mixed"] {
        let output = run(kind);
        assert!(output.status.success(), "{kind}: {}", text(&output));
        // How the relay sent it, as it says itself.
        assert!(text(&output).contains("  sent by  "), "{kind}: {}", text(&output));
    }
    drop(relay);
    let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 2_345_678).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 2_345_678).unwrap();
    until("the ports to be free", || TcpListener::bind(http).and(TcpListener::bind(bittorrent)).ok());
    let _relay = serve("wrong");
    for kind in ["http", "bt"] {
        let output = run(kind);
        assert_eq!(output.status.code(), Some(1), "{kind}: {}", text(&output));
        assert!(
            text(&output).contains("the byte at 2345678 is not what it must be"),
            "{kind}: {}",
            text(&output)
        );
    }
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let folder = Folder::new("ctrl-c");
    let (mut child, socket) = measuring(&folder);
    signal("-INT", &child);
    let status = until("the end", || child.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
    assert!(
        !socket.exists() && std::fs::read_dir(&folder.0).unwrap().count() == 0,
        "something was left behind"
    );
}

/// Nor does a kill, though a moment later.
#[test]
fn a_kill_leaves_nothing_behind() {
    let folder = Folder::new("kill");
    let (mut child, _) = measuring(&folder);
    let relays = || {
        let of_ours = |entry: &std::fs::DirEntry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("\0serve\0") && line.contains(folder.0.to_str().unwrap())
        };
        std::fs::read_dir("/proc").unwrap().flatten().filter(of_ours).count()
    };
    assert_eq!(relays(), 1);
    signal("-KILL", &child);
    until("the end", || child.0.try_wait().unwrap());
    until("the relay's end", || (relays() == 0).then_some(()));
    until("an empty folder", || (std::fs::read_dir(&folder.0).unwrap().count() == 0).then_some(()));
}

fn signal(name: &str, to: &Running) {
    assert!(Command::new("kill").args([name, &to.0.id().to_string()]).status().unwrap().success());
}

/// A long measurement in a folder, whose relay runs, and the relay's admin socket.
fn measuring(folder: &Folder) -> (Running, PathBuf) {
    let child = perf(&["http", "--duration", "600s", "--content-bytes", "1MiB", "--folder"])
        .arg(&folder.0)
        .arg("--relay")
        .arg(relay())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(Running)
        .unwrap();
    let socket = until("the relay", || {
        let scratch = std::fs::read_dir(&folder.0).unwrap().next()?.unwrap().path();
        Some(scratch.join("admin.sock")).filter(|socket| UnixStream::connect(socket).is_ok())
    });
    (child, socket)
}
