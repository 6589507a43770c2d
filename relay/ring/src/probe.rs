//! Whether this host lets us use io_uring, found out by using it: a ring is set up as a shard's is, and one message received.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode};

use crate::buffers::{Buffers, GROUP};
use crate::ring::{self, Mode, OPCODES, Ring, Size};

/// What was found out, for `doctor` and for choosing a back end.
#[derive(Debug)]
pub struct Probe {
    /// The ring that a shard gets, or why it cannot have one.
    pub verdict: Result<Found, Refusal>,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// Known bugs of this kernel that keep us from using something.
    pub gates: Vec<Gate>,
}

impl Probe {
    /// Whether a shard can run over io_uring.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.verdict.is_ok()
    }
}

impl fmt::Display for Probe {
    /// One sentence for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Ok(found) => write!(f, "io_uring is usable: {found}"),
            Err(refusal) => write!(f, "io_uring is not usable: {refusal}"),
        }
    }
}

/// The ring that a shard gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The set-up flags that were accepted.
    pub mode: Mode,
    /// Whether the ring is restricted to the opcodes the relay uses.
    pub restricted: bool,
    /// Whether the ring's descriptor is registered with its thread.
    pub registered: bool,
    /// Whether the kernel sends without a copy when it is asked to (`SEND_ZC`), and reports whether it did (Linux 6.2).
    pub zero_copy: bool,
    /// Names of the kernel's features (`IORING_FEAT_*`) that the relay uses or may use.
    pub features: Vec<&'static str>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "set-up flags {}; ring {}; descriptor {}; features {}",
            self.mode.flags(),
            if self.restricted { "restricted to its opcodes" } else { "not restricted" },
            if self.registered { "registered" } else { "not registered" },
            self.features.join(" "),
        )
    }
}

/// Why there is no io_uring here.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// ENOSYS.
    #[error("the kernel has no io_uring, or the container's seccomp profile hides it (ENOSYS)")]
    Missing,
    /// `kernel.io_uring_disabled` = 2, or 1 for an ordinary user.
    #[error(
        "switched off by the sysctl kernel.io_uring_disabled = {level} (0 allows it to everybody, 1 to members of kernel.io_uring_group)"
    )]
    Disabled {
        /// The sysctl's value.
        level: u8,
    },
    /// EPERM or EACCES without that sysctl.
    #[error(
        "forbidden by a seccomp profile or security module (EPERM): allow io_uring_setup, io_uring_enter and io_uring_register"
    )]
    Forbidden,
    /// ENOMEM.
    #[error(
        "no memory for the rings (ENOMEM): raise RLIMIT_MEMLOCK (LimitMEMLOCK= in the unit), {limit} now for all rings of this user together"
    )]
    Memory {
        /// The soft limit.
        limit: String,
    },
    /// A feature, an opcode or multishot receive is missing.
    #[error("the kernel is too old: no {missing} (Linux 6.0 or later is needed)")]
    TooOld {
        /// What is missing.
        missing: &'static str,
    },
    /// Anything else.
    #[error("set-up failed: {0}")]
    Failed(#[from] io::Error),
}

/// A known kernel bug, and what is not used because of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// What is not used.
    pub avoided: &'static str,
    /// First kernel with the bug.
    pub from: (u32, u32, u32),
    /// Last kernel with the bug.
    pub to: (u32, u32, u32),
}

/// Bugs that forbid something on some kernels. The back end uses neither bundles nor incremental buffers anywhere; the first row
/// tells an operator who compares kernels what could not be switched on.
const GATES: [Gate; 1] = [Gate {
    avoided: "bundled multishot receive (delivers out of order)",
    from: (6, 13, 11),
    to: (6, 14, 11),
}];

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gate { avoided, from, to } = self;
        write!(f, "{avoided}: kernels {}.{}.{} to {}.{}.{}", from.0, from.1, from.2, to.0, to.1, to.2)
    }
}

