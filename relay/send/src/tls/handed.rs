//! A connection whose records the kernel makes: what is received is still opened here, by rustls' decrypters; and when its keys are used up.

use std::io;
use std::os::fd::BorrowedFd;

use rustls::crypto::cipher::{InboundOpaqueMessage, MessageDecrypter, Tls13AeadAlgorithm};
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion, SupportedCipherSuite,
    Tls13CipherSuite,
};

use super::kernel;
use super::session::RECORD_BYTES_MAX;
use crate::sender::{End, Progress};

/// Type, version, length (RFC 8446 §5.1).
const HEADER_BYTES: usize = 5;

/// What a record has at most behind its header (RFC 8446 §5.2).
const SEALED_BYTES_MAX: usize = RECORD_BYTES_MAX + 256;

/// Changes of the peer's keys without payload between them. Each is computation, and nobody needs more than one.
const UPDATES_MAX: u32 = 32;

const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// What came of the records that were received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The peer may say more.
    Open,
    /// It said that it will send no more.
    Closed,
}

/// The receiving half of a connection, and what there is to know of the other.
pub(super) struct Handed {
    /// Gives the peer's next keys.
    connection: KernelConnection<ServerConnectionData>,
    aead: &'static dyn Tls13AeadAlgorithm,
    decrypter: Box<dyn MessageDecrypter>,
    /// Number of the next record.
    sequence: u64,
    updates: u32,
    wear: Wear,
    /// The engine was told that this is the peer's end.
    is_over: bool,
    /// What the peer is still to be told.
    alert: Option<[u8; 2]>,
}

impl Handed {
    /// Goes on with what rustls knows of the connection. `received` is what the peer encrypts by, from the record of that number on.
    pub(super) fn new(
        connection: KernelConnection<ServerConnectionData>,
        received: (u64, ConnectionTrafficSecrets),
    ) -> Option<Self> {
        let SupportedCipherSuite::Tls13(Tls13CipherSuite { aead_alg: aead, common, .. }) =
            connection.negotiated_cipher_suite()
        else {
            return None;
        };
        let (sequence, secrets) = received;
        Some(Handed {
            connection,
            aead: *aead,
            decrypter: decrypter(*aead, secrets)?,
            sequence,
            updates: 0,
            wear: Wear::new(common.confidentiality_limit),
            is_over: false,
            alert: None,
        })
    }

    /// Takes whole records out of `incoming`, and appends their payload to `plain`. An error is what the peer is to be told.
    pub(super) fn open(
        &mut self,
        incoming: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<Heard, AlertDescription> {
        let (mut start, mut heard) = (0, Heard::Open);
        while heard == Heard::Open
            && let Some((kind, bytes)) = header(&incoming[start..])?
            && let Some(sealed) = incoming[start + HEADER_BYTES..].get_mut(..bytes)
        {
            let message = InboundOpaqueMessage::new(kind, ProtocolVersion::TLSv1_2, sealed);
            let record = self.decrypter.decrypt(message, self.sequence).map_err(|error| alert_of(&error))?;
            self.sequence += 1;
            start += HEADER_BYTES + bytes;
            match (record.typ, record.payload) {
                (ContentType::ApplicationData, payload) => {
                    self.updates = 0;
                    // The peer was promised nothing more, as far as it knows by then.
                    if !self.is_over {
                        plain.extend_from_slice(payload);
                    }
                }
                // A close; what others there are end a connection (RFC 8446 §6).
                (ContentType::Alert, [_, 0]) => heard = Heard::Closed,
                // An update of keys, which nothing else may share a record with (RFC 8446 §4.6.3, §5.1).
                (ContentType::Handshake, [24, 0, 0, 1, request @ (0 | 1)]) => {
                    self.update(*request == 1)?;
                }
                _ => return Err(AlertDescription::UnexpectedMessage),
            }
        }
        incoming.drain(..start);
        if incoming.is_empty() {
            *incoming = Vec::new();
        }
        Ok(heard)
    }

    /// The peer encrypts by its next keys, and may want the same of us, which the kernel cannot do for a connection.
    fn update(&mut self, is_asked: bool) -> Result<(), AlertDescription> {
        self.updates += 1;
        if self.updates > UPDATES_MAX {
            return Err(AlertDescription::UnexpectedMessage);
        }
        let next = self.connection.update_rx_secret();
        let (sequence, secrets) = next.map_err(|_| AlertDescription::InternalError)?;
        self.decrypter = decrypter(self.aead, secrets).ok_or(AlertDescription::InternalError)?;
        self.sequence = sequence;
        self.wear.is_asked |= is_asked;
        Ok(())
    }

    /// Whether the engine is to take this for the peer's end, once: what was asked for is still answered by the keys there are, and nothing
    /// else.
    pub(super) fn ends(&mut self) -> bool {
        self.wear.is_worn() && !std::mem::replace(&mut self.is_over, true)
    }

    /// Whether nothing more may be encrypted by its keys.
    pub(super) fn is_spent(&self) -> bool {
        self.wear.is_spent()
    }

    /// The kernel took so much payload, in so many pieces.
    pub(super) fn note_sent(&mut self, pieces: usize, bytes: u64) {
        self.wear.note(pieces, bytes);
    }

    /// Nothing follows what was sent.
    pub(super) fn close(&mut self) {
        self.alert.get_or_insert([WARNING, AlertDescription::CloseNotify.into()]);
    }

    /// What was received is nothing that this peer may send.
    pub(super) fn refuse(&mut self, alert: AlertDescription) {
        self.alert = Some([FATAL, alert.into()]);
    }

    /// Tells the peer what there is to tell it. The socket is not shut down behind that: what the kernel has encrypted and has no room
    /// for would be lost, and a close that the peer can tell from a cut needs no other end.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) -> Progress {
        let end = match self.alert.map_or(Ok(()), |alert| kernel::send_alert(socket, alert)) {
            Ok(()) => End::Complete,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => End::Blocked,
            Err(_) => End::Broken,
        };
        if end != End::Blocked {
            self.alert = None;
        }
        Progress { sent: 0, end }
    }
}

