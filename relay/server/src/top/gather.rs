//! Samples of a relay: three questions a second to its admin socket.

use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::{Instant, SystemTime};

use millrace_proto::admin::{ContentStatus, RelayStatus};
use reqwest::Method;
use serde::Serialize;
use serde_json::Value;

use crate::client::{Client, read};
use crate::run::Failure;

use super::{INTERVAL, Message};

/// Contents that are asked for besides those that move.
const RESTING: usize = 200;

/// How a relay is at one time.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sample {
    /// Seconds since 1970.
    pub(super) time: f64,
    /// The same by a clock that nobody sets.
    #[serde(skip)]
    pub(super) at: Instant,
    pub(super) status: RelayStatus,
    /// Those that move, and some that do not.
    pub(super) contents: Vec<ContentStatus>,
    /// What holds of both layers (`/v1/caps?layer=effective`).
    pub(super) caps: Value,
}

/// Asks.
pub(super) fn sample(client: &Client) -> Result<Sample, Failure> {
    let get = |path: &str| client.ask(Method::GET, path, None);
    let status: RelayStatus = read(get("/v1/status")?.body)?;
    let mut contents = client.contents_of("/v1/contents?active=true", 1)?;
    for content in client.contents_of(&format!("/v1/contents?limit={RESTING}"), 1)? {
        if contents.iter().all(|known| known.id != content.id) {
            contents.push(content);
        }
    }
    let caps = get("/v1/caps?layer=effective")?.body;
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    Ok(Sample { time, at: Instant::now(), status, contents, caps })
}

/// Asks once a second, until nobody wants to know any more. A relay that is away may come back.
pub(super) fn samples(socket: PathBuf, sender: &Sender<Message>) {
    let mut client = Err(String::new());
    loop {
        if client.is_err() {
            client = Client::at(socket.clone()).map_err(|failure| failure.to_string());
        }
        let sampled = match &client {
            Ok(client) => sample(client).map(Box::new).map_err(|failure| failure.to_string()),
            Err(error) => Err(error.clone()),
        };
        if sender.send(Message::Sample(sampled)).is_err() {
            return;
        }
        std::thread::sleep(INTERVAL);
    }
}
