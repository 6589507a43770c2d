//! Both ends in one place, with a stand-in for the kernel that encrypts by what it would be given.

use std::io::{Read, Write};
use std::sync::Arc;

use millrace_engine::ids::ConnId;
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::crypto::cipher::NONCE_LEN;
use rustls::pki_types::PrivateKeyDer;
use rustls::version::TLS13;
use rustls::{CipherSuite, ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::super::kernel::Suites;
use super::super::session::{Phase, Records, Session};
use super::*;

const SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// A client of one suite, and the server's session.
struct Pair {
    client: ClientConnection,
    session: Session,
}

impl Pair {
    /// Behind the handshake, with nothing left of it.
    fn new(suite: CipherSuite) -> Pair {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["x".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap()
            .der()
            .clone();
        let provider = || Arc::new(rustls::crypto::ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        server.enable_secret_extraction = true;
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let mut own = rustls::crypto::ring::default_provider();
        own.cipher_suites.retain(|known| known.suite() == suite);
        let client = ClientConfig::builder_with_provider(Arc::new(own))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let session = Session::new(ConnId::new(0, 0), Arc::new(server), Suites::NONE).unwrap();
        let mut pair = Pair {
            client: ClientConnection::new(Arc::new(client), "x".try_into().unwrap()).unwrap(),
            session,
        };
        while pair.client.is_handshaking() || pair.session.phase != Phase::Open {
            let said = pair.said();
            pair.session.receive(&said).unwrap();
            pair.session.advance(&mut Vec::new()).unwrap();
            pair.answer();
        }
        pair
    }

    fn said(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut said).unwrap();
        }
        said
    }

    fn ask(&mut self, payload: &[u8]) -> Vec<u8> {
        self.client.writer().write_all(payload).unwrap();
        self.said()
    }

    /// What the session has to say goes to the client. Returns how many bytes.
    fn answer(&mut self) -> usize {
        let said = self.session.outgoing.sendable(u64::MAX).to_vec();
        self.session.outgoing.take(said.len());
        self.hear(&said);
        said.len()
    }

    fn hear(&mut self, mut said: &[u8]) {
        while !said.is_empty() {
            self.client.read_tls(&mut said).unwrap();
            self.client.process_new_packets().unwrap();
        }
    }

    /// As the session would, but for the socket.
    fn hand_over(&mut self) -> Kernel {
        self.session.answer_key_update();
        self.answer();
        assert!(!has_record(&self.session.incoming));
        let Records::Relay(tls) = std::mem::replace(&mut self.session.records, Records::Nobody) else {
            panic!("it was handed over before")
        };
        let (secrets, connection) = tls.dangerous_into_kernel_connection().unwrap();
        let handed = Handed::new(connection, secrets.rx).unwrap();
        self.session.records = Records::Kernel(Box::new(handed));
        Kernel { sequence: secrets.tx.0, secrets: secrets.tx.1 }
    }

    fn open(&mut self, said: &[u8]) -> (Result<Heard, AlertDescription>, Vec<u8>) {
        let mut plain = Vec::new();
        self.session.incoming.extend_from_slice(said);
        let Records::Kernel(handed) = &mut self.session.records else { panic!("it was not handed over") };
        (handed.open(&mut self.session.incoming, &mut plain), plain)
    }

    fn handed(&mut self) -> &mut Handed {
        let Records::Kernel(handed) = &mut self.session.records else { panic!("it was not handed over") };
        handed
    }
}

/// Makes records as RFC 8446 §5.2 says.
struct Kernel {
    sequence: u64,
    secrets: ConnectionTrafficSecrets,
}

impl Kernel {
    fn seal(&mut self, payload: &[u8]) -> Vec<u8> {
        let (algorithm, key, iv) = match &self.secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&aead::CHACHA20_POLY1305, key, iv),
            _ => panic!("another cipher"),
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).unwrap());
        let mut nonce: [u8; NONCE_LEN] = iv.as_ref().try_into().unwrap();
        nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(byte, of)| *byte ^= of);
        self.sequence += 1;
        let mut sealed = [payload, &[23]].concat();
        let length = u16::try_from(sealed.len() + algorithm.tag_len()).unwrap().to_be_bytes();
        let header = [23, 3, 3, length[0], length[1]];
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(header), &mut sealed)
            .unwrap();
        [&header[..], &sealed].concat()
    }
}

#[track_caller]
fn check_answer(pair: &mut Pair, kernel: &mut Kernel, payload: &[u8]) {
    let record = kernel.seal(payload);
    pair.hear(&record);
    let mut received = vec![0; payload.len()];
    pair.client.reader().read_exact(&mut received).unwrap();
    assert_eq!(received, payload);
}