fn alert_of(error: &Error) -> AlertDescription {
    match error {
        Error::DecryptError => AlertDescription::BadRecordMac,
        Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
        _ => AlertDescription::UnexpectedMessage,
    }
}

/// Type and length of the record that `bytes` begin with; none where they are too few to tell.
fn header(bytes: &[u8]) -> Result<Option<(ContentType, usize)>, AlertDescription> {
    let Some(&[kind, _, _, high, low]) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let kind = ContentType::from(kind);
    let bytes = usize::from(u16::from_be_bytes([high, low]));
    if kind != ContentType::ApplicationData {
        return Err(AlertDescription::UnexpectedMessage);
    }
    if bytes > SEALED_BYTES_MAX {
        return Err(AlertDescription::RecordOverflow);
    }
    Ok(Some((kind, bytes)))
}

/// Whether `bytes` begin with a whole record.
pub(super) fn has_record(bytes: &[u8]) -> bool {
    match header(bytes) {
        Ok(Some((_, length))) => bytes.len() >= HEADER_BYTES + length,
        Ok(None) => false,
        Err(_) => true,
    }
}

fn decrypter(
    aead: &'static dyn Tls13AeadAlgorithm,
    secrets: ConnectionTrafficSecrets,
) -> Option<Box<dyn MessageDecrypter>> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Some(aead.decrypter(key, iv)),
        _ => None,
    }
}

/// How far the keys that the kernel encrypts by are used up. It is not given others: kernels before 6.14 take none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wear {
    /// Records that were made at most: where the kernel cuts is not told.
    records: u64,
    /// Records that the cipher is good for (RFC 8446 §5.5).
    records_max: u64,
    /// The peer wants others.
    is_asked: bool,
}

impl Wear {
    fn new(records_max: u64) -> Self {
        Wear { records: 0, records_max, is_asked: false }
    }

    /// Full records; one that is not for each piece; and the rest of one that was begun before.
    fn note(&mut self, pieces: usize, bytes: u64) {
        if bytes > 0 {
            self.records += bytes / RECORD_BYTES_MAX as u64 + pieces as u64 + 1;
        }
    }

    /// Whether what is asked for from here on is better asked elsewhere.
    fn is_worn(self) -> bool {
        self.is_asked || self.records >= self.records_max / 2
    }

    fn is_spent(self) -> bool {
        self.records >= self.records_max
    }
}

/// Whether so much payload can be sent by one key with room to spare.
pub(super) fn suffices(suite: &Tls13CipherSuite, bytes: u64) -> bool {
    bytes / RECORD_BYTES_MAX as u64 <= suite.common.confidentiality_limit / 4
}

#[cfg(test)]
mod tests;
