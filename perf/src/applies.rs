//! Which settings a command heeds. One that it does not is refused: whoever gives it expects it to matter.

use anyhow::bail;

use crate::settings::{Kind, Settings};

impl Settings {
    /// Checks that nothing is set that means nothing to `kind`.
    ///
    /// # Errors
    /// The first flag that does.
    pub(crate) fn check_for(&self, kind: Kind) -> anyhow::Result<()> {
        use Kind::{Bt, Caps, Cold, Faststart, Http, Mixed, Soak};
        let ranges = &[Http, Mixed, Cold, Caps, Soak][..];
        let blocks = &[Bt, Mixed, Caps, Soak][..];
        let windows = &[Http, Bt, Mixed, Cold, Caps, Soak][..];
        let steady = &[Http, Bt, Mixed][..];
        let faststart = &[Faststart][..];
        for (flag, is_given, kinds) in [
            ("--range-bytes", self.range_bytes.is_some(), ranges),
            ("--rate", self.rate.is_some(), &[Http, Mixed, Caps, Soak][..]),
            ("--order", self.order.is_some(), &[Http, Bt, Mixed, Caps, Soak][..]),
            ("--queue", self.queue.is_some(), blocks),
            ("--infohash", self.infohash.is_some(), blocks),
            ("--duration", self.duration.is_some(), windows),
            ("--warm-up", self.warm_up.is_some(), &[Http, Bt, Mixed, Caps, Soak][..]),
            ("--syscalls", self.syscalls.is_some(), &[Http, Bt, Mixed, Caps, Soak][..]),
            ("--idle", self.idle.is_some(), steady),
            ("--origin-rate", self.origin_rate.is_some(), faststart),
            ("--origin-delay", self.origin_delay.is_some(), faststart),
            ("--known-hashes", self.known_hashes.is_some(), faststart),
            ("--aborting", self.aborting.is_some(), faststart),
            ("--cap", self.cap.is_some(), &[Caps][..]),
            ("--cap-then", self.cap_then.is_some(), &[Caps][..]),
        ] {
            if is_given && !kinds.contains(&kind) {
                let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                bail!("{flag} is for {}, not for {}", names.join(", "), kind.name());
            }
        }
        let has_rounds =
            matches!(kind, Faststart | Cold) || self.idle.is_some() || self.beside_cold.is_some();
        if self.rounds.is_some() && !has_rounds {
            bail!("--rounds is for faststart, cold, and what is measured with --idle or --beside-cold");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_ignored_is_refused_by_name() {
        let queue = Settings { queue: Some(3), ..Settings::default() };
        assert!(queue.check_for(Kind::Bt).is_ok());
        let error = queue.check_for(Kind::Http).unwrap_err().to_string();
        assert_eq!(error, "--queue is for bt, mixed, caps, soak, not for http");
        let rounds = Settings { rounds: Some(3), ..Settings::default() };
        assert!(rounds.check_for(Kind::Http).is_err() && rounds.check_for(Kind::Cold).is_ok());
        assert!(Settings { idle: Some(1), ..rounds }.check_for(Kind::Http).is_ok());
    }
}
