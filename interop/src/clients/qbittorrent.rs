//! qBittorrent without a window, asked by its web interface on loopback.

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
    let progress = move || {
        // Its requests must name the host that it listens on, so this is written out.
        let answer = http::get(control, "/api/v2/torrents/info", &[&host, "Connection: close"]).ok()?;
        let list: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        list.get(0)?.get("progress")?.as_f64()
    };
    until("qbittorrent-nox to take the job", PROMPT, &progress);
    let done = move || progress().is_some_and(|progress| progress >= 1.0);
    Leecher { name: "qBittorrent", process, done: Some(Box::new(done)), folder: folder.to_owned() }
}
