//! The extension protocol (BEP 10): its handshake dictionary, and the small messages `upload_only` (BEP 21) and
//! `lt_donthave` (BEP 54). Metadata exchange has its own file.
//!
//! Everything here is the payload of [`super::message::Message::Extended`]; writing allocates nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::bencode::{self, Decoder, Dict, Limits, Value};
use crate::octets::{NoRoom, Writer, take_u32};

/// The extension id of the handshake itself.
pub const HANDSHAKE_ID: u8 = 0;

/// Longest handshake payload that is read, in bytes. Real ones stay below 1 KiB.
pub const HANDSHAKE_BYTES_MAX: usize = 8 * 1024;

/// Longest client name that is kept, in bytes.
pub const CLIENT_BYTES_MAX: usize = 64;

const LIMITS: Limits = Limits { bytes: HANDSHAKE_BYTES_MAX, depth: 4, items: 256 };

/// The numbers that one side gave to the extensions it wants to receive.
///
/// `None` was not named. A handshake may come again and then changes only what it names; `Some(0)` withdraws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExtensionIds {
    /// Metadata exchange (BEP 9).
    pub ut_metadata: Option<u8>,
    /// Peer exchange (BEP 11).
    pub ut_pex: Option<u8>,
    /// Partial seeds (BEP 21).
    pub upload_only: Option<u8>,
    /// Pieces that went away (BEP 54).
    pub lt_donthave: Option<u8>,
}

impl ExtensionIds {
    /// The numbers we give out, the same on every connection; `ut_pex` is left out for private torrents (BEP 27).
    pub const OURS: Self =
        Self { ut_metadata: Some(1), ut_pex: Some(2), upload_only: Some(3), lt_donthave: Some(4) };

    /// These numbers after a further handshake.
    #[must_use]
    pub fn updated(self, later: Self) -> Self {
        Self {
            ut_metadata: later.ut_metadata.or(self.ut_metadata),
            ut_pex: later.ut_pex.or(self.ut_pex),
            upload_only: later.upload_only.or(self.upload_only),
            lt_donthave: later.lt_donthave.or(self.lt_donthave),
        }
    }

    /// In the order of their names, as bencoding wants them.
    fn named(&self) -> [(&'static str, Option<u8>); 4] {
        [
            ("lt_donthave", self.lt_donthave),
            ("upload_only", self.upload_only),
            ("ut_metadata", self.ut_metadata),
            ("ut_pex", self.ut_pex),
        ]
    }
}

/// An extension handshake, as far as we write or understand it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExtensionHandshake<'a> {
    /// `m`: how the sender numbers its extensions.
    pub ids: ExtensionIds,
    /// `v`: client and version, at most [`CLIENT_BYTES_MAX`]; empty when not said. Not necessarily UTF-8.
    pub client: &'a [u8],
    /// `reqq`: requests that the sender keeps queued before it drops some.
    pub reqq: Option<u32>,
    /// `metadata_size`: bytes of the info dictionary (BEP 9).
    pub metadata_size: Option<u32>,
    /// `upload_only`: the sender downloads nothing more (BEP 21).
    pub upload_only: Option<bool>,
    /// `p`: the port on which the sender listens.
    pub port: Option<u16>,
    /// `yourip`: the receiver's address as the sender sees it.
    pub your_ip: Option<IpAddr>,
}

impl<'a> ExtensionHandshake<'a> {
    /// Reads a payload. Keys that are unknown, of the wrong kind or out of range are passed over, as is data behind
    /// the dictionary, since clients in the wild send all of these.
    ///
    /// # Errors
    /// Bencoding that is malformed or longer than [`HANDSHAKE_BYTES_MAX`]; a value that is no dictionary reads as an
    /// empty one.
    pub fn parse(payload: &'a [u8]) -> Result<Self, bencode::Error> {
        let (value, _) = Decoder::new(LIMITS).decode_prefix(payload)?;
        let Some(dict) = value.as_dict() else { return Ok(Self::default()) };
        let m = dict.get("m").and_then(Value::as_dict);
        let extension_id = |name| m.and_then(|m| integer(m, name));
        let client = dict.get("v").and_then(Value::as_bytes).unwrap_or_default();
        Ok(Self {
            ids: ExtensionIds {
                ut_metadata: extension_id("ut_metadata"),
                ut_pex: extension_id("ut_pex"),
                upload_only: extension_id("upload_only"),
                lt_donthave: extension_id("lt_donthave"),
            },
            client: client.get(..CLIENT_BYTES_MAX).unwrap_or(client),
            reqq: integer(dict, "reqq"),
            metadata_size: integer(dict, "metadata_size"),
            upload_only: dict.get("upload_only").and_then(Value::as_int).map(|said| said != 0),
            port: integer(dict, "p"),
            your_ip: dict.get("yourip").and_then(Value::as_bytes).and_then(address),
        })
    }

