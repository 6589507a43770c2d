//! qBittorrent without a window, asked by its web interface on loopback.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use crate::http;
use crate::process::Process;
use crate::relay::free_address;
use crate::until;

use super::{Job, Leecher, PROMPT};

/// Whether there is qBittorrent.
#[must_use]
pub fn is_installed() -> bool {
    super::is_installed("qbittorrent-nox", &["--version"], "apt install qbittorrent-nox")
}

/// Downloads into `folder`.
///
/// # Panics
/// If its web interface does not list the job.
#[must_use]
pub fn start(job: &Job, folder: &Path) -> Leecher {
    let profile = folder.with_extension("qbittorrent");
    let settings = profile.join("qBittorrent/config");
    std::fs::create_dir_all(&settings).expect("a folder for its settings");
    let control = free_address();
    let text = format!(
        "[LegalNotice]\nAccepted=true\n\
         [BitTorrent]\nSession\\DHTEnabled=false\nSession\\LSDEnabled=false\nSession\\PeXEnabled=false\n\
         Session\\BTProtocol=TCP\nSession\\Port={}\nSession\\Preallocation=false\nSession\\QueueingSystemEnabled=false\n\
         Session\\DefaultSavePath={}\nSession\\MultiConnectionsPerIp=true\n\
         [Network]\nPortForwardingEnabled=false\n\
         [Preferences]\nWebUI\\Address=127.0.0.1\nWebUI\\Port={}\nWebUI\\LocalHostAuth=false\nWebUI\\UseUPnP=false\n\
         General\\ResolvePeerCountries=false\n",
        free_address().port(),
        folder.display(),
        control.port()
    );
    std::fs::write(settings.join("qBittorrent.conf"), text).expect("its settings");
    let mut command = Command::new("qbittorrent-nox");
    command.arg(format!("--profile={}", profile.display())).arg(format!("--save-path={}", folder.display()));
    command.args(["--skip-dialog=true", &job.as_argument()]).env("HOME", &profile);
    let process = Process::spawn(&mut command, profile.join("log"));
    let host = format!("Host: {control}");
    let look = move || {
        // Its requests must name the host that it listens on, so this is written out.
        let answer = http::get(control, "/api/v2/torrents/info", &[&host, "Connection: close"]).ok()?;
        let list: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        let job = list.get(0)?;
        Some((job.get("progress")?.as_f64()?, job.get("state")?.as_str()? == "error"))
    };
    until("qbittorrent-nox to take the job", PROMPT, &look);
    let done = move || {
        let Some((progress, failed)) = look() else { return false };
        if failed {
            // See `scripts/leech.py`: the libtorrent in it now and then gives a magnet link to a hybrid up.
            super::say("qBittorrent: the job failed; checked again");
            press(control, "recheck").and_then(|()| press(control, "resume")).ok();
        }
        progress >= 1.0 && !failed
    };
    Leecher { name: "qBittorrent", process, done: Some(Box::new(done)), folder: folder.to_owned() }
}

/// What a person does who presses a button for all jobs.
fn press(control: SocketAddr, button: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(control)?;
    write!(
        stream,
        "POST /api/v2/torrents/{button} HTTP/1.1\r\nHost: {control}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n\r\nhashes=all"
    )?;
    stream.read_to_end(&mut Vec::new()).map(|_| ())
}
