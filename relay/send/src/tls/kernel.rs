//! TLS records made by the kernel (kTLS): what it takes, and how it is told. Only for sending. What is received stays as it came, since a
//! receive may be under way, with records that nobody would have decrypted.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{TcpTlsTx, TcpUlp, TlsCryptoInfo};
use rustls::crypto::cipher::{AeadKey, Iv, NONCE_LEN};
use rustls::{CipherSuite, ConnectionTrafficSecrets};
use socket2::{MsgHdr, SockRef};
use zeroize::Zeroize;

use crate::calls;

/// What the kernel encrypts by, of all that is agreed on with clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Suites {
    aes_128: bool,
    aes_256: bool,
    chacha20: bool,
}

impl Suites {
    /// Nothing: all records are made by the relay.
    pub const NONE: Suites = Suites { aes_128: false, aes_256: false, chacha20: false };

    /// Whether it encrypts by this one. TLS 1.2 is left to the relay.
    pub(super) fn has(self, suite: CipherSuite) -> bool {
        match suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => self.aes_128,
            CipherSuite::TLS13_AES_256_GCM_SHA384 => self.aes_256,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => self.chacha20,
            _ => false,
        }
    }
}

impl fmt::Display for Suites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (self.aes_128, "AES-128-GCM"),
            (self.aes_256, "AES-256-GCM"),
            (self.chacha20, "ChaCha20-Poly1305"),
        ];
        let names: Vec<_> = names.iter().filter(|(is_taken, _)| *is_taken).map(|(_, name)| *name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(", "))
    }
}

/// Tries what the kernel encrypts by, on a connection of this process with itself for each.
///
/// # Errors
/// It encrypts by none, with the kernel's word: its module `tls` is not loaded, for the most part, or there is no such.
pub fn probe() -> io::Result<Suites> {
    let nothing = || (AeadKey::from([0; 32]), Iv::new([0; NONCE_LEN]));
    let (key, iv) = nothing();
    let aes_128 = try_out(&ConnectionTrafficSecrets::Aes128Gcm { key, iv });
    let (key, iv) = nothing();
    let aes_256 = try_out(&ConnectionTrafficSecrets::Aes256Gcm { key, iv });
    let (key, iv) = nothing();
    let chacha20 = try_out(&ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv });
    let suites = Suites { aes_128: aes_128.is_ok(), aes_256: aes_256.is_ok(), chacha20: chacha20.is_ok() };
    match aes_128.and(aes_256).and(chacha20) {
        Err(error) if suites == Suites::NONE => Err(error),
        _ => Ok(suites),
    }
}

fn try_out(secrets: &ConnectionTrafficSecrets) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    attach(socket.as_fd())?;
    set_keys(socket.as_fd(), secrets, 0)
}

/// Puts the kernel's layer onto a connected socket. Bytes go through it as they are until it has keys.
pub(super) fn attach(socket: BorrowedFd<'_>) -> io::Result<()> {
    calls::note();
    Ok(setsockopt(&socket, TcpUlp::default(), b"tls")?)
}

/// Has the kernel encrypt from here on, beginning with the record of this number. There is no way back.
pub(super) fn set_keys(
    socket: BorrowedFd<'_>,
    secrets: &ConnectionTrafficSecrets,
    sequence: u64,
) -> io::Result<()> {
    let keys = Keys::new(secrets, sequence).ok_or(Errno::EINVAL)?;
    calls::note();
    Ok(setsockopt(&socket, TcpTlsTx, &keys.0)?)
}

/// Key and nonce as the kernel wants them; forgotten when dropped.
struct Keys(TlsCryptoInfo);

impl Keys {
    /// None for a cipher that has no place here, or a key of another length.
    fn new(secrets: &ConnectionTrafficSecrets, sequence: u64) -> Option<Self> {
        let info = |cipher_type| libc::tls_crypto_info { version: libc::TLS_1_3_VERSION, cipher_type };
        let rec_seq = sequence.to_be_bytes();
        // What is one nonce in TLS 1.3 are two fields, since in 1.2 a half of it was sent along.
        Some(Keys(match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => {
                let (salt, iv) = iv.as_ref().split_first_chunk()?;
                TlsCryptoInfo::Aes128Gcm(libc::tls12_crypto_info_aes_gcm_128 {
                    info: info(libc::TLS_CIPHER_AES_GCM_128),
                    iv: iv.try_into().ok()?,
                    key: *key.as_ref().first_chunk()?,
                    salt: *salt,
                    rec_seq,
                })
            }
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
                let (salt, iv) = iv.as_ref().split_first_chunk()?;
                TlsCryptoInfo::Aes256Gcm(libc::tls12_crypto_info_aes_gcm_256 {
                    info: info(libc::TLS_CIPHER_AES_GCM_256),
                    iv: iv.try_into().ok()?,
                    key: key.as_ref().try_into().ok()?,
                    salt: *salt,
                    rec_seq,
                })
            }
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                TlsCryptoInfo::Chacha20Poly1305(libc::tls12_crypto_info_chacha20_poly1305 {
                    info: info(libc::TLS_CIPHER_CHACHA20_POLY1305),
                    iv: iv.as_ref().try_into().ok()?,
                    key: key.as_ref().try_into().ok()?,
                    salt: [],
                    rec_seq,
                })
            }
            _ => return None,
        }))
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        match &mut self.0 {
            TlsCryptoInfo::Aes128Gcm(info) => info.key.zeroize(),
            TlsCryptoInfo::Aes256Gcm(info) => info.key.zeroize(),
            TlsCryptoInfo::Chacha20Poly1305(info) => info.key.zeroize(),
        }
    }
}

/// Content type of a record with an alert (RFC 8446 §5.1).
const ALERT: u8 = 21;

/// Sends an alert behind everything that the kernel was given.
pub(super) fn send_alert(socket: BorrowedFd<'_>, alert: [u8; 2]) -> io::Result<()> {
    let (slices, control) = ([IoSlice::new(&alert)], record_type(ALERT));
    let message = MsgHdr::new().with_buffers(&slices).with_control(&control);
    loop {
        calls::note();
        match SockRef::from(&socket).sendmsg(&message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(drop),
        }
    }
}

const CONTROL_HEADER_BYTES: usize = size_of::<libc::cmsghdr>();

/// The control message that makes a record one of this type: a header, and a byte.
fn record_type(kind: u8) -> [u8; CONTROL_HEADER_BYTES + size_of::<usize>()] {
    let mut message = [0; CONTROL_HEADER_BYTES + size_of::<usize>()];
    let mut put = |at: usize, bytes: &[u8]| message[at..][..bytes.len()].copy_from_slice(bytes);
    put(0, &(CONTROL_HEADER_BYTES + 1).to_ne_bytes());
    put(std::mem::offset_of!(libc::cmsghdr, cmsg_level), &libc::SOL_TLS.to_ne_bytes());
    put(std::mem::offset_of!(libc::cmsghdr, cmsg_type), &libc::TLS_SET_RECORD_TYPE.to_ne_bytes());
    put(CONTROL_HEADER_BYTES, &[kind]);
    message
}

#[cfg(test)]
mod tests;
