//! Who is given what, at every door of a shard. Of what is public nothing but a flag is looked at.
//!
//! **Invariant:** to who may not have a content, every answer is the one that he would get if it were not here.

use millrace_pagecache::content::Content;
use millrace_proto::access::Access;
use millrace_proto::access::signature::{self, Refusal};

use crate::ledger::gate::Barrier;
use crate::session::Context;

/// What is to be done with a request for a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Whoever asks from there may have all of it.
    Admitted,
    /// This URL's bytes may be had, and nothing else.
    BySignature,
    /// As for a content that is not here.
    Unknown,
    /// The signature is no good, whether there is such a content or not.
    Refused(Refusal),
}

impl Context<'_> {
    /// Whether the relay answers this client at all.
    pub(crate) fn is_answered(&self) -> bool {
        let answered = self.shared.gate.rules.allow(self.peer.ip());
        if !answered {
            self.turn_away(Barrier::Rules);
        }
        answered
    }

    /// Whether this client may have a content, whatever it brings: as far as BitTorrent goes, where nothing can be signed, and where a
    /// request is not looked at closely.
    pub(crate) fn admits(&self, content: &Content) -> bool {
        let address = self.peer.ip();
        content.admits(address) && self.shared.gate.rules.allow(address)
    }

    /// Judges a request for a content, or for one that is not here.
    pub(crate) fn judge(&self, content: Option<&Content>, path: &str, query: Option<&str>) -> Verdict {
        match content {
            Some(content) if content.admits(self.peer.ip()) => Verdict::Admitted,
            Some(content) => self.judge_signature(Some(&content.access()), path, query),
            None => self.judge_signature(None, path, query),
        }
    }

    /// Judges a request for what may have to be pulled first, and is then for those who may have what was added without a word.
    pub(crate) fn judge_pull(&self, path: &str, query: Option<&str>) -> Verdict {
        let default = &self.shared.gate.default;
        match default.admits(self.peer.ip()) {
            true => Verdict::Admitted,
            false => self.judge_signature(Some(default), path, query),
        }
    }

    fn judge_signature(&self, access: Option<&Access>, path: &str, query: Option<&str>) -> Verdict {
        let Some(query) = query.filter(|query| signature::is_signed(query)) else {
            if access.is_some() {
                self.turn_away(Barrier::Private);
            }
            return Verdict::Unknown;
        };
        match self.shared.gate.keys.check(path, query, self.peer.ip(), self.now.unix_s) {
            Ok(()) if access.is_some_and(Access::takes_signatures) => Verdict::BySignature,
            Ok(()) => Verdict::Unknown,
            Err(refusal) => {
                self.turn_away(refusal.into());
                Verdict::Refused(refusal)
            }
        }
    }

    fn turn_away(&self, barrier: Barrier) {
        self.shared.ledger.turned_away.count(barrier);
    }
}
