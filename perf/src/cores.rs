//! Which cores the server gets and which the load: written as `0-3,6`, and by default the first for the server and the others for the load.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use anyhow::{Context as _, bail};

/// Cores that this process may use.
///
/// # Errors
/// Those of the kernel.
pub(crate) fn allowed() -> anyhow::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("asking which cores may be used")?;
    Ok((0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

/// Reads a list such as `0-3,6`; each core once, in order.
///
/// # Errors
/// What is no list, and cores that are not `allowed`.
pub(crate) fn parse(text: &str, allowed: &[usize]) -> anyhow::Result<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let read = |number: &str| {
            number.trim().parse::<usize>().with_context(|| format!("`{text}`: write cores as 0-3,6"))
        };
        let (first, last) = (read(first)?, read(last)?);
        if last.saturating_sub(first) >= CpuSet::count() {
            bail!("`{text}`: write cores as 0-3,6");
        }
        for core in first..=last {
            if !allowed.contains(&core) {
                bail!("`{text}`: this process may not use core {core}, only {allowed:?}");
            }
            cores.push(core);
        }
    }
    cores.sort_unstable();
    cores.dedup();
    if cores.is_empty() {
        bail!("`{text}`: write cores as 0-3,6")
    }
    Ok(cores)
}

/// Cores of both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) server: Vec<usize>,
    pub(crate) load: Vec<usize>,
}

impl Split {
    /// What was asked for, and for what was not the rule above; `remote` means that no core is needed for a server.
    ///
    /// # Errors
    /// As [`parse`].
    pub(crate) fn choose(
        server: Option<&str>,
        load: Option<&str>,
        remote: bool,
        allowed: &[usize],
    ) -> anyhow::Result<Self> {
        let load = load.map(|text| parse(text, allowed)).transpose().context("--load-cores")?;
        let server = match server {
            Some(text) => parse(text, allowed).context("--server-core")?,
            None if remote => Vec::new(),
            None => {
                let free = |core: &&usize| load.as_ref().is_none_or(|load| !load.contains(core));
                allowed.iter().find(free).or(allowed.first()).copied().into_iter().collect()
            }
        };
        let load = load.unwrap_or_else(|| {
            let others: Vec<usize> = allowed.iter().copied().filter(|core| !server.contains(core)).collect();
            if others.is_empty() { allowed.to_owned() } else { others }
        });
        Ok(Split { server, load })
    }

    /// Whether the two sides take time from each other.
    pub(crate) fn overlap(&self) -> bool {
        self.server.iter().any(|core| self.load.contains(core))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(server: Option<&str>, load: Option<&str>, expected: (&[usize], &[usize])) {
        let split = Split::choose(server, load, false, &[0, 1, 2, 3]).unwrap();
        assert_eq!((split.server.as_slice(), split.load.as_slice()), expected);
    }

    #[test]
    fn what_is_not_said_is_chosen_so_that_both_have_their_own() {
        check(None, None, (&[0], &[1, 2, 3]));
        check(Some("1,2"), None, (&[1, 2], &[0, 3]));
        check(None, Some("0-1"), (&[2], &[0, 1]));
        check(Some("3"), Some("0"), (&[3], &[0]));
        check(None, Some("0-3"), (&[0], &[0, 1, 2, 3]));
        let one = Split::choose(None, None, false, &[5]).unwrap();
        assert_eq!((one.server.as_slice(), one.overlap()), (&[5][..], true));
        assert_eq!(Split::choose(None, None, true, &[5]).unwrap().load, [5]);
    }

    #[test]
    fn lists_that_cannot_be_kept_to_are_refused() {
        for text in ["", "a", "1-", "4", "0-9", "0-99999999999", "2-1"] {
            assert!(parse(text, &[0, 1, 2, 3]).is_err(), "{text}");
        }
        assert_eq!(parse("2,0-1,1", &[0, 1, 2, 3]).unwrap(), [0, 1, 2]);
    }
}
