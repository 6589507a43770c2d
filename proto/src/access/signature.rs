//! Signed URLs: whoever holds a key says that a path may be had until some second, by a client in some network or by anyone.
//!
//! What is signed, by HMAC-SHA-256 (RFC 2104), are five lines without a final newline:
//!
//! ```text
//! millrace-url-1
//! KEY
//! EXPIRES
//! NETWORK
//! PATH
//! ```
//!
//! `PATH` is the path of the URL with its escapes decoded, once: so a URL may be escaped in another way by whoever passes it on. It is
//! the last line, because it alone may have a newline in it. One that ends in `/` stands for everything below it. `NETWORK` is empty
//! where anyone may come. Scheme, host and method are not signed: the same URL holds on every relay that has the key, for GET and HEAD.
//! They are added to the URL as `expires`, `key` and `signature` (base64url without padding), with `network` where there is one, and
//! `prefix` where everything below a path was signed.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::admin::caps::Cidr;
use crate::http::target::{Escaped, encode_segment, query_pairs};

/// Bytes of a key's secret.
pub const SECRET_BYTES: usize = 32;

/// Characters of a key's id.
pub const KEY_ID_CHARS_MAX: usize = 64;

/// Keys that hold at one time.
pub const KEYS_MAX: usize = 64;

/// First line of what is signed, so that a key that signs something else as well signs no URL.
const DOMAIN: &str = "millrace-url-1";

/// Why a signed URL opens nothing. Each is told to who brought it: none says whether there is such a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A parameter is missing, twice there, or not of its form.
    #[error("This signed URL is incomplete: it takes `expires`, `key` and `signature` as they were made.")]
    Malformed,
    /// No key of this id is here, or not any more.
    #[error("This URL was signed with a key that does not hold here: ask for a new one.")]
    UnknownKey,
    /// The signature is not that of this URL.
    #[error("This URL is not the one that was signed.")]
    Wrong,
    /// Its time is over.
    #[error("This URL has expired: ask for a new one.")]
    Expired,
    /// It was made for clients elsewhere.
    #[error("This URL was signed for another network than the one that you come from.")]
    OtherNetwork,
}

/// A key, under a name that URLs carry.
#[derive(Clone)]
pub struct Key {
    id: String,
    secret: [u8; SECRET_BYTES],
}

impl fmt::Debug for Key {
    /// The secret stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What is granted by a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant<'a> {
    /// Decoded; one that ends in `/` stands for everything below it.
    pub path: &'a [u8],
    /// The last second that it holds in, since 1970.
    pub expires: u64,
    /// Where the client has to be.
    pub network: Option<Cidr>,
}

impl Key {
    /// A key of this id and secret.
    ///
    /// # Errors
    /// An id that is empty, longer than [`KEY_ID_CHARS_MAX`], or has other characters than letters, digits, `.`, `_` and `-`.
    pub fn new(id: &str, secret: [u8; SECRET_BYTES]) -> Result<Self, String> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if id.is_empty() || id.len() > KEY_ID_CHARS_MAX || !id.bytes().all(is_plain) {
            return Err(format!(
                "`{id}` is no id of a key: write up to {KEY_ID_CHARS_MAX} letters, digits, `.`, `_` and `-`"
            ));
        }
        Ok(Key { id: id.to_owned(), secret })
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The line of a file of keys that it stands in.
    #[must_use]
    pub fn to_line(&self) -> String {
        format!("{} {}", self.id, BASE64URL_NOPAD.encode(&self.secret))
    }

    /// The query that makes a URL of this path a signed one, escaped.
    #[must_use]
    pub fn query(&self, grant: &Grant<'_>) -> String {
        let signature = BASE64URL_NOPAD.encode(&self.mac(grant).finalize().into_bytes());
        let mut query = format!("expires={}&key={}", grant.expires, self.id);
        if let Some(network) = grant.network {
            query.push_str(&format!("&network={network}"));
        }
        if grant.path.ends_with(b"/") {
            let path = String::from_utf8_lossy(grant.path);
            query.push_str(&format!("&prefix={}", encode_segment(&path)));
        }
        query.push_str(&format!("&signature={signature}"));
        query
    }

    fn mac(&self, grant: &Grant<'_>) -> Hmac<Sha256> {
        let network = grant.network.map(|network| network.to_string()).unwrap_or_default();
        // As long as a block of the hash, behind which it is filled up with zeros (RFC 2104 §2).
        let mut block = [0; 64];
        block[..SECRET_BYTES].copy_from_slice(&self.secret);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(format!("{DOMAIN}\n{}\n{}\n{network}\n", self.id, grant.expires).as_bytes());
        mac.update(grant.path);
        mac
    }
}

