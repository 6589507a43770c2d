//! Scenario files: the settings of a load in TOML, kept under version control and run again after each upgrade.

use std::path::Path;

use anyhow::{Context as _, bail};

use crate::settings::{Kind, Settings, Span};

/// Reads a file.
///
/// # Errors
/// What is wrong with it, by file, line and key.
pub(crate) fn read(path: &Path) -> anyhow::Result<Settings> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text).with_context(|| path.display().to_string())
}

/// Reads the text of one.
///
/// # Errors
/// What is wrong with it, by line and key.
pub(crate) fn parse(text: &str) -> anyhow::Result<Settings> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        anyhow::anyhow!("line {line}: {}", error.message().replace('\n', " "))
    })
}

/// Reads a file for a command: it must be for that one.
///
/// # Errors
/// As [`read`], and a file for another command.
pub(crate) fn read_for(path: &Path, kind: Kind) -> anyhow::Result<Settings> {
    let settings = read(path)?;
    match settings.kind {
        Some(other) if other != kind => {
            bail!(
                "{}: kind is {}, so run it by `millrace-perf {}`",
                path.display(),
                other.name(),
                other.name()
            )
        }
        _ => Ok(settings),
    }
}

/// The same scenario as a matter of a second: whether it runs at all.
#[must_use]
pub(crate) fn tiny(settings: Settings) -> Settings {
    use std::time::Duration;

    use millrace_proto::units::Size;
    let size = |bytes: Option<Size>, most: u64| Some(Size(bytes.map_or(most, |Size(bytes)| bytes.min(most))));
    let size_if = |bytes: Option<Size>, most: u64| bytes.map(|Size(bytes)| Size(bytes.min(most)));
    Settings {
        content_bytes: size(settings.content_bytes, 8 << 20),
        range_bytes: size(settings.range_bytes, 1 << 20),
        sweep: settings.sweep.iter().take(2).map(|connections| *connections.min(&8)).collect(),
        connections: Some(settings.connections.unwrap_or(8).min(8)),
        rate: settings.rate.map(|rate| rate.min(200.0)),
        idle: settings.idle.map(|idle| idle.min(50)),
        aborting: settings.aborting.map(|aborting| aborting.min(4)),
        beside_cold: size_if(settings.beside_cold, 64 << 20),
        contents: settings.contents.map(|contents| contents.min(100)),
        asked: settings.asked.map(|asked| asked.min(10)),
        origin_rate: None,
        rounds: Some(settings.rounds.unwrap_or(2).min(2)),
        // A course of caps has several steps, each of which is judged.
        duration: Some(Span(Duration::from_millis(if settings.kind == Some(Kind::Caps) {
            4_000
        } else {
            300
        }))),
        warm_up: Some(Span(Duration::from_millis(100))),
        // A hole is not the test file, and many contents are none of it.
        verify: Some(settings.target.is_none() && settings.sparse.is_none() && settings.contents.is_none()),
        // How fast a tiny run is says nothing.
        floor: Vec::new(),
        ..settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_line() {
        for (text, parts) in [
            ("kind = \"http\"\nconections = 3\n", ["line 2", "conections"]),
            ("kind = \"ftp\"\n", ["line 1", "ftp"]),
            ("\nduration = \"soon\"\n", ["line 2", "300ms"]),
            ("\n\nrange-bytes = \"big\"\n", ["line 3", "512KiB"]),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let file = parse("kind = \"http\"\nconnections = 5\nseed = 9\nfloor = [\"errors=0\"]\n").unwrap();
        let flags = Settings { connections: Some(7), ..Settings::default() };
        let both = flags.over(file);
        assert_eq!((both.connections, both.seed, both.kind), (Some(7), Some(9), Some(Kind::Http)));
        assert_eq!(both.floor, ["errors=0"]);
    }

    #[test]
    fn every_scenario_of_the_repository_reads_and_says_what_it_shows() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let settings = read(&entry.unwrap().path()).unwrap();
            assert!(settings.kind.is_some() && settings.about.is_some());
            assert!(crate::plan::Plan::check_all(settings.kind.unwrap(), &settings, &[0, 1]).is_ok());
            count += 1;
        }
        assert!(count > 0);
    }
}