    /// Writes the payload to the front of `out` and returns its length; 512 bytes are always enough.
    ///
    /// # Errors
    /// [`NoRoom`] when `out` is too short.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let mut to = Writer::new(out);
        to.text(format_args!("d1:md"))?;
        for (name, id) in self.ids.named() {
            put_integer(&mut to, name, id)?;
        }
        to.text(format_args!("e"))?;
        put_integer(&mut to, "metadata_size", self.metadata_size)?;
        put_integer(&mut to, "p", self.port)?;
        put_integer(&mut to, "reqq", self.reqq)?;
        put_integer(&mut to, "upload_only", self.upload_only.map(u8::from))?;
        if !self.client.is_empty() {
            put_bytes(&mut to, "v", self.client.get(..CLIENT_BYTES_MAX).unwrap_or(self.client))?;
        }
        match self.your_ip.map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(v4)) => put_bytes(&mut to, "yourip", &v4.octets())?,
            Some(IpAddr::V6(v6)) => put_bytes(&mut to, "yourip", &v6.octets())?,
            None => {}
        }
        to.text(format_args!("e"))?;
        Ok(to.used())
    }
}

fn integer<T: TryFrom<i64>>(dict: &Dict<'_>, key: &str) -> Option<T> {
    dict.get(key).and_then(Value::as_int).and_then(|int| T::try_from(int).ok())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|v4| IpAddr::V4(Ipv4Addr::from(v4)));
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|v6| IpAddr::V6(Ipv6Addr::from(v6)))).ok()
}

fn put_integer(to: &mut Writer<'_>, key: &str, value: Option<impl std::fmt::Display>) -> Result<(), NoRoom> {
    value.map_or(Ok(()), |value| to.text(format_args!("{}:{key}i{value}e", key.len())))
}

fn put_bytes(to: &mut Writer<'_>, key: &str, value: &[u8]) -> Result<(), NoRoom> {
    to.text(format_args!("{}:{key}{}:", key.len(), value.len()))?;
    to.bytes(value)
}

/// The payload of an `upload_only` message (BEP 21, as libtorrent sends it): one byte.
#[must_use]
pub fn upload_only(said: bool) -> [u8; 1] {
    [u8::from(said)]
}

/// Reads an `upload_only` payload; `None` when it is not one byte.
#[must_use]
pub fn parse_upload_only(payload: &[u8]) -> Option<bool> {
    match payload {
        [said] => Some(*said != 0),
        _ => None,
    }
}

/// The payload of an `lt_donthave` message (BEP 54): the piece that the sender no longer has.
#[must_use]
pub fn lt_donthave(piece: u32) -> [u8; 4] {
    piece.to_be_bytes()
}

/// Reads an `lt_donthave` payload; `None` when it is not a piece index.
#[must_use]
pub fn parse_lt_donthave(mut payload: &[u8]) -> Option<u32> {
    take_u32(&mut payload).filter(|_| payload.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> ExtensionHandshake<'static> {
        ExtensionHandshake {
            ids: ExtensionIds::OURS,
            client: b"Millrace 0.1",
            reqq: Some(500),
            metadata_size: Some(34_256),
            upload_only: Some(true),
            port: Some(6881),
            your_ip: Some("192.0.2.1".parse().unwrap()),
        }
    }

    #[track_caller]
    fn check(payload: &[u8], expected: ExtensionHandshake<'_>) {
        assert_eq!(ExtensionHandshake::parse(payload), Ok(expected));
    }

    #[test]
    fn what_is_written_is_canonical_and_reads_back() {
        for handshake in [
            full(),
            ExtensionHandshake::default(),
            ExtensionHandshake {
                your_ip: Some("2001:db8::1".parse().unwrap()),
                client: &[0xff; CLIENT_BYTES_MAX],
                ..full()
            },
        ] {
            let mut out = [0; 512];
            let length = handshake.encode(&mut out).unwrap();
            assert!(bencode::decode_canonical(&out[..length]).is_ok());
            check(&out[..length], handshake);
            assert_eq!(handshake.encode(&mut out[..length - 1]), Err(NoRoom));
        }
    }

    #[test]
    fn odd_values_are_passed_over() {
        let nothing = ExtensionHandshake::default();
        check(b"de", nothing);
        check(b"le", nothing);
        check(b"d1:mi3e1:pi65536e4:reqqi-1e1:vi1e6:yourip3:abce", nothing);
        check(b"d1:md11:ut_metadatai256e7:unknowni7eee and more", nothing);
        let metadata = ExtensionIds { ut_metadata: Some(3), ..ExtensionIds::default() };
        check(b"d1:md11:ut_metadatai3eee", ExtensionHandshake { ids: metadata, ..nothing });
        assert!(ExtensionHandshake::parse(b"d1:m").is_err());
        let long = [b"d1:v9000:".as_slice(), &[b'x'; 9000], b"e"].concat();
        assert!(ExtensionHandshake::parse(&long).is_err());
    }

    #[test]
    fn a_further_handshake_changes_what_it_names() {
        let ids = ExtensionIds { ut_metadata: Some(3), upload_only: Some(4), ..ExtensionIds::default() };
        let later = ExtensionIds { upload_only: Some(0), lt_donthave: Some(7), ..ExtensionIds::default() };
        let expected = ExtensionIds { ut_metadata: Some(3), lt_donthave: Some(7), ..later };
        assert_eq!(ids.updated(later), expected);
    }

    #[test]
    fn small_messages_have_one_shape() {
        assert_eq!(parse_upload_only(&upload_only(true)), Some(true));
        assert_eq!((parse_upload_only(&[0]), parse_upload_only(&[])), (Some(false), None));
        assert_eq!(parse_lt_donthave(&lt_donthave(258)), Some(258));
        assert_eq!((parse_lt_donthave(&[0; 3]), parse_lt_donthave(&[0; 5])), (None, None));
    }
}
