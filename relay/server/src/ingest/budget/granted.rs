//! Grants of single origins: what they allow, what came by them, what is on its way. Pure; the time comes as an argument, in seconds
//! since 1970.

use std::collections::BTreeMap;

use millrace_proto::admin::caps::Source;
use millrace_proto::admin::caps::effective::EffectiveGrant;
use millrace_proto::admin::caps::status::GrantStatus;
use millrace_proto::units::Size;
use url::Url;

/// All grants, and the count of each.
#[derive(Debug, Clone, Default)]
pub(super) struct Granted {
    grants: Vec<EffectiveGrant>,
    /// By origin and id. Layers that name the same grant share its count.
    counts: BTreeMap<(String, String), Count>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    used: u64,
    /// Bytes asked for that have not come.
    reserved: u64,
}

impl Granted {
    /// What had come before a restart.
    pub(super) fn restore(&mut self, origin: String, id: String, used: u64) {
        self.counts.insert((origin, id), Count { used, reserved: 0 });
    }

    /// Changes the grants. One that stays keeps its count; one that is gone is forgotten, and its id is not to be used again.
    pub(super) fn set(&mut self, grants: &[EffectiveGrant]) {
        self.grants = grants.to_vec();
        let mut counts = std::mem::take(&mut self.counts);
        for grant in grants {
            let key = (grant.origin.clone(), grant.id.clone());
            let count = counts.remove(&key).unwrap_or_default();
            self.counts.entry(key).or_insert(count);
        }
    }

    /// Whether no origin needs any: most relays have none.
    pub(super) fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// Bytes that may still be asked of an origin.
    pub(super) fn left(&self, origin: &str, at: i64) -> u64 {
        self.of(origin).map(|grant| self.left_of(grant, at)).min().unwrap_or(u64::MAX)
    }

    /// Why nothing may be asked at a URL, and whose word that is.
    pub(super) fn lack(&self, url: &Url, at: i64) -> Option<(String, Source)> {
        let origin = url.origin().ascii_serialization();
        let grant = self.of(&origin).find(|grant| self.left_of(grant, at) == 0)?;
        let EffectiveGrant { id, bytes, source, .. } = grant;
        let why = match is_over(grant, at) {
            _ if *bytes == 0 => format!("{origin} needs a grant, and has none"),
            true => format!("grant `{id}` of {origin} is over"),
            false => format!("grant `{id}` of {origin}, of {}, is used up", Size(*bytes)),
        };
        Some((why, *source))
    }

    /// Whether nothing more is to be read of what was not asked for.
    pub(super) fn is_reached(&self, origin: &str, at: i64) -> bool {
        self.of(origin).any(|grant| is_over(grant, at) || self.count(grant).used >= grant.bytes)
    }

    /// Notes that so many bytes are asked for.
    pub(super) fn reserve(&mut self, origin: &str, bytes: u64) {
        self.each(origin, |count| count.reserved = count.reserved.saturating_add(bytes));
    }

    /// Notes that what was reserved will not come.
    pub(super) fn release(&mut self, origin: &str, bytes: u64) {
        self.each(origin, |count| count.reserved = count.reserved.saturating_sub(bytes));
    }

    /// Counts what has come, of which so much was `expected`.
    pub(super) fn receive(&mut self, origin: &str, bytes: u64, expected: u64) {
        self.each(origin, |count| {
            count.used = count.used.saturating_add(bytes);
            count.reserved = count.reserved.saturating_sub(expected);
        });
    }

    /// Origin, id, and bytes that have come or may have by the time that anybody reads this.
    pub(super) fn counted(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        let sum = |count: &Count| count.used.saturating_add(count.reserved);
        self.counts.iter().map(move |((origin, id), count)| (origin.as_str(), id.as_str(), sum(count)))
    }

    pub(super) fn status(&self, at: i64) -> Vec<GrantStatus> {
        let of = |grant: &EffectiveGrant| GrantStatus {
            grant: grant.clone(),
            used: self.count(grant).used,
            left: self.left_of(grant, at),
        };
        self.grants.iter().map(of).collect()
    }

    fn of<'a>(&'a self, origin: &str) -> impl Iterator<Item = &'a EffectiveGrant> {
        self.grants.iter().filter(move |grant| grant.origin == origin)
    }

    fn count(&self, grant: &EffectiveGrant) -> Count {
        self.counts.get(&(grant.origin.clone(), grant.id.clone())).copied().unwrap_or_default()
    }

    fn left_of(&self, grant: &EffectiveGrant, at: i64) -> u64 {
        let Count { used, reserved } = self.count(grant);
        match is_over(grant, at) {
            true => 0,
            false => grant.bytes.saturating_sub(used).saturating_sub(reserved),
        }
    }

    /// Grants that are gone count nothing any more: what is under way by them ends.
    fn each(&mut self, origin: &str, change: impl Fn(&mut Count)) {
        self.counts.iter_mut().filter(|((of, _), _)| of == origin).for_each(|(_, count)| change(count));
    }
}

fn is_over(grant: &EffectiveGrant, at: i64) -> bool {
    grant.until.is_some_and(|until| u64::try_from(at).is_ok_and(|at| at >= until))
}
