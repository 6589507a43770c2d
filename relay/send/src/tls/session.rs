//! The records of one connection: what came in, decrypted; what goes out, encrypted; and the handshake before either. No socket.

use std::fmt;
use std::sync::Arc;

use millrace_engine::ids::ConnId;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};
use rustls::{HandshakeKind, ServerConfig};

use super::handed::{Handed, Heard};
use super::kernel::Suites;
use super::outgoing::Outgoing;

/// Most payload of a record (RFC 8446 §5.1).
pub(super) const RECORD_BYTES_MAX: usize = 16 * 1024;

/// What a record takes besides its payload: more than any version and cipher needs.
const OVERHEAD_BYTES_MAX: usize = 64;

/// Bytes received that make no whole record or message yet: a handshake message has at most 64 KiB, and what comes behind it is little.
const INCOMING_BYTES_MAX: usize = 96 * 1024;

/// What those are told who forgot the `s`.
const PLAIN_HTTP: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 61\r\nConnection: close\r\n\r\n\
                          This port speaks HTTPS: begin the URL with https:// instead.\n";

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing was looked at yet.
    Greeting,
    Handshake,
    /// Requests and answers.
    Open,
    /// It has been told why not: what still comes is dropped until it goes, so that it can read that.
    Refused,
}

/// The other end broke the protocol, or cannot be agreed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Violation;

/// Who makes the records of what is sent.
pub(super) enum Records {
    /// rustls, here.
    Relay(Box<UnbufferedServerConnection>),
    /// The kernel.
    Kernel(Box<Handed>),
    /// Nobody any more: the kernel did not take what was on its way to it.
    Nobody,
}

/// One connection.
pub(super) struct Session {
    pub(super) conn: ConnId,
    pub(super) records: Records,
    /// What the kernel may be asked to encrypt by.
    pub(super) kernel: Suites,
    pub(super) phase: Phase,
    /// Its handshake was finished, whatever came later.
    pub(super) has_been_open: bool,
    /// In the line of those whose handshake goes on.
    pub(super) is_waiting: bool,
    /// Received, and not a whole record yet or not looked at.
    pub(super) incoming: Vec<u8>,
    pub(super) outgoing: Outgoing,
    /// The peer said that it will send no more, or its end came.
    pub(super) has_ended: bool,
    /// Nothing follows what is sealed: the socket is shut down behind it.
    pub(super) is_last: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("conn", &self.conn)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(conn: ConnId, config: Arc<ServerConfig>, kernel: Suites) -> Option<Self> {
        Some(Session {
            conn,
            records: Records::Relay(Box::new(UnbufferedServerConnection::new(config).ok()?)),
            kernel,
            phase: Phase::Greeting,
            has_been_open: false,
            is_waiting: false,
            incoming: Vec::new(),
            outgoing: Outgoing::default(),
            has_ended: false,
            is_last: false,
        })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        matches!(self.phase, Phase::Greeting | Phase::Handshake)
    }

