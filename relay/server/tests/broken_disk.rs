//! Disks that lose what was written or cannot read it any more, by the kernel's own error paths: what is said of it, and that no
//! wrong byte is served. Making such a disk needs root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics, and says where")]

#[path = "support/disk.rs"]
mod disk;
#[path = "support/origin.rs"]
mod origin;
#[path = "support/relay.rs"]
mod relay;

use std::io::Write as _;
use std::path::PathBuf;

use disk::BrokenDisk;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use origin::{Behaviour, Origin};
use relay::TestRelay;
use serde_json::json;

const SEED: u64 = 31;

/// A folder of one test and a disk in it; gone at its end.
struct Scene {
    disk: BrokenDisk,
    /// Removed when the disk is gone from it.
    _folder: Folder,
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Scene {
    /// None, and a line that says so, where such a disk cannot be made.
    fn new(name: &str) -> Option<Scene> {
        let folder = Folder(std::env::temp_dir().join(format!("mr-{}-{name}", std::process::id())));
        std::fs::create_dir_all(&folder.0).unwrap();
        let Some(disk) = BrokenDisk::new(&folder.0) else {
            let _ = writeln!(std::io::stderr(), "skipped: {name} (a loop device and mounting it need root)");
            return None;
        };
        Some(Scene { disk, _folder: folder })
    }

    fn relay(&self) -> TestRelay {
        let folder = self.disk.path().join("relay");
        std::fs::create_dir_all(&folder).unwrap();
        TestRelay::at(folder, String::new())
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

#[test]
fn a_disk_that_loses_what_was_written_fails_the_pull_and_serves_nothing_of_it() {
    let Some(scene) = Scene::new("loses") else { return };
    let relay = scene.relay();
    let slow = Behaviour { rate: Some(2 << 20), ..Behaviour::default() };
    let origin = Origin::single(64 << 20, SEED, slow);
    run(async {
        let request = json!({"sources": [origin.file_url()]}).to_string();
        let id =
            relay.admin("POST", "/v1/contents", Some(&request)).await.1["id"].as_str().unwrap().to_owned();
        relay.until(&id, |status| status["have_bytes"].as_u64().unwrap() > 1 << 20).await;
        scene.disk.break_off();
        let status = relay.until(&id, |status| status["state"] == "failed").await;
        let error = status["error"].as_str().unwrap();
        assert!(error.contains("the disk did not keep what was written: Input/output error"), "{error}");
        let (code, _, body) = relay.http(&format!("/c/{id}/file.bin")).await;
        assert!(code >= 400, "{code} with {} bytes", body.len());
    });
}

#[test]
fn a_disk_that_cannot_be_read_cuts_the_answer_and_verify_names_the_damage() {
    let Some(scene) = Scene::new("unreadable") else { return };
    let relay = scene.relay();
    let bytes = origin::bytes(SEED, 0..16 << 20);
    let id = run(relay.add_file("file", &bytes));
    let relay = relay.restart(|_| {
        // Out of memory, where nobody has it mapped, so that the device is asked.
        let file = std::fs::File::open(scene.disk.path().join("relay/file")).unwrap();
        file.sync_all().unwrap();
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    });
    scene.disk.break_off();
    run(async {
        let url = format!("http://{}/c/{id}/file", relay.relay().http);
        let answer = reqwest::get(url).await;
        let body = match answer {
            Ok(answer) => answer.bytes().await,
            Err(error) => Err(error),
        };
        assert!(body.is_err(), "{} bytes as if all were well", body.unwrap().len());
        let (_, report) = relay.admin("POST", &format!("/v1/contents/{id}/verify"), None).await;
        assert!(report["damaged"].as_u64().unwrap() > 0, "{report}");
        let status = relay.admin("GET", &format!("/v1/contents/{id}"), None).await.1;
        assert!(status["error"].as_str().unwrap().contains("verify found damage"), "{status}");
    });
}
