//! Who this relay is to its controller: the agent's key, and what enrolment answered.

use millrace_proto::control::signed::{self, Claims};
use millrace_proto::control::{Enrolled, PublicKey, TOKEN_SECONDS};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use crate::folder::{Folder, FolderError};

/// The agent's key, as PKCS#8.
const KEY: &str = "key.pk8";

/// What enrolment answered.
const IDENTITY: &str = "identity.json";

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// A file cannot be read, or is not what was written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Nothing was enrolled.
    #[error("this box is not enrolled: run `millrace-agent enroll URL TOKEN` first ({0} is missing)")]
    Absent(String),
}

/// The key of this agent.
#[derive(Debug)]
pub(crate) struct Key(Ed25519KeyPair);

/// Key and relay.
#[derive(Debug)]
pub(crate) struct Identity {
    key: Key,
    pub(crate) enrolled: Enrolled,
}

impl Key {
    /// The key of this folder, which is made where there is none.
    pub(crate) fn open_or_make(folder: &Folder) -> Result<Key, FolderError> {
        if let Some(bytes) = folder.read(KEY)? {
            return Key::read(folder, &bytes);
        }
        let (key, bytes) = Key::make().map_err(|error| folder.wrong(KEY, error))?;
        folder.write(KEY, &bytes)?;
        Ok(key)
    }

    /// A new key, and its bytes.
    pub(crate) fn make() -> Result<(Key, Vec<u8>), String> {
        let no_key = |_| "the system gives no randomness".to_owned();
        let bytes = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(no_key)?;
        let key = Ed25519KeyPair::from_pkcs8(bytes.as_ref()).map_err(|error| error.to_string())?;
        Ok((Key(key), bytes.as_ref().to_vec()))
    }

    fn read(folder: &Folder, bytes: &[u8]) -> Result<Key, FolderError> {
        Ed25519KeyPair::from_pkcs8(bytes).map(Key).map_err(|error| folder.wrong(KEY, error))
    }

    pub(crate) fn public(&self) -> PublicKey {
        let mut public = [0; 32];
        public.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(public)
    }

    /// The token of a connection made at `now`.
    pub(crate) fn token(&self, relay: &str, url: &str, now: u64) -> String {
        let claims = Claims {
            sub: relay.to_owned(),
            aud: url.to_owned(),
            iat: now,
            exp: now.saturating_add(TOKEN_SECONDS),
        };
        // Strings and numbers are always JSON.
        let payload = serde_json::to_vec(&claims).unwrap_or_default();
        let sign = |message: &[u8]| self.0.sign(message).as_ref().to_vec();
        signed::compact(self.public(), signed::TOKEN_TYPE, &payload, sign)
    }
}

impl Identity {
    /// What was enrolled.
    pub(crate) fn load(folder: &Folder) -> Result<Identity, crate::run::Failure> {
        Ok(Identity::open(folder).map_err(anyhow::Error::from)?)
    }

    fn open(folder: &Folder) -> Result<Identity, IdentityError> {
        let absent = |name| IdentityError::Absent(folder.path(name).display().to_string());
        let enrolled = folder.read_json(IDENTITY)?.ok_or_else(|| absent(IDENTITY))?;
        let bytes = folder.read(KEY)?.ok_or_else(|| absent(KEY))?;
        Ok(Identity { key: Key::read(folder, &bytes)?, enrolled })
    }

    /// The relay that this folder is enrolled as, if it is.
    pub(crate) fn enrolled(folder: &Folder) -> Result<Option<Enrolled>, FolderError> {
        folder.read_json(IDENTITY)
    }

    pub(crate) fn save(folder: &Folder, enrolled: &Enrolled) -> Result<(), FolderError> {
        folder.write_json(IDENTITY, enrolled)
    }

    pub(crate) fn token(&self, now: u64) -> String {
        self.key.token(&self.enrolled.relay, &self.enrolled.url, now)
    }
}

#[cfg(test)]
mod tests {
    use millrace_proto::control::signed::{Signed, TOKEN_TYPE};
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;
    use crate::folder::tests::Scratch;

    #[test]
    fn the_key_stays_and_signs_tokens() {
        let scratch = Scratch::new();
        let folder = &scratch.0;
        let error = Identity::open(folder).expect_err("not enrolled").to_string();
        assert!(error.contains("millrace-agent enroll"), "{error}");
        let key = Key::open_or_make(folder).expect("a key");
        assert_eq!(Key::open_or_make(folder).expect("the key").public(), key.public());
        let enrolled =
            Enrolled { relay: "r".to_owned(), url: "wss://c/v1/agent".to_owned(), keys: vec![key.public()] };
        Identity::save(folder, &enrolled).expect("saved");
        let token = Identity::open(folder).expect("enrolled").token(1000);
        let signed = Signed::parse(&token, TOKEN_TYPE).expect("a token");
        let public = UnparsedPublicKey::new(&ED25519, key.public().0);
        public.verify(signed.message, &signed.signature).expect("its signature");
        let claims: Claims = serde_json::from_slice(&signed.payload).expect("claims");
        assert_eq!((claims.sub.as_str(), claims.aud.as_str(), claims.exp), ("r", "wss://c/v1/agent", 1300));
    }
}