/// Tries io_uring out. Takes under a millisecond, leaves nothing behind.
#[must_use]
pub fn probe() -> Probe {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let gates = gates_of(version(&kernel));
    Probe { verdict: try_out(), kernel, gates }
}

fn gates_of(kernel: (u32, u32, u32)) -> Vec<Gate> {
    GATES.into_iter().filter(|gate| (gate.from..=gate.to).contains(&kernel)).collect()
}

/// The numbers of a release such as `6.14.3-rc1-cloud`; 0 for what is not there.
fn version(release: &str) -> (u32, u32, u32) {
    let mut numbers = release.split(['.', '-', '+']).map_while(|number| number.parse().ok());
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

fn try_out() -> Result<Found, Refusal> {
    let (mut uring, mode) = ring::open(Size { submissions: 8, completions: 64 }).map_err(explain)?;
    let features = features(&uring)?;
    require_opcodes(&uring)?;
    let mut ring = Ring::new(&mut uring);
    let mut buffers = Buffers::new(ring.submitter(), 8).map_err(|error| {
        if is_einval(&error) { Refusal::TooOld { missing: "provided buffer rings" } } else { explain(error) }
    })?;
    ring.enable().map_err(explain)?;
    receive_once(&mut ring, &mut buffers)?;
    buffers.retire(ring.submitter())?;
    let zero_copy = crate::zero_copy::is_known(&mut ring)?;
    let (restricted, registered) = (ring.is_restricted(), ring.is_registered());
    Ok(Found { mode, restricted, registered, zero_copy, features })
}

fn features(uring: &IoUring) -> Result<Vec<&'static str>, Refusal> {
    let params = uring.params();
    let needed = [
        ("NODROP", params.is_feature_nodrop()),
        ("FAST_POLL", params.is_feature_fast_poll()),
        ("EXT_ARG", params.is_feature_ext_arg()),
        ("CQE_SKIP", params.is_feature_skip_cqe_on_success()),
    ];
    if let Some((missing, _)) = needed.iter().find(|(_, there)| !there) {
        return Err(Refusal::TooOld { missing });
    }
    let optional = [
        ("RECVSEND_BUNDLE", params.is_feature_recvsend_bundle()),
        ("MIN_TIMEOUT", params.is_feature_min_timeout()),
    ];
    Ok(needed.into_iter().chain(optional).filter(|(_, there)| *there).map(|(name, _)| name).collect())
}

fn require_opcodes(uring: &IoUring) -> Result<(), Refusal> {
    let mut known = io_uring::Probe::new();
    uring.submitter().register_probe(&mut known).map_err(explain)?;
    match OPCODES.iter().find(|(code, _)| !known.is_supported(*code)) {
        Some((_, missing)) => Err(Refusal::TooOld { missing }),
        None => Ok(()),
    }
}

/// A kernel may know the opcode and not its multishot kind (before 6.0), which only using it shows.
fn receive_once(ring: &mut Ring<'_>, buffers: &mut Buffers) -> Result<(), Refusal> {
    const MESSAGE: &[u8] = b"millrace";
    const MISSING: Refusal = Refusal::TooOld { missing: "multishot receive" };
    let (ours, mut theirs) = UnixStream::pair()?;
    theirs.write_all(MESSAGE)?;
    // With the end of the stream the multishot request ends by itself, and nothing stays in flight.
    drop(theirs);
    // SAFETY: the request names no memory but the provided buffers, which outlive the ring: `Drop` leaks them while registered.
    unsafe { ring.push(opcode::RecvMulti::new(Fd(ours.as_raw_fd()), GROUP).build()) };
    let mut received = Vec::new();
    let mut reaped = Vec::new();
    for _ in 0..4 {
        ring.wait(Some(Duration::from_secs(1))).map_err(explain)?;
        ring.reap(&mut reaped);
        for completion in reaped.drain(..) {
            if let Some(filled) = buffers.take(&completion) {
                received.extend_from_slice(buffers.bytes(&filled));
                buffers.give_back(filled);
            }
            if !io_uring::cqueue::more(completion.flags()) {
                return if received == MESSAGE { Ok(()) } else { Err(MISSING) };
            }
        }
    }
    Err(MISSING)
}

