//! Small file systems of a test's own, to be filled, frozen or broken. Making one needs root, of the machine or of a namespace.
#![allow(dead_code, reason = "each test program uses its own part of it")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system and its folder; gone when dropped.
pub(crate) struct SmallDisk(pub(crate) PathBuf);

impl SmallDisk {
    /// One in memory, of this size, below `folder`; `None` where that is not allowed.
    pub(crate) fn with_tmpfs(folder: &Path, size: &str) -> Option<SmallDisk> {
        Self::mount(folder, &["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
    }

    /// One of 64 MB in a file below `folder`, which can be frozen; `None` where that is not allowed.
    pub(crate) fn with_ext4(folder: &Path) -> Option<SmallDisk> {
        let image = folder.join("image");
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let image = image.to_str().unwrap();
        if !succeeds("mkfs.ext4", &["-q", "-F", image]) {
            return None;
        }
        Self::mount(folder, &["-o", "loop", image])
    }

    fn mount(folder: &Path, what: &[&str]) -> Option<SmallDisk> {
        let path = folder.join("disk");
        std::fs::create_dir_all(&path).unwrap();
        succeeds("mount", &[what, &[path.to_str().unwrap()]].concat()).then_some(SmallDisk(path))
    }

    /// Makes every write to it wait until what this returns is dropped.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        assert!(succeeds("fsfreeze", &["--freeze", self.0.to_str().unwrap()]));
        Frozen(self)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        succeeds("umount", &["--lazy", self.0.to_str().unwrap()]);
    }
}

/// An ext4 of 256 MB on a device that breaks when told to; gone when dropped.
pub(crate) struct BrokenDisk {
    disk: SmallDisk,
    image: PathBuf,
}

impl BrokenDisk {
    /// One that works for now, below `folder`; `None` where that is not allowed.
    pub(crate) fn new(folder: &Path) -> Option<BrokenDisk> {
        let image = folder.join("image");
        std::fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        let path = image.to_str().unwrap();
        // A journal would be lost as well, and the whole file system with it.
        if !succeeds("mkfs.ext4", &["-q", "-F", "-O", "^has_journal", path]) {
            return None;
        }
        let disk = SmallDisk::mount(folder, &["-o", "loop,errors=continue", path])?;
        Some(BrokenDisk { disk, image })
    }

    /// Its root folder.
    pub(crate) fn path(&self) -> &Path {
        &self.disk.0
    }

    /// From here on its device ends after the first MB: everything behind can be neither read nor written (EIO).
    pub(crate) fn break_off(&self) {
        std::fs::OpenOptions::new().write(true).open(&self.image).unwrap().set_len(1 << 20).unwrap();
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let mounted = |line: &&str| line.split(' ').nth(1) == self.disk.0.to_str();
        let device = mounts.lines().find(mounted).unwrap().split(' ').next().unwrap();
        assert!(succeeds("losetup", &["--set-capacity", device]));
    }
}

/// See [`SmallDisk::freeze`].
pub(crate) struct Frozen<'a>(&'a SmallDisk);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        succeeds("fsfreeze", &["--unfreeze", self.0.0.to_str().unwrap()]);
    }
}

/// Runs one test of this program again in a user namespace of its own (user_namespaces(7)), where it may mount. False where there are
/// none to be had, or it runs in one already.
///
/// # Panics
/// The test fails there.
pub(crate) fn again_where_mounting_is_allowed(test: &str) -> bool {
    const INSIDE: &str = "MILLRACE_INSIDE_NAMESPACE";
    let namespace = ["--user", "--map-root-user", "--mount"];
    if std::env::var_os(INSIDE).is_some() || !succeeds("unshare", &[&namespace[..], &["true"]].concat()) {
        return false;
    }
    let mut again = Command::new("unshare");
    again.args(namespace).arg(std::env::current_exe().unwrap()).args(["--exact", test]).env(INSIDE, "1");
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    true
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}
