//! `[access]`: which networks are answered, who may have what is added without a word, and where the keys of signed URLs are.

use std::path::PathBuf;

use millrace_proto::access::Access;
use millrace_proto::access::rules::Rules;

use super::check::{Lookup, Place, optional};
use super::file::{File, line_of};
use super::{ConfigError, Environment};

/// The credential that holds keys where the configuration names no file.
const CREDENTIAL: &str = "url-keys";

/// Who may have what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessConfig {
    /// Who may have what is added without a word.
    pub default: Access,
    /// The networks that are answered.
    pub rules: Rules,
    /// The keys of signed URLs; without a file there are none.
    pub keys: Option<PathBuf>,
}

pub(super) fn access(
    lookup: &Lookup<'_>,
    file: &File,
    environment: &Environment<'_>,
) -> Result<AccessConfig, ConfigError> {
    let named = &file.access;
    let default = optional(lookup.entry("access.default", &named.default), str::parse)?;
    let rules = named.rules.as_ref().map(|rules| {
        Rules::parse(rules.get_ref().iter().map(String::as_str)).map_err(|problem| {
            let line = line_of(lookup.text, rules.span().start);
            let place = Place::Key { path: lookup.path, line, key: "access.rules".to_owned() };
            ConfigError(format!("{place}: {problem}"))
        })
    });
    let keys = lookup.entry("access.keys", &named.keys).map(|found| PathBuf::from(found.text));
    Ok(AccessConfig {
        default: default.unwrap_or_default(),
        rules: rules.transpose()?.unwrap_or_default(),
        keys: keys.or_else(|| environment.credential(CREDENTIAL).filter(|path| path.exists())),
    })
}
