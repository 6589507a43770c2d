//! What the kernel is given, byte by byte: nobody here can ask it.

use super::*;

/// Keys of a server's application data in RFC 8448 §3.
const KEY: [u8; 16] =
    [0x9f, 0x02, 0x28, 0x3b, 0x6c, 0x9c, 0x07, 0xef, 0xc2, 0x6b, 0xb9, 0xf2, 0xac, 0x92, 0xe3, 0x56];
const NONCE: [u8; NONCE_LEN] = [0xcf, 0x78, 0x2b, 0x88, 0xdd, 0x83, 0x54, 0x9a, 0xad, 0xf1, 0xe9, 0x84];

/// The first one, and as many others as the longest key has.
fn key() -> AeadKey {
    let mut key = [0x55; 32];
    key[..KEY.len()].copy_from_slice(&KEY);
    AeadKey::from(key)
}

fn check(
    secrets: &ConnectionTrafficSecrets,
    read: impl Fn(&TlsCryptoInfo) -> Option<Vec<u8>>,
    wanted: &[&[u8]],
) {
    let keys = Keys::new(secrets, 0x0102_0304).unwrap();
    assert_eq!(read(&keys.0).unwrap(), wanted.concat());
}

#[test]
fn keys_lie_where_the_kernel_looks_for_them() {
    // Version, cipher, nonce or its end, key, begin of the nonce, number of the record (linux/tls.h).
    let (version, iv) = (0x0304_u16.to_ne_bytes(), || Iv::new(NONCE));
    let (number, long) = ([0, 0, 0, 0, 1, 2, 3, 4], [&KEY[..], &[0x55; 16]].concat());
    let aes_128 = |info: &TlsCryptoInfo| match info {
        TlsCryptoInfo::Aes128Gcm(info) => {
            Some(fields(info.info, [&info.iv, &info.key, &info.salt, &info.rec_seq]))
        }
        _ => None,
    };
    let aes_256 = |info: &TlsCryptoInfo| match info {
        TlsCryptoInfo::Aes256Gcm(info) => {
            Some(fields(info.info, [&info.iv, &info.key, &info.salt, &info.rec_seq]))
        }
        _ => None,
    };
    let chacha20 = |info: &TlsCryptoInfo| match info {
        TlsCryptoInfo::Chacha20Poly1305(info) => {
            Some(fields(info.info, [&info.iv, &info.key, &info.salt, &info.rec_seq]))
        }
        _ => None,
    };
    let secrets = ConnectionTrafficSecrets::Aes128Gcm { key: key(), iv: iv() };
    check(&secrets, aes_128, &[&version, &51_u16.to_ne_bytes(), &NONCE[4..], &KEY, &NONCE[..4], &number]);
    let secrets = ConnectionTrafficSecrets::Aes256Gcm { key: key(), iv: iv() };
    check(&secrets, aes_256, &[&version, &52_u16.to_ne_bytes(), &NONCE[4..], &long, &NONCE[..4], &number]);
    let secrets = ConnectionTrafficSecrets::Chacha20Poly1305 { key: key(), iv: iv() };
    check(&secrets, chacha20, &[&version, &54_u16.to_ne_bytes(), &NONCE, &long, &number]);
}

fn fields(info: libc::tls_crypto_info, rest: [&[u8]; 4]) -> Vec<u8> {
    [&info.version.to_ne_bytes()[..], &info.cipher_type.to_ne_bytes(), &rest.concat()].concat()
}

#[test]
fn a_record_of_another_type_is_asked_for_by_a_control_message() {
    // struct cmsghdr of 64 bits: its length, level SOL_TLS, type TLS_SET_RECORD_TYPE; then the type, and padding.
    let mut wanted =
        [&17_u64.to_ne_bytes()[..], &282_i32.to_ne_bytes(), &1_i32.to_ne_bytes(), &[21]].concat();
    wanted.resize(24, 0);
    assert_eq!(record_type(ALERT).as_slice(), wanted);
}

#[test]
fn what_the_kernel_lacks_is_not_asked_of_it() {
    let suites = Suites { aes_128: true, ..Suites::NONE };
    assert!(suites.has(CipherSuite::TLS13_AES_128_GCM_SHA256));
    assert!(!suites.has(CipherSuite::TLS13_AES_256_GCM_SHA384));
    // The same cipher in TLS 1.2.
    assert!(!suites.has(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256));
    assert_eq!((suites.to_string(), Suites::NONE.to_string()), ("AES-128-GCM".into(), "none".into()));
}

#[test]
fn the_probe_says_what_there_is_or_why_there_is_nothing() {
    match probe() {
        Ok(suites) => assert_ne!(suites, Suites::NONE),
        Err(error) => assert!(error.raw_os_error().is_some(), "{error}"),
    }
}
