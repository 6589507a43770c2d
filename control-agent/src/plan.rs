//! What has to be done so that a relay becomes what is desired: a pure function of what is desired, what is there, and what this agent
//! did before. What it did not do itself it does not undo.

use std::collections::{BTreeMap, BTreeSet};

use millrace_proto::access::Access;
use millrace_proto::admin::{AddContent, ContentState, ContentStatus};
use millrace_proto::control::DesiredState;
use millrace_proto::id::ContentId;
use serde::{Deserialize, Serialize};

/// What this agent did: written down before it is done, so that no crash makes it somebody else's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Own {
    /// Contents that it added, and those that they became when their origin changed.
    pub(crate) contents: BTreeSet<ContentId>,
    /// Contents of others that it pinned.
    pub(crate) pins: BTreeSet<ContentId>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Remove(ContentId),
    Unpin(ContentId),
    Add(ContentId, Box<AddContent>),
    Pin(ContentId),
    Prioritise(ContentId, u8),
    /// Say who may have it.
    Admit(ContentId, Access),
    /// Pull what failed again.
    Resume(ContentId),
}

impl Step {
    pub(crate) fn content(&self) -> ContentId {
        match self {
            Step::Remove(id) | Step::Unpin(id) | Step::Add(id, _) => *id,
            Step::Pin(id) | Step::Prioritise(id, _) | Step::Admit(id, _) | Step::Resume(id) => *id,
        }
    }

    /// Whether it may take an origin's time, and is not tried again at once when it failed.
    pub(crate) fn asks_origins(&self) -> bool {
        matches!(self, Step::Add(..) | Step::Resume(_))
    }
}

/// Notes what became of own contents: an origin that changed makes a new content of an old one.
pub(crate) fn adopt(there: &[ContentStatus], own: &mut Own) {
    let mut heirs: BTreeMap<ContentId, Vec<ContentId>> = BTreeMap::new();
    for content in there {
        if let (Ok(id), Some(Ok(old))) = (content.id.parse(), content.supersedes.as_deref().map(str::parse)) {
            heirs.entry(old).or_default().push(id);
        }
    }
    let mut known: Vec<ContentId> = own.contents.iter().copied().collect();
    while let Some(old) = known.pop() {
        let new = heirs.remove(&old).unwrap_or_default();
        known.extend(new.into_iter().filter(|new| own.contents.insert(*new)));
    }
}

/// The steps, in the order in which they are best done: who may have what comes first, then what makes room.
pub(crate) fn plan(desired: &DesiredState, there: &[ContentStatus], own: &Own) -> Vec<Step> {
    let here: BTreeMap<ContentId, &ContentStatus> =
        there.iter().filter_map(|content| Some((content.id.parse().ok()?, content))).collect();
    let wanted: BTreeMap<ContentId, &AddContent> = desired.wanted().collect();
    // A content that its origin has replaced is not pulled again, and stands for what replaced it.
    let replaced: BTreeMap<&str, ContentId> =
        here.iter().filter_map(|(id, content)| Some((content.supersedes.as_deref()?, *id))).collect();
    let mut kept: BTreeSet<ContentId> = wanted.keys().copied().collect();
    let mut admitted = Vec::new();
    for (id, content) in &wanted {
        let mut at = *id;
        loop {
            // Whoever may not have a content may not have what it became.
            let is_other =
                |access: &&Access| here.get(&at).is_some_and(|there| there.access.as_ref() != Some(access));
            let access = content.access.as_ref().filter(|_| own.contents.contains(&at)).filter(is_other);
            admitted.extend(access.map(|access| Step::Admit(at, access.clone())));
            let Some(heir) = replaced.get(at.to_string().as_str()).filter(|heir| kept.insert(**heir)) else {
                break;
            };
            at = *heir;
        }
    }
    let mut steps = admitted;
    let removed = own.contents.difference(&kept).copied().filter(|id| here.contains_key(id));
    steps.extend(removed.map(Step::Remove));
    let wants_pin = |id: &ContentId| wanted.get(id).is_some_and(|content| content.pin);
    let unpinned = own
        .pins
        .iter()
        .copied()
        .filter(|id| !wants_pin(id) && here.get(id).is_some_and(|content| content.pinned));
    steps.extend(unpinned.map(Step::Unpin));
    for (id, content) in wanted {
        match here.get(&id) {
            None => steps.push(Step::Add(id, Box::new(content.clone()))),
            Some(status) => {
                correct(id, content, status, own, replaced.contains_key(status.id.as_str()), &mut steps)
            }
        }
    }
    steps
}