#[test]
fn either_side_goes_on_where_it_was_and_nothing_in_flight_is_lost() {
    for suite in SUITES {
        let mut pair = Pair::new(suite);
        pair.session.seal(b"made by the relay").unwrap();
        pair.answer();
        pair.client.reader().read_exact(&mut [0; 17]).unwrap();
        // A part of a record is there, the rest is on its way, and one more.
        let said = [pair.ask(b"one"), pair.ask(b"another")].concat();
        let (there, rest) = said.split_at(10);
        pair.session.receive(there).unwrap();
        pair.session.advance(&mut Vec::new()).unwrap();
        let mut kernel = pair.hand_over();
        check_answer(&mut pair, &mut kernel, b"made by the kernel");
        let mut plain = Vec::new();
        for byte in rest {
            let (heard, more) = pair.open(&[*byte]);
            assert_eq!(heard, Ok(Heard::Open));
            plain.extend(more);
        }
        assert_eq!(plain, b"oneanother");
        assert_eq!(pair.session.incoming.capacity(), 0, "nothing is held for who is idle");
        pair.client.send_close_notify();
        let said = pair.said();
        assert_eq!(pair.open(&said), (Ok(Heard::Closed), Vec::new()));
    }
}

#[test]
fn a_change_of_keys_before_it_is_answered_and_one_after_it_ends_the_connection_behind_what_was_asked() {
    for suite in SUITES {
        let mut pair = Pair::new(suite);
        pair.client.refresh_traffic_keys().unwrap();
        let said = pair.ask(b"by new keys");
        let mut plain = Vec::new();
        pair.session.receive(&said).unwrap();
        pair.session.advance(&mut plain).unwrap();
        assert_eq!(plain, b"by new keys");
        let mut kernel = pair.hand_over();
        check_answer(&mut pair, &mut kernel, b"by new keys, too");
        assert!(!pair.handed().ends());

        pair.client.refresh_traffic_keys().unwrap();
        let said = pair.ask(b"by newer ones");
        assert_eq!(pair.open(&said), (Ok(Heard::Open), b"by newer ones".to_vec()));
        check_answer(&mut pair, &mut kernel, b"by the same");
        assert!(pair.handed().ends() && !pair.handed().ends(), "it is told once");
        let said = pair.ask(b"which is too late");
        assert_eq!(pair.open(&said), (Ok(Heard::Open), Vec::new()));
        pair.client.send_close_notify();
        let said = pair.said();
        assert_eq!(pair.open(&said).0, Ok(Heard::Closed));
    }
}

#[test]
fn what_has_no_place_is_answered_by_an_alert() {
    let check = |spoil: &dyn Fn(&mut Vec<u8>), alert: AlertDescription| {
        let mut pair = Pair::new(SUITES[0]);
        pair.hand_over();
        let mut said = pair.ask(b"a request");
        spoil(&mut said);
        let (heard, plain) = pair.open(&said);
        assert_eq!((heard, plain), (Err(alert), Vec::new()));
        pair.handed().refuse(alert);
        pair.handed().close();
        assert_eq!(pair.handed().alert, Some([FATAL, alert.into()]), "a close does not take its place");
    };
    check(&|said| said[20] ^= 1, AlertDescription::BadRecordMac);
    check(&|said| said[0] = 20, AlertDescription::UnexpectedMessage);
    check(&|said| said[0] = 22, AlertDescription::UnexpectedMessage);
    check(&|said| said[3] = 0x50, AlertDescription::RecordOverflow);
    check(&|said| said.splice(.., [23, 3, 3, 0, 0]).for_each(drop), AlertDescription::BadRecordMac);
}

#[test]
fn keys_that_change_again_and_again_are_no_use_to_anybody() {
    let mut pair = Pair::new(SUITES[0]);
    pair.hand_over();
    for round in 0..=UPDATES_MAX {
        pair.client.refresh_traffic_keys().unwrap();
        let said = pair.said();
        let wanted =
            if round < UPDATES_MAX { Ok(Heard::Open) } else { Err(AlertDescription::UnexpectedMessage) };
        assert_eq!(pair.open(&said).0, wanted, "in round {round}");
    }
}

#[test]
fn keys_wear_by_records_and_the_end_comes_before_it_must() {
    let mut wear = Wear::new(100);
    wear.note(7, 0);
    assert_eq!(wear, Wear::new(100), "nothing was sent");
    // 30 full records, and at most four others.
    wear.note(3, 30 * RECORD_BYTES_MAX as u64 + 5);
    assert_eq!((wear.records, wear.is_worn(), wear.is_spent()), (34, false, false));
    wear.note(1, 14 * RECORD_BYTES_MAX as u64);
    assert_eq!((wear.records, wear.is_worn(), wear.is_spent()), (50, true, false));
    wear.note(1, 48 * RECORD_BYTES_MAX as u64);
    assert!(wear.is_spent());
    let suites = rustls::crypto::ring::default_provider().cipher_suites;
    let aes = suites.iter().find(|suite| suite.suite() == SUITES[0]).unwrap().tls13().unwrap();
    assert!(suffices(aes, 64 << 30) && !suffices(aes, 65 << 30));
}