    pub(super) fn is_resumed(&self) -> bool {
        matches!(&self.records, Records::Relay(tls) if tls.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// Queues what was received for [`advance`](Self::advance).
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.incoming.extend_from_slice(bytes);
        if self.incoming.len() > INCOMING_BYTES_MAX { Err(Violation) } else { Ok(()) }
    }

    /// Whether what came first is HTTP in plain.
    pub(super) fn is_plain_http(&self) -> bool {
        let method = self.incoming.iter().take(3);
        self.phase == Phase::Greeting
            && method.len() > 0
            && method.copied().all(|byte| byte.is_ascii_uppercase())
    }

    /// Tells a client that speaks plain HTTP what it should do, in its own language.
    pub(super) fn refuse_plain_http(&mut self) {
        self.outgoing.push_plain(PLAIN_HTTP.as_bytes());
        self.refuse();
    }

    /// What is sealed, an alert perhaps, is all that it gets.
    pub(super) fn refuse(&mut self) {
        self.phase = Phase::Refused;
        self.incoming = Vec::new();
        self.is_last = true;
    }

    /// Takes whole records out of what was received: payload is appended to `plain`, answers of the protocol itself are sealed.
    pub(super) fn advance(&mut self, plain: &mut Vec<u8>) -> Result<(), Violation> {
        if let Records::Kernel(_) = self.records {
            return self.open(plain);
        }
        let advanced = self.advance_until_blocked(plain);
        if advanced.is_err() {
            self.seal_alert();
        }
        advanced
    }

    /// What the kernel encrypts for is decrypted here.
    fn open(&mut self, plain: &mut Vec<u8>) -> Result<(), Violation> {
        let Records::Kernel(handed) = &mut self.records else { return Err(Violation) };
        // Behind a close nothing counts.
        if self.has_ended {
            self.incoming = Vec::new();
            return Ok(());
        }
        match handed.open(&mut self.incoming, plain) {
            Ok(heard) => {
                self.has_ended = heard == Heard::Closed;
                Ok(())
            }
            Err(alert) => {
                handed.refuse(alert);
                Err(Violation)
            }
        }
    }

    /// Whether the engine is to take what was received for the peer's end, although it is none: the kernel cannot go on for long.
    pub(super) fn is_spent(&mut self) -> bool {
        if let Records::Kernel(handed) = &mut self.records { handed.ends() } else { false }
    }

    fn advance_until_blocked(&mut self, plain: &mut Vec<u8>) -> Result<(), Violation> {
        if self.phase == Phase::Greeting {
            self.phase = Phase::Handshake;
        }
        let Records::Relay(tls) = &mut self.records else { return Err(Violation) };
        loop {
            let UnbufferedStatus { discard, state } = tls.process_tls_records(&mut self.incoming);
            let goes_on = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        plain.extend_from_slice(record.payload);
                    }
                    Ok(true)
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    encode(data, &mut self.outgoing);
                    Ok(true)
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Ok(true)
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.has_ended = true;
                    Ok(true)
                }
                Ok(ConnectionState::WriteTraffic(_)) => {
                    self.phase = Phase::Open;
                    self.has_been_open = true;
                    Ok(false)
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => Ok(false),
                // Early data is not offered.
                Ok(_) | Err(_) => Err(Violation),
            };
            self.incoming.drain(..discard);
            if !goes_on? {
                if self.incoming.is_empty() {
                    self.incoming = Vec::new();
                }
                return Ok(());
            }
        }
    }

    /// After a violation rustls has an alert for the peer. It must not be shown what it has refused again: it would panic.
    fn seal_alert(&mut self) {
        let Records::Relay(tls) = &mut self.records else { return };
        while tls.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(data)) = tls.process_tls_records(&mut []).state
        {
            encode(data, &mut self.outgoing);
        }
    }

    /// Encrypts one record.
    pub(super) fn seal(&mut self, payload: &[u8]) -> Result<(), Violation> {
        debug_assert!(payload.len() <= RECORD_BYTES_MAX, "{} bytes are no record", payload.len());
        let Records::Relay(tls) = &mut self.records else { return Err(Violation) };
        let state = tls.process_tls_records(&mut self.incoming).state;
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = state else { return Err(Violation) };
        let mut room = payload.len() + OVERHEAD_BYTES_MAX;
        loop {
            match traffic.encrypt(payload, self.outgoing.room(room)) {
                Ok(bytes) => {
                    self.outgoing.push(payload.len(), bytes);
                    return Ok(());
                }
                // An answer to a change of keys goes before it.
                Err(EncryptError::InsufficientSize(need)) => room = need.required_size,
                Err(EncryptError::EncryptExhausted) => return Err(Violation),
            }
        }
    }

    /// Says that nothing follows, so that the peer can tell the end from a cut (RFC 8446 §6.1).
    pub(super) fn end(&mut self) {
        if std::mem::replace(&mut self.is_last, true) || self.phase != Phase::Open {
            return;
        }
        match &mut self.records {
            Records::Relay(tls) => {
                if let Ok(ConnectionState::WriteTraffic(mut traffic)) =
                    tls.process_tls_records(&mut self.incoming).state
                    && let Ok(bytes) = traffic.queue_close_notify(self.outgoing.room(OVERHEAD_BYTES_MAX))
                {
                    self.outgoing.push(0, bytes);
                }
            }
            Records::Kernel(handed) => handed.close(),
            Records::Nobody => {}
        }
    }
}

fn encode(mut data: EncodeTlsData<'_, ServerConnectionData>, outgoing: &mut Outgoing) {
    let mut room = 4096;
    loop {
        match data.encode(outgoing.room(room)) {
            Ok(bytes) => return outgoing.push(0, bytes),
            Err(EncodeError::InsufficientSize(need)) => room = need.required_size,
            Err(EncodeError::AlreadyEncoded) => return,
        }
    }
}

#[cfg(test)]
mod tests;
