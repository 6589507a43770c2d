//! Whether the test file is in memory, and putting it there. Hosts take cached pages away behind one's back, so this is looked at before
//! every run.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::measure::disk;

/// Attempts before it is given up.
const ATTEMPTS: usize = 5;

/// Share of the file that has to be there: the host takes some pages while others are read in.
const RESIDENT_MIN: f64 = 0.998;

/// Reads `file` in and checks that it stays.
///
/// # Errors
/// It does not, as where memory is short.
pub(crate) fn heat(file: &Path) -> anyhow::Result<()> {
    let mut resident = 0.0;
    for _ in 0..ATTEMPTS {
        read(file)?;
        resident = disk::resident_share(file)
            .context("no fincore here: apt install util-linux-extra, or util-linux")?;
        if resident >= RESIDENT_MIN {
            return Ok(());
        }
    }
    bail!("only {:.1} % of {} stay in memory", resident * 100.0, file.display())
}

fn read(file: &Path) -> anyhow::Result<()> {
    let mut file = File::open(file)?;
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::scratch::Scratch;

    #[test]
    fn what_was_dropped_is_brought_in() {
        let scratch = Scratch::create(None).unwrap();
        let path = scratch.path().join("file");
        std::fs::write(&path, vec![1; 8 << 20]).unwrap();
        disk::drop_from_cache(&path).unwrap();
        if disk::resident_share(&path) == Some(1.0) {
            eprintln!("SKIPPED: temporary files lie in memory here, and are never cold");
            return;
        }
        heat(&path).unwrap();
        assert!(disk::resident_share(&path).unwrap() > 0.99);
    }
}
