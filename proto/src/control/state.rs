//! What a controller wants a relay to be: the payload of a signed document. It is always the whole of it, never a change, so that any
//! document after any other, or after none, comes to the same.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::signed::PublicKey;
use crate::admin::caps::Caps;
use crate::admin::{AddContent, SOURCES_MAX};
use crate::id::ContentId;

/// Contents in one document.
pub const CONTENTS_MAX: usize = 100_000;

/// Keys in one document.
pub const KEYS_MAX: usize = 8;

/// A desired state. Unknown keys are refused: what is not understood may be a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DesiredState {
    /// The relay that it is for, by the name that enrolment gave it.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 128))]
    pub relay: String,
    /// Larger than that of every document before. It starts anywhere.
    pub sequence: u64,
    /// From when on it is not to be accepted any more; what was accepted stays. Seconds since 1970.
    pub expires_at: u64,
    /// The keys that the documents after this one are signed with, all of them; empty: those that there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 8))]
    pub keys: Vec<PublicKey>,
    /// What the relay should have. Each names its `id`, and http(s) sources.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 100000))]
    pub contents: Vec<AddContent>,
    /// The controller's layer of caps: the document of the relay's `PUT /v1/caps?layer=controller`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Caps))]
    pub caps: Caps,
}

/// A document that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {reason}")]
pub struct StateError {
    /// Path of the key.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl DesiredState {
    /// Reads a payload whose signature was verified.
    ///
    /// # Errors
    /// The first key that is unknown, or whose value is not one of those it may have.
    pub fn from_json(text: &[u8]) -> Result<DesiredState, StateError> {
        let state: Result<DesiredState, _> =
            serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(text));
        let state = state.map_err(|error| StateError {
            path: error.path().to_string(),
            reason: error.into_inner().to_string(),
        })?;
        state.check()?;
        Ok(state)
    }

    fn check(&self) -> Result<(), StateError> {
        let wrong = |path: String, reason: &str| Err(StateError { path, reason: reason.to_owned() });
        if self.keys.len() > KEYS_MAX {
            return wrong("keys".to_owned(), "more than 8 keys");
        }
        if self.contents.len() > CONTENTS_MAX {
            return wrong("contents".to_owned(), "more than 100000 contents");
        }
        let mut seen = BTreeSet::new();
        for (index, content) in self.contents.iter().enumerate() {
            let path = |key: &str| format!("contents[{index}].{key}");
            match content.id.as_deref().map(str::parse::<ContentId>) {
                Some(Ok(id)) if seen.insert(id) => {}
                Some(Ok(_)) => return wrong(path("id"), "another content has the same"),
                Some(Err(error)) => return wrong(path("id"), &error.to_string()),
                None => return wrong(path("id"), "is missing: every content is named by the controller"),
            }
            if content.sources.len() > SOURCES_MAX {
                return wrong(path("sources"), "more than 64");
            }
            // A path would be one on the relay's machine, whose files are its operator's to hand out.
            if !content.sources.iter().all(|source| is_http(source)) {
                return wrong(path("sources"), "is no http(s) URL: files of the box are not a controller's");
            }
        }
        let caps = Caps::from_value(self.caps.to_value());
        caps.map(drop)
            .map_err(|error| StateError { path: format!("caps.{}", error.path), reason: error.reason })
    }

    /// The contents by their ids.
    pub fn wanted(&self) -> impl Iterator<Item = (ContentId, &AddContent)> {
        // Only what has one is read.
        self.contents.iter().filter_map(|content| Some((content.id.as_deref()?.parse().ok()?, content)))
    }
}

fn is_http(source: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| source.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "gaytemzugu3doobzmfrggzdfmy";

    #[track_caller]
    fn check(rest: &str, expected: Option<&str>) {
        let text = format!(r#"{{"relay":"r","sequence":1,"expires_at":2{rest}}}"#);
        let error = DesiredState::from_json(text.as_bytes()).err().map(|error| error.to_string());
        match expected {
            None => assert_eq!(error, None),
            Some(part) => assert!(error.as_deref().is_some_and(|error| error.contains(part)), "{error:?}"),
        }
    }

    #[test]
    fn documents_are_checked_to_the_last_key() {
        check("", None);
        check(&format!(r#","contents":[{{"id":"{ID}","sources":["https://o/f"]}}]"#), None);
        check(r#","cap":{}"#, Some("`cap`"));
        check(r#","caps":{"egress":{"totl":1}}"#, Some("caps.egress.totl"));
        check(r#","caps":{"origin":{"connections":70000}}"#, Some("caps.origin.connections"));
        check(r#","contents":[{"sources":["https://o/f"]}]"#, Some("contents[0].id"));
        check(r#","contents":[{"id":"x","sources":[]}]"#, Some("contents[0].id"));
        check(
            &format!(r#","contents":[{{"id":"{ID}","sources":[]}},{{"id":"{ID}","sources":[]}}]"#),
            Some("contents[1].id"),
        );
        for source in ["/etc/passwd", "file:///etc/passwd", "ftp://o/f", "", "http:/"] {
            check(&format!(r#","contents":[{{"id":"{ID}","sources":["{source}"]}}]"#), Some("sources"));
        }
        check(r#","keys":["short"]"#, Some("keys"));
        check(r#","sequence":2"#, Some("duplicate"));
    }
}
