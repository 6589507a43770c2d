//! Signed text: JSON Web Signatures in their compact form (RFC 7515 §3.1) by Ed25519 (RFC 8037). What is signed are the exact bytes on
//! the wire, so nothing has to be written in one way only. Signing and verifying itself is the caller's: this crate has no keys.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The one algorithm: Ed25519.
pub const ALGORITHM: &str = "EdDSA";

/// `typ` of a desired state.
pub const STATE_TYPE: &str = "millrace-state";

/// `typ` of the token of a connection (RFC 7519).
pub const TOKEN_TYPE: &str = "JWT";

/// An Ed25519 public key, written as 43 characters of base64url; it is its own `kid`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

/// Text that is no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 public key: 43 characters of base64url")]
pub struct ParseKeyError;

/// Text that is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// Not `header.payload.signature`, each in base64url.
    #[error("it is not header.payload.signature in base64url (RFC 7515 §3.1)")]
    Syntax,
    /// A header that is not understood.
    #[error("its header is not understood: {0}")]
    Header(String),
    /// An algorithm that is not the one, `none` among them.
    #[error("it is signed by `{0}`: only EdDSA with an Ed25519 key is accepted")]
    Algorithm(String),
    /// It is something else than was expected.
    #[error("it is a `{0}`")]
    Type(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: PublicKey,
    typ: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<Vec<String>>,
}

/// A signed text taken apart; nothing of it is true before the signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<'a> {
    /// The key that it says it was signed with.
    pub key: PublicKey,
    /// What the signature is of.
    pub message: &'a [u8],
    /// What it says.
    pub payload: Vec<u8>,
    /// 64 bytes, where it is one.
    pub signature: Vec<u8>,
}

impl<'a> Signed<'a> {
    /// Takes apart a text of type `typ`.
    ///
    /// # Errors
    /// See [`SignedError`].
    pub fn parse(text: &'a str, typ: &str) -> Result<Self, SignedError> {
        let (message, signature) = text.trim_end().rsplit_once('.').ok_or(SignedError::Syntax)?;
        let (header, payload) = message.split_once('.').ok_or(SignedError::Syntax)?;
        let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| SignedError::Syntax);
        let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
        #[derive(Deserialize)]
        struct Algorithm {
            alg: String,
        }
        let wrong = |error: serde_json::Error| SignedError::Header(error.to_string());
        // Before the rest of the header is looked at: what is not signed at all shall be called that.
        let Algorithm { alg } = serde_json::from_slice(&header).map_err(wrong)?;
        if alg != ALGORITHM {
            return Err(SignedError::Algorithm(alg));
        }
        let header: Header = serde_json::from_slice(&header).map_err(wrong)?;
        if let Some(critical) = header.crit {
            // RFC 7515 §4.1.11: what must be understood and is not.
            return Err(SignedError::Header(format!("`crit` names {critical:?}")));
        }
        if header.typ != typ {
            return Err(SignedError::Type(header.typ));
        }
        Ok(Signed { key: header.kid, message: message.as_bytes(), payload, signature })
    }
}

/// A text of type `typ` with this payload, as `sign` signs it for `key`.
#[must_use]
pub fn compact(key: PublicKey, typ: &str, payload: &[u8], sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let header = Header { alg: ALGORITHM.to_owned(), kid: key, typ: typ.to_owned(), crit: None };
    // Strings are always JSON.
    let header = serde_json::to_vec(&header).unwrap_or_default();
    let message = format!("{}.{}", BASE64URL_NOPAD.encode(&header), BASE64URL_NOPAD.encode(payload));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// What the token of a connection says (RFC 7519): `Authorization: Bearer …`, signed by the agent's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Claims {
    /// The relay.
    pub sub: String,
    /// The URL that is connected to, as enrolment gave it.
    pub aud: String,
    /// When it was made.
    pub iat: u64,
    /// From when on it is not to be accepted.
    pub exp: u64,
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| ParseKeyError)?;
        bytes.try_into().map(PublicKey).map_err(|_| ParseKeyError)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PublicKey = PublicKey([7; 32]);

    fn with_header(header: &str) -> String {
        format!("{}.e30.AA", BASE64URL_NOPAD.encode(header.as_bytes()))
    }

    #[test]
    fn what_is_written_is_read() {
        let text = compact(KEY, STATE_TYPE, b"{\"a\":1}", |message| message[..4].to_vec());
        let signed = Signed::parse(&text, STATE_TYPE).expect("signed");
        assert_eq!((signed.key, signed.payload.as_slice()), (KEY, b"{\"a\":1}".as_slice()));
        assert_eq!(signed.message, text.rsplit_once('.').expect("a dot").0.as_bytes());
        assert_eq!(signed.signature, signed.message[..4]);
        assert_eq!(KEY.to_string().parse(), Ok(KEY));
        assert_eq!(Signed::parse(&text, TOKEN_TYPE), Err(SignedError::Type(STATE_TYPE.to_owned())));
    }

    #[test]
    fn what_is_not_signed_by_the_one_algorithm_is_refused() {
        for bad in ["", "a", "a.b", "e30.e30", "e30.e30.!", "e30=.e30.AA", "{}", "e30.e30.AA.AA"] {
            assert!(Signed::parse(bad, STATE_TYPE).is_err(), "{bad}");
        }
        let none = with_header(r#"{"alg":"none"}"#);
        assert_eq!(Signed::parse(&none, STATE_TYPE), Err(SignedError::Algorithm("none".to_owned())));
        let hmac = with_header(&format!(r#"{{"alg":"HS256","kid":"{KEY}","typ":"millrace-state"}}"#));
        assert_eq!(Signed::parse(&hmac, STATE_TYPE), Err(SignedError::Algorithm("HS256".to_owned())));
        let critical =
            with_header(&format!(r#"{{"alg":"EdDSA","kid":"{KEY}","typ":"millrace-state","crit":["b64"]}}"#));
        assert!(matches!(Signed::parse(&critical, STATE_TYPE), Err(SignedError::Header(_))));
        let short = with_header(r#"{"alg":"EdDSA","kid":"AAAA","typ":"millrace-state"}"#);
        assert!(matches!(Signed::parse(&short, STATE_TYPE), Err(SignedError::Header(_))));
    }
}
