//! Rows about hashing: the hashers that verify what arrives, against `openssl speed`.

use std::time::{Duration, Instant};

use anyhow::bail;
use millrace_proto::merkle::PieceHasher;

use super::contest::Contest;
use super::outcome::{Comparison, Outcome};
use super::row::{Ask, Digest, Row, Who};
use super::side::Side;
use crate::load::runtime::pin_to;
use crate::peers::{self, openssl};
use crate::report::{Cost, Measurement};

/// Bytes hashed at a time: a block of BitTorrent, which stays in the first-level cache.
const BUFFER_BYTES: u32 = 16 * 1024;

/// Blocks of a piece.
const PIECE_BLOCKS: usize = 64;

/// Time of one run: what `openssl speed` is told as well.
const DURATION: Duration = Duration::from_secs(1);

impl Contest<'_> {
    /// Hashes in turn with the peer.
    pub(super) fn hashing_row(&self, row: &Row, comparison: &mut Comparison) -> anyhow::Result<Outcome> {
        let mut sides = Vec::new();
        let entries = || row.entries.iter().filter(|entry| self.args.is_against(entry.who));
        for entry in entries() {
            let Ask::Hash(digest) = entry.ask else { bail!("{}: only hashing is compared here", row.name) };
            let (name, version) = match entry.who {
                Who::Openssl => ("openssl speed", peers::version_of("openssl", "version")),
                _ => ("millrace", env!("CARGO_PKG_VERSION").to_owned()),
            };
            sides.push((digest, Side::new(entry.who, name, &version, entry.ask.to_string(), &self.cores)));
        }
        for _ in 0..self.args.repeats {
            for (entry, (digest, side)) in entries().zip(&mut sides) {
                self.interrupt.check()?;
                match self.hash_once(entry.who, *digest) {
                    Ok(bytes_per_second) => side.runs.push(measurement(bytes_per_second)),
                    Err(error) => comparison.note(format!("{}: not compared: {error:#}", row.name)),
                }
            }
        }
        Ok(Outcome::judge(row, sides.into_iter().map(|(_, side)| side).collect()))
    }

    fn hash_once(&self, who: Who, digest: Digest) -> anyhow::Result<f64> {
        if who != Who::Openssl {
            return hash(digest, &self.cores.server);
        }
        let program = peers::find("openssl", "apt install openssl");
        let program = program.map_err(|absent| anyhow::anyhow!("{}: {}", absent.name, absent.remedy))?;
        let name = match digest {
            Digest::Sha1 => "sha1",
            Digest::Sha256 => "sha256",
        };
        openssl::run(&program, name, BUFFER_BYTES, &self.cores.server)
    }
}

/// A run on one core that did nothing else.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is positive, and exact enough in bytes"
)]
fn measurement(bytes_per_second: f64) -> Measurement {
    let bytes = bytes_per_second as u64;
    let server_cpu = Some(Cost::of(DURATION, bytes));
    Measurement { seconds: DURATION.as_secs_f64(), http_bytes: bytes, server_cpu, ..Measurement::default() }
}

/// Bytes per second of CPU time of one core, in whole pieces.
fn hash(digest: Digest, cores: &[usize]) -> anyhow::Result<f64> {
    let cores = cores.to_owned();
    let hashing = std::thread::spawn(move || {
        pin_to(&cores)?;
        let buffer = vec![0x5a; usize::try_from(BUFFER_BYTES)?];
        let (began, cpu) = (Instant::now(), thread_time()?);
        let mut blocks = 0u32;
        while began.elapsed() < DURATION {
            let mut hasher = PieceHasher::new(digest == Digest::Sha1, digest == Digest::Sha256);
            for _ in 0..PIECE_BLOCKS {
                hasher.update(std::hint::black_box(&buffer));
                blocks += 1;
            }
            std::hint::black_box(hasher.finish(PIECE_BLOCKS));
        }
        let seconds = (thread_time()? - cpu).as_secs_f64();
        anyhow::Ok(f64::from(blocks) * f64::from(BUFFER_BYTES) / seconds)
    });
    hashing.join().map_err(|_| anyhow::anyhow!("the thread that hashes panicked"))?
}

/// CPU time of this thread. `openssl speed` counts its own as well, so other work on the core troubles neither.
fn thread_time() -> anyhow::Result<Duration> {
    Ok(Duration::from(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID.now()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashing_has_a_rate() {
        let cores = crate::cores::allowed().unwrap();
        assert!(hash(Digest::Sha1, &cores).unwrap() > 1e6);
        assert!((measurement(2e9).throughput() - 2e9).abs() < 1.0);
    }
}
