//! Grants: the right to use an origin, in bytes and time.

use serde::{Deserialize, Serialize};

use super::CapsError;
use crate::units::Size;

/// Grants in one `origin`.
pub const GRANTS_MAX: usize = 256;

/// Longest id of a grant, in bytes.
const ID_BYTES_MAX: usize = 128;

/// The right to use an origin. An origin that is named by one is used as far as it allows, and no further; others need none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OriginGrant {
    /// Scheme, host, and port where it is not the usual one: `https://origin.example.org`.
    #[cfg_attr(feature = "openapi", schema(pattern = "^https?://[^/?#@A-Z]+$"))]
    pub origin: String,
    /// What it is called. A new grant has a new id: bytes are counted for each.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 128))]
    pub id: String,
    /// Bytes of bodies that may be taken; 0 is none at all.
    #[cfg_attr(feature = "openapi", schema(schema_with = super::schema::size_of_grant))]
    pub bytes: Size,
    /// From when on nothing more is asked for, in seconds since 1970; `null` is never.
    #[serde(default)]
    pub until: Option<u64>,
}

/// Checks the grants below `above`.
pub(super) fn check(above: &str, grants: &[OriginGrant]) -> Result<(), CapsError> {
    let path = format!("{above}origin.grants");
    let error = |path: String, reason: String| Err(CapsError { path, reason });
    if grants.len() > GRANTS_MAX {
        return error(path, format!("{} grants are too many: at most {GRANTS_MAX}", grants.len()));
    }
    for (index, grant) in grants.iter().enumerate() {
        let key = |key: &str| format!("{path}[{index}].{key}");
        if !is_origin(&grant.origin) {
            let reason = format!("`{}` is no origin: write https://HOST or https://HOST:PORT", grant.origin);
            return error(key("origin"), reason);
        }
        if grants[..index].iter().any(|before| before.origin == grant.origin) {
            return error(key("origin"), format!("`{}` has a grant already: one each", grant.origin));
        }
        if !(1..=ID_BYTES_MAX).contains(&grant.id.len()) {
            return error(key("id"), format!("write 1 to {ID_BYTES_MAX} bytes"));
        }
    }
    Ok(())
}

/// Whether it is written as relays compare it (RFC 6454 §6.2): in lower case, and without a port that goes without saying.
fn is_origin(text: &str) -> bool {
    let Some((rest, usual)) = text
        .strip_prefix("https://")
        .map(|rest| (rest, ":443"))
        .or_else(|| text.strip_prefix("http://").map(|rest| (rest, ":80")))
    else {
        return false;
    };
    let host = match rest.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').map(|(host, port)| (host, port, "0123456789abcdef:")),
        None => {
            let end = rest.find(':').unwrap_or(rest.len());
            Some((&rest[..end], &rest[end..], "0123456789abcdefghijklmnopqrstuvwxyz-._"))
        }
    };
    let Some((host, port, allowed)) = host else { return false };
    let is_port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            digits.parse::<u16>().is_ok_and(|number| number.to_string() == digits) && port != usual
        });
    !host.is_empty() && host.chars().all(|c| allowed.contains(c)) && is_port
}

#[cfg(test)]
mod tests {
    use super::super::Caps;

    #[track_caller]
    fn refused(grants: &str, part: &str) {
        let text = format!(r#"{{"origin":{{"grants":{grants}}}}}"#);
        let error = Caps::from_json(text.as_bytes()).expect_err("refused").to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn grants_are_checked() {
        let good = r#"{"origin":{"grants":[{"origin":"https://o.example","id":"a","bytes":"1GB","until":5},
            {"origin":"http://[::1]:8080","id":"a","bytes":0}]}}"#;
        let caps = Caps::from_json(good.as_bytes()).expect("caps");
        assert_eq!(Caps::from_value(caps.to_value()), Ok(caps));
        assert!(!Caps::default().canonical().contains("grants"), "who knows of none can read it");
        for bad in [
            "o",
            "ftp://o",
            "https://",
            "https://O",
            "https://o/",
            "https://u@o",
            "https://o:443",
            "http://o:",
            "http://[::1",
        ] {
            refused(&format!(r#"[{{"origin":"{bad}","id":"a","bytes":0}}]"#), "origin.grants[0].origin");
        }
        refused(r#"[{"origin":"http://o","id":"","bytes":0}]"#, "origin.grants[0].id");
        refused(r#"[{"origin":"http://o","id":"a"}]"#, "bytes");
        refused(r#"[{"origin":"http://o","id":"a","bytes":0,"hours":1}]"#, "hours");
        let one = r#"{"origin":"http://o","id":"a","bytes":0}"#;
        refused(&format!("[{one},{one}]"), "origin.grants[1].origin");
    }
}
