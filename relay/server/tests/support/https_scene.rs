//! The real program with HTTPS, and what a test asks of it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "each test program uses its own part of it")]

use std::net::TcpStream;

use nix::sys::signal::Signal;

use crate::https::Pair;
use crate::origin;
use crate::supervised::{Folder, PATIENCE, Supervised};

/// A relay that serves HTTPS by `pair`.
pub(crate) struct Scene {
    pub(crate) relay: Supervised,
    pub(crate) folder: Folder,
    pub(crate) port: u16,
}

impl Scene {
    /// With these lines in its configuration. What `sources` names lies in the folder, or is a URL.
    pub(crate) fn start(name: &str, pair: &Pair, lines: &str) -> Scene {
        let folder = Folder::new(&format!("https-{name}"));
        Scene::start_in(folder, pair, lines)
    }

    pub(crate) fn start_in(folder: Folder, pair: &Pair, lines: &str) -> Scene {
        write(&folder, pair);
        configure(&folder, lines);
        let mut relay = Supervised::start(&folder, &[], &[]);
        let mut port = None;
        relay.until("it says where it serves", |relay| {
            let log = relay.log();
            let place = log.split("https=127.0.0.1:").nth(1);
            port = place.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            port.is_some()
        });
        Scene { relay, folder, port: port.unwrap() }
    }

    pub(crate) fn plain(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The only content, once it is there.
    fn content(&mut self) -> serde_json::Value {
        let mut content = serde_json::Value::Null;
        self.relay.until("the content is there", |relay| {
            let answer = relay.admin("/v1/contents");
            let body = answer.split_once("\r\n\r\n").unwrap().1;
            let contents: serde_json::Value = serde_json::from_str(body).unwrap();
            content = contents["contents"][0].clone();
            !content.is_null()
        });
        content
    }

    pub(crate) fn path(&mut self) -> String {
        let content = self.content();
        format!("/c/{}/{}", content["id"].as_str().unwrap(), content["name"].as_str().unwrap())
    }

    pub(crate) fn metric(&self, name: &str) -> u64 {
        let answer = self.relay.admin("/metrics");
        let line = answer.lines().find_map(|line| line.strip_prefix(name));
        let value: f64 = line.unwrap_or_else(|| panic!("no {name}")).trim().parse().unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = value as u64;
        count
    }

    pub(crate) fn until_metric(&mut self, name: &str, is_so: impl Fn(u64) -> bool) {
        let metric = format!("millrace_{name}");
        self.relay.until(name, |relay| {
            let answer = relay.admin("/metrics");
            let line = answer.lines().find_map(|line| line.strip_prefix(&metric));
            line.and_then(|line| line.trim().parse::<f64>().ok()).is_some_and(|value| {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
                let count = value as u64;
                is_so(count)
            })
        });
    }

    pub(crate) fn reload(&self) -> String {
        self.relay.signal(Signal::SIGHUP);
        self.relay.notification("RELOADING=1\n");
        self.relay.notification("READY=1\n").pop().unwrap()
    }
}

pub(crate) fn write(folder: &Folder, pair: &Pair) {
    std::fs::write(folder.path("relay.crt"), &pair.certificate).unwrap();
    std::fs::write(folder.path("relay.key"), &pair.key).unwrap();
}

pub(crate) fn configure(folder: &Folder, lines: &str) {
    let (certificate, key) = (folder.path("relay.crt"), folder.path("relay.key"));
    folder.configure(&format!(
        "http = \"127.0.0.1:0\"\nhttps = \"127.0.0.1:0\"\ntls-certificate = \"{certificate}\"\ntls-key = \"{key}\"\n{lines}"
    ));
}

/// The bytes of a file, and a folder that has it as `name`.
pub(crate) fn file(folder: &Folder, name: &str, length: u64) -> Vec<u8> {
    let bytes = origin::bytes(7, 0..length);
    std::fs::write(folder.path(name), &bytes).unwrap();
    bytes
}
