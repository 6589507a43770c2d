//! When the kernel takes over what a connection sends, and what is counted then.

use std::os::fd::BorrowedFd;

use millrace_engine::ids::ConnId;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::ConnectionState;

use super::handed::{Handed, has_record, suffices};
use super::kernel::{self, Suites};
use super::session::{Phase, Records, Session};
use super::terms::KernelEnd;
use super::{Layer, find, sending};

/// Outputs of fewer bytes are no reason to ask the kernel: making its state costs more than encrypting them.
const OUTPUT_BYTES_MIN: u64 = 64 * 1024;

/// Who encrypts what a connection sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sealer {
    Relay,
    /// Payload goes into the socket as it is.
    Kernel,
    /// Nothing can be sent any more.
    Nobody,
}

impl Layer {
    /// Who encrypts what this connection sends, none where nobody is to. From an output on that is worth it that is the kernel, where
    /// it can. To be asked when nothing is left of what was encrypted before.
    pub(crate) fn sealer(
        &mut self,
        conn: ConnId,
        socket: BorrowedFd<'_>,
        output_bytes: u64,
    ) -> Option<Sealer> {
        let session = find(&mut self.sessions, conn)?;
        if output_bytes >= OUTPUT_BYTES_MIN
            && let Some(end) = session.hand_over(socket, output_bytes)
            && let Some(terms) = &self.terms
        {
            terms.note_kernel(end);
        }
        Some(match &session.records {
            Records::Relay(_) => Sealer::Relay,
            Records::Kernel(handed) if handed.is_spent() => Sealer::Nobody,
            Records::Kernel(_) => Sealer::Kernel,
            Records::Nobody => Sealer::Nobody,
        })
    }

    /// The kernel took so much payload of this connection, in so many pieces.
    pub(crate) fn note_sent(&mut self, conn: ConnId, pieces: usize, bytes: u64) {
        let session = find(&mut self.sessions, conn);
        if let Some(Session { records: Records::Kernel(handed), .. }) = session {
            handed.note_sent(pieces, bytes);
        }
    }
}

impl Session {
    /// Lets the kernel make the records from here on, where it can. None where nothing came of it.
    fn hand_over(&mut self, socket: BorrowedFd<'_>, output_bytes: u64) -> Option<KernelEnd> {
        let Records::Relay(tls) = &self.records else { return None };
        let suite = tls.negotiated_cipher_suite().filter(|suite| self.kernel.has(suite.suite()))?.tls13()?;
        // A message of the handshake that is there in part is with rustls.
        if self.phase != Phase::Open || !suffices(suite, output_bytes) || has_record(&self.incoming) {
            return None;
        }
        self.answer_key_update();
        if sending::flush(self, socket, 0).end != crate::sender::End::Complete || !self.outgoing.is_empty() {
            return None;
        }
        // What does not work is tried once.
        self.kernel = Suites::NONE;
        if kernel::attach(socket).is_err() {
            return Some(KernelEnd::Refused);
        }
        let Records::Relay(tls) = std::mem::replace(&mut self.records, Records::Nobody) else { return None };
        match take_over(*tls, socket) {
            Some(handed) => {
                self.records = Records::Kernel(Box::new(handed));
                Some(KernelEnd::Taken)
            }
            None => Some(KernelEnd::Lost),
        }
    }

    /// A peer that wants us to change keys is told so in the next record that rustls makes. There may be none: it is told now. Into no room
    /// nothing is encrypted, but what goes before it is queued.
    pub(super) fn answer_key_update(&mut self) {
        let Records::Relay(tls) = &mut self.records else { return };
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) =
            tls.process_tls_records(&mut self.incoming).state
        {
            let _no_room = traffic.encrypt(&[0], &mut []);
        }
        // What was queued is sealed as any answer of the protocol. There is no whole record that payload could come of.
        let _ = self.advance(&mut Vec::new());
    }
}

fn take_over(tls: UnbufferedServerConnection, socket: BorrowedFd<'_>) -> Option<Handed> {
    let (secrets, connection) = tls.dangerous_into_kernel_connection().ok()?;
    let (sequence, sent) = secrets.tx;
    kernel::set_keys(socket, &sent, sequence).ok()?;
    Handed::new(connection, secrets.rx)
}
