//! `openssl speed`: what hand-written assembly makes of this processor's instructions for hashing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::load::runtime::pin_to;

/// Bytes per second of one core hashing buffers of `buffer_bytes` with `digest`, over about a second.
///
/// # Errors
/// It does not start, or reports nothing.
pub(crate) fn run(program: &Path, digest: &str, buffer_bytes: u32, cores: &[usize]) -> anyhow::Result<f64> {
    let mut command = Command::new(program);
    command.args(["speed", "-mr", "-seconds", "1", "-bytes", &buffer_bytes.to_string(), "-evp", digest]);
    let cores = cores.to_owned();
    let output = std::thread::spawn(move || {
        pin_to(&cores)?;
        command.output()
    });
    let output = output
        .join()
        .map_err(|_| anyhow::anyhow!("the thread that starts openssl panicked"))?
        .context("openssl")?;
    if !output.status.success() {
        bail!("openssl speed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    parse(&String::from_utf8_lossy(&output.stdout)).context("openssl speed reports no rate")
}

/// The rate of `+F:22:sha1:1590000000.00`: after the number and the name of what was measured, one rate for each length of buffer.
fn parse(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("+F:"))?;
    line.split(':').nth(2)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_last_field() {
        assert_eq!(parse("+H:16384\n+F:28:sha256:1234567.89\n"), Some(1_234_567.89));
        assert_eq!(parse("+R:1:sha256:1.0\n"), None);
    }
}
