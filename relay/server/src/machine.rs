//! What this machine grants the process: cores, descriptors, randomness.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use ring::rand::{SecureRandom, SystemRandom};

/// Descriptors kept for files, origins, sockets of administration and logs.
const DESCRIPTORS_RESERVED: u64 = 1024;

/// Files that a shard keeps open between sends: that many, whatever the limit of descriptors is ...
const FILES_MIN: usize = 16;
/// ... and no more, since those that lie idle are closed all at once, at a microsecond each.
const FILES_MAX: usize = 4096;

/// Cores that this process may use, in order.
#[must_use]
pub fn cores_allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return vec![0] };
    (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect()
}

/// Raises the soft limit of open descriptors to the hard one and tells it.
///
/// # Errors
/// The kernel's word; the limit is then as it was.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Connections each of `shards` may have, so that descriptors never run out: `wanted`, or less.
#[must_use]
pub fn connections_per_shard(wanted: u32, descriptors: u64, shards: usize) -> u32 {
    let shards = u64::try_from(shards).unwrap_or(u64::MAX).max(1);
    // Where the limit is tiny, half of it is for connections.
    let for_connections = descriptors.saturating_sub(DESCRIPTORS_RESERVED).max(descriptors / 2);
    u32::try_from(for_connections / shards).unwrap_or(u32::MAX).clamp(1, wanted)
}

/// Files that each of `shards` may keep open between sends, where each has `connections`: of the descriptors that are left over, the
/// half that ingest and everything else does not need, at two a file, since one that is read past the page cache is opened twice.
#[must_use]
pub fn files_per_shard(connections: u32, descriptors: u64, shards: usize) -> usize {
    let shards = u64::try_from(shards).unwrap_or(u64::MAX).max(1);
    let left = descriptors.saturating_sub(u64::from(connections).saturating_mul(shards));
    let files = left / 4 / shards;
    usize::try_from(files).map_or(FILES_MAX, |files| files.clamp(FILES_MIN, FILES_MAX))
}

/// `N` random bytes.
///
/// # Errors
/// The kernel gives none: nothing that needs secrets can start.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the kernel gives no random bytes"))?;
    Ok(bytes)
}

/// A BitTorrent peer id of this program and version, in Azureus style (BEP 20).
///
/// # Errors
/// As [`random`].
pub fn peer_id() -> io::Result<[u8; 20]> {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut id = *b"-MR0100-............";
    for (place, byte) in id[8..].iter_mut().zip(random::<12>()?) {
        *place = LETTERS[usize::from(byte % 32)];
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_everything_else() {
        assert_eq!(connections_per_shard(16_384, 1 << 20, 2), 16_384);
        assert_eq!(connections_per_shard(16_384, 20_000, 4), 4_744);
        assert_eq!(connections_per_shard(16_384, 1_024, 2), 256);
        assert_eq!(connections_per_shard(16_384, 0, 64), 1);
    }

    #[test]
    fn files_get_a_part_of_the_descriptors_that_connections_leave() {
        assert_eq!(files_per_shard(16_384, 1 << 20, 2), FILES_MAX);
        assert_eq!(files_per_shard(4_744, 20_000, 4), 64);
        assert_eq!(files_per_shard(16_384, 20_000, 1), 904);
        assert_eq!(files_per_shard(256, 1_024, 2), 64);
        assert_eq!(files_per_shard(16_384, 0, 64), FILES_MIN);
    }

    #[test]
    fn peer_ids_differ_behind_the_name_of_the_program() {
        let [a, b] = [peer_id().unwrap(), peer_id().unwrap()];
        assert!(a.starts_with(b"-MR0100-") && a != b && a[8..].is_ascii());
    }

    #[test]
    fn this_process_may_use_a_core() {
        assert!(!cores_allowed().is_empty());
    }
}