fn is_einval(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

/// What an error of a set-up call means.
pub(crate) fn explain(error: io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Refusal::Missing,
        Some(libc::EPERM | libc::EACCES) => match disabled_level() {
            level @ 1.. => Refusal::Disabled { level },
            0 => Refusal::Forbidden,
        },
        Some(libc::ENOMEM) => Refusal::Memory { limit: memlock_limit() },
        Some(libc::EINVAL) => Refusal::TooOld { missing: "ring that starts disabled" },
        _ => Refusal::Failed(error),
    }
}

/// `kernel.io_uring_disabled`; kernels before 6.6 do not have it.
fn disabled_level() -> u8 {
    let level = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    level.trim().parse().unwrap_or(0)
}

fn memlock_limit() -> String {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    line.and_then(|line| line.split_whitespace().next())
        .map_or_else(|| "unknown".to_owned(), |soft| format!("{soft} bytes"))
}

/// Tries again while memory is what lacks: rings of tests beside this one count against the same limit, and end.
#[cfg(test)]
pub(crate) fn patiently<T>(make: impl Fn() -> Result<T, Refusal>) -> Result<T, Refusal> {
    let began = std::time::Instant::now();
    loop {
        match make() {
            Err(Refusal::Memory { .. }) if began.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            made => return made,
        }
    }
}

/// Whether a test that needs a ring can run. Says so when it cannot, and fails where `MILLRACE_REQUIRE_URING=1` asks for it.
///
/// # Panics
/// When io_uring is required and not available.
#[cfg(test)]
pub(crate) fn available_to_test(name: &str) -> bool {
    let Err(refusal) = patiently(|| probe().verdict) else { return true };
    assert!(
        std::env::var_os("MILLRACE_REQUIRE_URING").is_none_or(|value| value != "1"),
        "{name}: io_uring is required and not available: {refusal}"
    );
    // Past the test harness, which keeps what a passing test prints to itself.
    let _ = std::io::Write::write_fmt(
        &mut std::io::stderr(),
        format_args!("{name}: skipped: io_uring is not available: {refusal}\n"),
    );
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(release: &str, fires: bool) {
        assert_eq!(!gates_of(version(release)).is_empty(), fires, "{release}");
    }

    #[test]
    fn the_gate_for_bundles_fires_on_the_kernels_that_have_the_bug() {
        check("6.13.10", false);
        check("6.13.11", true);
        check("6.13.12-arch1-1", true);
        check("6.14", true);
        check("6.14.11+deb", true);
        check("6.14.12", false);
        check("6.18.44-fc", false);
        check("5.15.0-91-generic", false);
        check("", false);
    }

    #[test]
    fn refusals_are_told_apart() {
        let of = |code| explain(io::Error::from_raw_os_error(code));
        assert!(matches!(of(libc::ENOSYS), Refusal::Missing));
        assert!(matches!(of(libc::ENOMEM), Refusal::Memory { limit } if limit.ends_with("bytes")));
        assert!(matches!(of(libc::EMFILE), Refusal::Failed(_)));
        // Which of the two depends on the sysctl of the host the test runs on.
        assert!(matches!(of(libc::EPERM), Refusal::Forbidden | Refusal::Disabled { .. }));
    }

    #[test]
    fn probing_twice_gives_the_same_and_leaves_no_descriptor() {
        let open = || fs::read_dir("/proc/self/fd").unwrap().count();
        let first = probe();
        println!("{first}");
        let before = open();
        for _ in 0..20 {
            assert_eq!(probe().verdict.ok(), first.verdict.as_ref().ok().cloned());
        }
        // Other tests run beside this one and open some.
        assert!(open() < before + 20);
    }
}
