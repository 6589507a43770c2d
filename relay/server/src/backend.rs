//! Which back end runs the shards and how ingest writes, decided before either starts, with the reason for people.

use millrace_engine::limits::Limits;
use millrace_proto::admin::Choice;
use millrace_ring::Reservation;
use millrace_ring::probe::Refusal;

use crate::config::{IngestIo, Io};
use crate::ingest::Way;

/// `uring` was asked for and is not to be had: why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoUring(pub(crate) String);

/// What the shards run on, and why. The rings are as many as there are shards, or none where they run over epoll.
///
/// # Errors
/// [`Io::Uring`], and a shard would have no ring.
pub(crate) fn choose(io: Io, shards: usize, limits: &Limits) -> Result<(Vec<Reservation>, Choice), NoUring> {
    if io == Io::Epoll {
        return Ok((Vec::new(), choice("epoll", "asked for with --io epoll")));
    }
    match (reserve_all(shards, limits), io) {
        (Ok((rings, reason)), _) => Ok((rings, choice("uring", reason))),
        (Err(reason), Io::Uring) => Err(NoUring(reason)),
        (Err(reason), _) => Ok((Vec::new(), choice("epoll", reason))),
    }
}

/// A ring for each shard, and what they are like; else what stands in the way, even if only of the last one.
pub(crate) fn reserve_all(shards: usize, limits: &Limits) -> Result<(Vec<Reservation>, String), String> {
    let probe = millrace_ring::probe();
    if !probe.is_usable() {
        return Err(probe.to_string());
    }
    let numbered = |number: usize| {
        let of_shard = move |refusal: Refusal| {
            format!("io_uring is not usable: shard {number} of {shards} gets no ring: {refusal}")
        };
        millrace_ring::reserve(limits).map_err(of_shard)
    };
    let rings = (1..=shards).map(numbered).collect::<Result<_, _>>()?;
    Ok((rings, probe.to_string()))
}

/// How ingest writes where nothing else is asked for.
pub(crate) fn default_ingest_io() -> (Way, Choice) {
    (Way::Pwrite, choice("pwrite", "takes less CPU than writes through io_uring (measured on ext4)"))
}

/// How ingest writes, and why. A ring is looked for only where one is asked for.
///
/// # Errors
/// [`IngestIo::Uring`], which cannot be had.
pub(crate) fn choose_ingest_io(io: IngestIo) -> Result<(Way, Choice), NoUring> {
    match io {
        IngestIo::Auto => Ok(default_ingest_io()),
        IngestIo::Pwrite => Ok((Way::Pwrite, choice("pwrite", "asked for with --ingest-io pwrite"))),
        IngestIo::Uring => {
            let probe = millrace_ring::probe();
            match probe.is_usable() {
                true => Ok((Way::Uring, choice("uring", "asked for with --ingest-io uring"))),
                false => Err(NoUring(probe.to_string())),
            }
        }
    }
}

fn choice(name: &str, reason: impl Into<String>) -> Choice {
    Choice { name: name.to_owned(), reason: reason.into() }
}