/// What is there and not quite as desired.
fn correct(
    id: ContentId,
    content: &AddContent,
    status: &ContentStatus,
    own: &Own,
    is_replaced: bool,
    steps: &mut Vec<Step>,
) {
    let is_own = own.contents.contains(&id);
    match (content.pin, status.pinned) {
        (true, false) => steps.push(Step::Pin(id)),
        // One that the operator added and pinned stays pinned.
        (false, true) if is_own => steps.push(Step::Unpin(id)),
        _ => {}
    }
    let priority = content.priority.unwrap_or(0);
    if is_own && status.priority != priority {
        steps.push(Step::Prioritise(id, priority));
    }
    if is_own && status.state == ContentState::Failed && !is_replaced {
        steps.push(Step::Resume(id));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn id(number: u8) -> ContentId {
        ContentId([number; 16])
    }

    fn content(number: u8, more: Value) -> ContentStatus {
        let mut status = json!({"id": id(number), "name": "n", "length": 1, "have_bytes": 1, "state": "complete", "http_url": "/",
            "torrent_url": null, "metalink_url": null, "magnet": null, "infohash_v1": null, "infohash_v2": null,
            "sha256": null, "error": null});
        if let (Value::Object(status), Value::Object(more)) = (&mut status, more) {
            status.extend(more);
        }
        serde_json::from_value(status).expect("a status")
    }

    fn want(number: u8, more: Value) -> AddContent {
        let mut wanted = json!({"id": id(number).to_string(), "sources": ["http://o/f"]});
        if let (Value::Object(wanted), Value::Object(more)) = (&mut wanted, more) {
            wanted.extend(more);
        }
        serde_json::from_value(wanted).expect("a content")
    }

    #[track_caller]
    fn check(wanted: Vec<AddContent>, there: Vec<ContentStatus>, own: [&[u8]; 2], expected: Vec<Step>) {
        let desired = DesiredState { contents: wanted, ..DesiredState::default() };
        let [contents, pins] = own.map(|numbers| numbers.iter().map(|number| id(*number)).collect());
        let mut own = Own { contents, pins };
        adopt(&there, &mut own);
        assert_eq!(plan(&desired, &there, &own), expected);
    }

    #[test]
    fn what_is_missing_is_added_and_what_is_own_and_not_wanted_removed() {
        let added = Step::Add(id(1), Box::new(want(1, json!({}))));
        check(vec![want(1, json!({}))], vec![], [&[], &[]], vec![added.clone()]);
        check(vec![want(1, json!({}))], vec![content(1, json!({}))], [&[1], &[]], vec![]);
        check(vec![], vec![content(1, json!({}))], [&[1], &[]], vec![Step::Remove(id(1))]);
        check(vec![], vec![], [&[1], &[]], vec![]);
        let there = vec![content(2, json!({})), content(3, json!({}))];
        check(vec![want(1, json!({}))], there, [&[1, 2], &[]], vec![Step::Remove(id(2)), added]);
    }

    #[test]
    fn what_the_operator_did_stays() {
        check(vec![], vec![content(1, json!({"pinned": true}))], [&[], &[]], vec![]);
        let theirs = content(1, json!({"pinned": true, "priority": 3, "state": "failed"}));
        check(vec![want(1, json!({}))], vec![theirs], [&[], &[]], vec![]);
        // What was pinned for the controller is let go, and nothing else.
        let there = vec![content(1, json!({"pinned": true})), content(2, json!({"pinned": true}))];
        check(vec![], there, [&[], &[2]], vec![Step::Unpin(id(2))]);
    }

    #[test]
    fn pins_and_priorities_are_corrected() {
        let there = || content(1, json!({"pinned": true, "priority": 3}));
        let both = vec![Step::Unpin(id(1)), Step::Prioritise(id(1), 0)];
        check(vec![want(1, json!({}))], vec![there()], [&[1], &[]], both);
        check(vec![want(1, json!({"pin": true, "priority": 3}))], vec![there()], [&[1], &[]], vec![]);
        let plain = content(1, json!({}));
        check(vec![want(1, json!({"pin": true}))], vec![plain], [&[], &[]], vec![Step::Pin(id(1))]);
    }

    #[test]
    fn who_may_have_a_content_may_have_what_it_became_and_nobody_else() {
        let access = |words: &str| words.parse::<Access>().expect("an access");
        let there = |access: &str| content(1, json!({"access": [access]}));
        let wanted = || vec![want(1, json!({"access": ["signed"]}))];
        let admit = |number| Step::Admit(id(number), access("signed"));
        check(wanted(), vec![there("public")], [&[1], &[]], vec![admit(1)]);
        check(wanted(), vec![there("signed")], [&[1], &[]], vec![]);
        // The operator's own, and what the controller says nothing of, stay as they are.
        check(wanted(), vec![there("public")], [&[], &[]], vec![]);
        check(vec![want(1, json!({}))], vec![there("signed")], [&[1], &[]], vec![]);
        let heir = content(2, json!({"supersedes": id(1), "access": ["10.0.0.0/8"]}));
        check(wanted(), vec![there("signed"), heir], [&[1], &[]], vec![admit(2)]);
    }

    #[test]
    fn a_content_whose_origin_changed_stays_as_what_it_became() {
        let failed = |number| content(number, json!({"state": "failed"}));
        check(vec![want(1, json!({}))], vec![failed(1)], [&[1], &[]], vec![Step::Resume(id(1))]);
        let heirs = || {
            let heir = |number, of| content(number, json!({"supersedes": id(of)}));
            vec![failed(1), heir(2, 1), heir(3, 2)]
        };
        check(vec![want(1, json!({}))], heirs(), [&[1], &[]], vec![]);
        let all = vec![Step::Remove(id(1)), Step::Remove(id(2)), Step::Remove(id(3))];
        check(vec![], heirs(), [&[1], &[]], all);
        check(vec![], heirs(), [&[], &[]], vec![]);
    }
}
