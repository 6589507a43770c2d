//! A relay inside the test's own process: ports that the kernel chooses, a store that is gone afterwards.
#![allow(dead_code, reason = "each test program uses its own part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use millrace_relay::cli::ServeArgs;
use millrace_relay::config::{Config, Environment};
use millrace_relay::ingest::NewPull;
use millrace_relay::relay::Relay;
use millrace_relay::start::Running;
use serde_json::Value;

/// Time that anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The relay; it is drained when dropped.
pub(crate) struct TestRelay {
    running: Option<Running>,
    folder: PathBuf,
    configuration: String,
    /// Speaks HTTP/1.1 over the admin socket.
    admin: reqwest::Client,
    plain: reqwest::Client,
}

impl TestRelay {
    /// A relay with this configuration file besides what a test needs.
    pub(crate) fn start(configuration: &str) -> TestRelay {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("mr-{}-c{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        TestRelay::at(folder, configuration.to_owned())
    }

    /// Drains it, lets `meanwhile` change the store, and starts it again.
    pub(crate) fn restart(mut self, meanwhile: impl FnOnce(&Path)) -> TestRelay {
        if let Some(running) = self.running.take() {
            running.drain();
        }
        let (folder, configuration) =
            (std::mem::take(&mut self.folder), std::mem::take(&mut self.configuration));
        meanwhile(&folder.join("store"));
        TestRelay::at(folder, configuration)
    }

    /// A relay whose store, socket and files are in this folder, which is emptied at the end.
    pub(crate) fn at(folder: PathBuf, configuration: String) -> TestRelay {
        let local = || Some("127.0.0.1:0".to_owned());
        let args = ServeArgs {
            store: Some(folder.join("store")),
            admin: Some(folder.join("admin.sock")),
            http: local(),
            bt: local(),
            metrics: local(),
            ..ServeArgs::default()
        };
        let environment = Environment { variable: &|_| None, cores_allowed: vec![0], has_ipv6: false };
        let config =
            Config::check(&args, Some((Path::new("test.toml"), &configuration)), &environment).unwrap();
        let running = Running::start(config).unwrap();
        let admin = reqwest::Client::builder().unix_socket(folder.join("admin.sock")).build().unwrap();
        let plain = reqwest::Client::builder().no_proxy().build().unwrap();
        TestRelay { running: Some(running), folder, configuration, admin, plain }
    }

    /// Where its store, socket and files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn relay(&self) -> &Arc<Relay> {
        self.running.as_ref().unwrap().relay()
    }

    /// Adds a local file with these bytes and waits until its torrent is there. Its id.
    pub(crate) async fn add_file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        let pull = NewPull::from_operator(path.to_str().unwrap()).unwrap();
        let id = self.relay().ingest.add(pull).await.unwrap().id().to_string();
        self.until(&id, |status| status["state"] == "complete" && !status["magnet"].is_null()).await;
        id
    }

    /// Waits until a content's status is as wanted.
    pub(crate) async fn until(&self, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let (_, status) = self.admin("GET", &format!("/v1/contents/{id}"), None).await;
            if is_so(&status) {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "{status}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// One request to the admin socket: status and JSON (null where there is none).
    pub(crate) async fn admin(&self, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
        let (status, _, text) = self.admin_with(method, path, body, &[]).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub(crate) async fn admin_with(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
        fields: &[(&str, &str)],
    ) -> (u16, reqwest::header::HeaderMap, String) {
        let mut request = self.admin.request(method.parse().unwrap(), format!("http://relay{path}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = request.body(body.unwrap_or_default().to_owned()).send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, headers, response.text().await.unwrap())
    }

    /// One request to the HTTP port.
    pub(crate) async fn http(&self, path: &str) -> (u16, reqwest::header::HeaderMap, Vec<u8>) {
        let url = format!("http://{}{path}", self.relay().http);
        let response = self.plain.get(url).send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, headers, response.bytes().await.unwrap().to_vec())
    }

    pub(crate) async fn page(&self, path: &str) -> String {
        String::from_utf8(self.http(path).await.2).unwrap()
    }
}

impl Drop for TestRelay {
    fn drop(&mut self) {
        // One that was restarted has handed its folder on.
        if let Some(running) = self.running.take() {
            running.drain();
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
