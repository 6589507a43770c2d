//! Signed documents: which of them count, and the last good one, which outlives the process.

use std::sync::Arc;

use millrace_proto::control::signed::{STATE_TYPE, Signed, SignedError};
use millrace_proto::control::{DesiredState, Enrolled, PublicKey, Refusal, RefusalReason};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::folder::Folder;
use crate::identity::Identity;
use crate::run::Failure;

/// The last good document.
const STATE: &str = "state.json";
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    /// The enrolment that it came under: another one is another beginning.
    enrolled: Enrolled,
    /// The keys that the next document is taken of.
    keys: Vec<PublicKey>,
    /// The document as it came; `None` is none yet.
    document: Option<String>,
}

/// Takes documents.
#[derive(Debug)]
pub(crate) struct Documents {
    folder: Folder,
    enrolled: Enrolled,
    keys: Vec<PublicKey>,
    document: Option<String>,
    held: watch::Sender<Option<Arc<DesiredState>>>,
}

impl Documents {
    /// Those of the last run, or none yet and the keys of the enrolment.
    pub(crate) fn open(folder: &Folder, identity: &Identity) -> Result<Documents, Failure> {
        let enrolled = &identity.enrolled;
        let file: Option<File> = folder.read_json(STATE).map_err(anyhow::Error::from)?;
        let damaged = |why: String| {
            let hint = format!("{why}; put back a copy of it, or enrol anew to begin without it");
            Failure::from(anyhow::Error::from(folder.wrong(STATE, hint)))
        };
        let (keys, document) = match file {
            Some(file) if file.version != VERSION => {
                return Err(damaged(format!("version {} is not known to this program", file.version)));
            }
            // Enrolled anew: the operator trusts these keys now, and whatever sequence they begin with.
            Some(file) if file.enrolled != *enrolled => (enrolled.keys.clone(), None),
            Some(file) => (file.keys, file.document),
            None => (enrolled.keys.clone(), None),
        };
        // It was verified before it was kept, by a key that it may itself have replaced.
        let state = document.as_deref().map(|text| {
            let signed = Signed::parse(text, STATE_TYPE).map_err(|error| error.to_string())?;
            DesiredState::from_json(&signed.payload).map_err(|error| error.to_string())
        });
        let state = state.transpose().map_err(damaged)?;
        let held = watch::Sender::new(state.map(Arc::new));
        Ok(Documents { folder: folder.clone(), enrolled: enrolled.clone(), keys, document, held })
    }

    /// The state held, whenever it changes.
    pub(crate) fn held(&self) -> watch::Receiver<Option<Arc<DesiredState>>> {
        self.held.subscribe()
    }

    pub(crate) fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    pub(crate) fn sequence(&self) -> Option<u64> {
        self.held.borrow().as_ref().map(|state| state.sequence)
    }

    /// Takes a document in: it is on the disk before it counts. Its sequence.
    pub(crate) fn accept(&mut self, text: &str, now: u64) -> Result<u64, Refusal> {
        let state = verify(text, &self.keys)?;
        let sequence = state.sequence;
        let is_new = self.judge(&state, text, now).map_err(|(reason, detail)| Refusal {
            reason,
            detail,
            sequence: Some(sequence),
        })?;
        if !is_new {
            return Ok(sequence);
        }
        let keys = if state.keys.is_empty() { self.keys.clone() } else { state.keys.clone() };
        let file =
            File { version: VERSION, enrolled: self.enrolled.clone(), keys, document: Some(text.to_owned()) };
        self.folder.write_json(STATE, &file).map_err(|error| Refusal {
            reason: RefusalReason::NotKept,
            detail: error.to_string(),
            sequence: Some(sequence),
        })?;
        if file.keys != self.keys {
            tracing::info!(keys = ?file.keys, sequence, "the controller signs with other keys from now on");
        }
        (self.keys, self.document) = (file.keys, file.document);
        self.held.send_replace(Some(Arc::new(state)));
        Ok(sequence)
    }

    /// Whether it is another than the one held.
    fn judge(&self, state: &DesiredState, text: &str, now: u64) -> Result<bool, (RefusalReason, String)> {
        let sequence = state.sequence;
        let relay = &self.enrolled.relay;
        if state.relay != *relay {
            let detail = format!("it is for relay `{}`, and this is `{relay}`", state.relay);
            return Err((RefusalReason::OtherRelay, detail));
        }
        let held = self.sequence();
        if let Some(held) = held.filter(|held| sequence < *held) {
            let detail = format!("its sequence is {sequence}, and {held} was accepted already");
            return Err((RefusalReason::Older, detail));
        }
        if held == Some(sequence) {
            // Sent again: what counts is what is signed, as signatures of the same can differ.
            let same = self.document.as_deref().is_some_and(|held| payload(held) == payload(text));
            let changed =
                || (RefusalReason::Changed, format!("sequence {sequence} said something else before"));
            return if same { Ok(false) } else { Err(changed()) };
        }
        if state.expires_at <= now {
            let detail = format!("it was to be accepted until {}, and now it is {now}", state.expires_at);
            return Err((RefusalReason::Expired, detail));
        }
        Ok(true)
    }
}

fn payload(document: &str) -> Option<&str> {
    document.split('.').nth(1)
}

/// What a document says, if one of `keys` signed it.
pub(crate) fn verify(text: &str, keys: &[PublicKey]) -> Result<DesiredState, Refusal> {
    let refused = |reason, detail: String| Refusal { reason, detail, sequence: None };
    let signed = Signed::parse(text, STATE_TYPE).map_err(|error| {
        let reason = match error {
            SignedError::Algorithm(_) => RefusalReason::Unsigned,
            _ => RefusalReason::Malformed,
        };
        refused(reason, format!("the document is not understood: {error}"))
    })?;
    if !keys.contains(&signed.key) {
        let detail = format!("it is signed by {}, which is none of the keys accepted", signed.key);
        return Err(refused(RefusalReason::UnknownKey, detail));
    }
    let key = UnparsedPublicKey::new(&ED25519, signed.key.0);
    key.verify(signed.message, &signed.signature).map_err(|_| {
        refused(RefusalReason::BadSignature, "the signature is not that of the document".to_owned())
    })?;
    DesiredState::from_json(&signed.payload)
        .map_err(|error| refused(RefusalReason::Unusable, error.to_string()))
}

#[cfg(test)]
mod tests;