/// The keys that hold.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// Reads a file of keys: an id and a secret on each line, as [`Key::to_line`] writes them; empty lines, and those that begin with `#`,
    /// say nothing.
    ///
    /// # Errors
    /// The first line that is wrong, by its number and without its secret; an id that is there twice.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys: Vec<Key> = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: String| format!("line {number}: {why}");
            let (id, secret) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let secret = BASE64URL_NOPAD.decode(secret.trim().as_bytes()).ok();
            let secret = secret.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
                wrong(
                    "write an id and 32 bytes in base64url, as `millrace-relay keys generate` does"
                        .to_owned(),
                )
            })?;
            let key = Key::new(id, secret).map_err(wrong)?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(wrong(format!("another key is called `{id}`")));
            }
            keys.push(key);
        }
        match keys.len() > KEYS_MAX {
            true => Err(format!("more than {KEYS_MAX} keys")),
            false => Ok(Keys(keys)),
        }
    }

    /// The key of this id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }

    /// The key that was added last.
    #[must_use]
    pub fn newest(&self) -> Option<&Key> {
        self.0.last()
    }

    /// Their ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Key::id)
    }

    /// Judges a signed URL. `path` is escaped, as it was asked for; `now` is in seconds since 1970.
    ///
    /// # Errors
    /// What is wrong with it first, in the order of [`Refusal`]: who cannot sign learns nothing of what was signed.
    pub fn check(&self, path: &str, query: &str, client: IpAddr, now: u64) -> Result<(), Refusal> {
        let asked = Parameters::of(query)?;
        let (Some(expires), Some(id), Some(signature)) = (&asked.expires, &asked.key, &asked.signature)
        else {
            return Err(Refusal::Malformed);
        };
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).map_err(|_| Refusal::Malformed)?;
        let network = asked.network.as_ref().map(|text| text.parse::<Cidr>()).transpose();
        let network = network.map_err(|_| Refusal::Malformed)?;
        let is_number = !expires.is_empty() && expires.bytes().all(|b| b.is_ascii_digit());
        let expires = expires.parse().ok().filter(|_| is_number).ok_or(Refusal::Malformed)?;
        let key = self.find(id).ok_or(Refusal::UnknownKey)?;
        let path: Vec<u8> = Escaped(path).bytes().collect();
        let signed = match &asked.prefix {
            None => path.as_slice(),
            Some(prefix) if prefix.ends_with('/') && path.starts_with(prefix.as_bytes()) => prefix.as_bytes(),
            Some(_) => return Err(Refusal::Wrong),
        };
        // A path that ends in `/` was signed as a prefix, and is said to be one.
        if asked.prefix.is_none() && signed.ends_with(b"/") {
            return Err(Refusal::Wrong);
        }
        // In constant time.
        key.mac(&Grant { path: signed, expires, network })
            .verify_slice(&signature)
            .map_err(|_| Refusal::Wrong)?;
        if now > expires {
            return Err(Refusal::Expired);
        }
        match network.is_none_or(|network| network.contains(client)) {
            true => Ok(()),
            false => Err(Refusal::OtherNetwork),
        }
    }
}

/// Whether a query is that of a signed URL, or of one that is meant to be.
#[must_use]
pub fn is_signed(query: &str) -> bool {
    query_pairs(query).any(|(name, _)| name == "signature")
}

/// What a signed URL carries, unescaped.
#[derive(Debug, Default)]
struct Parameters<'a> {
    expires: Option<Cow<'a, str>>,
    key: Option<Cow<'a, str>>,
    network: Option<Cow<'a, str>>,
    prefix: Option<Cow<'a, str>>,
    signature: Option<Cow<'a, str>>,
}

impl<'a> Parameters<'a> {
    fn of(query: &'a str) -> Result<Self, Refusal> {
        let mut found = Parameters::default();
        for (name, value) in query_pairs(query) {
            let place = match name.decode().as_deref() {
                Some("expires") => &mut found.expires,
                Some("key") => &mut found.key,
                Some("network") => &mut found.network,
                Some("prefix") => &mut found.prefix,
                Some("signature") => &mut found.signature,
                _ => continue,
            };
            // Of two, somebody else may look at the other one.
            if place.replace(value.decode().ok_or(Refusal::Malformed)?).is_some() {
                return Err(Refusal::Malformed);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
