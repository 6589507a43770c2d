//! Sessions against a client of rustls, byte by byte, and against whatever a seed makes of what clients say.

use std::io::{Read, Write};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::*;

/// A server's configuration, and clients that trust it, one for each version.
fn configs() -> (Arc<ServerConfig>, [Arc<ClientConfig>; 2]) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate: CertificateDer<'static> =
        rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap().self_signed(&key).unwrap().der().clone();
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = |version: &'static SupportedProtocolVersion| {
        let config =
            ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
        Arc::new(config.with_root_certificates(roots.clone()).with_no_client_auth())
    };
    (Arc::new(server), [client(&TLS12), client(&TLS13)])
}

/// Both ends, with what each has said and the other has not heard.
struct Pair {
    session: Session,
    client: ClientConnection,
    plain: Vec<u8>,
}

impl Pair {
    fn new(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Pair {
        let session = Session::new(ConnId::new(0, 0), Arc::clone(server), Suites::NONE).unwrap();
        let client = ClientConnection::new(Arc::clone(client), "x".try_into().unwrap()).unwrap();
        Pair { session, client, plain: Vec::new() }
    }

    fn said_by_client(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut said).unwrap();
        }
        said
    }

    fn said_by_session(&mut self) -> Vec<u8> {
        let said = self.session.outgoing.sendable(u64::MAX).to_vec();
        self.session.outgoing.take(said.len());
        said
    }

    fn hear(&mut self, said: &[u8], step: usize) -> Result<(), Violation> {
        for piece in said.chunks(step) {
            self.session.receive(piece)?;
            self.session.advance(&mut self.plain)?;
        }
        Ok(())
    }

    /// Lets them talk until neither has anything to say, `step` bytes at a time.
    fn talk(&mut self, step: usize) {
        loop {
            let said = self.said_by_client();
            self.hear(&said, step).unwrap();
            let answer = self.said_by_session();
            if said.is_empty() && answer.is_empty() {
                return;
            }
            let mut answer = &answer[..];
            while !answer.is_empty() {
                self.client.read_tls(&mut answer).unwrap();
                self.client.process_new_packets().unwrap();
            }
        }
    }
}

#[test]
fn however_it_is_cut_a_conversation_is_the_same() {
    let (server, clients) = configs();
    for client in &clients {
        for step in [1, 7, 100_000] {
            let mut pair = Pair::new(&server, client);
            pair.client.writer().write_all(b"a request").unwrap();
            pair.talk(step);
            assert_eq!((pair.session.phase, &pair.plain[..]), (Phase::Open, &b"a request"[..]));
            assert_eq!(pair.session.incoming.capacity(), 0, "nothing is held for who is idle");
            let payload: Vec<u8> = (0..=255).cycle().take(RECORD_BYTES_MAX).collect();
            pair.session.seal(&payload).unwrap();
            pair.session.end();
            pair.talk(step);
            let mut received = Vec::new();
            pair.client.reader().read_to_end(&mut received).unwrap();
            assert!(received == payload, "a clean end behind all of it");
            pair.client.send_close_notify();
            pair.talk(step);
            assert!(pair.session.has_ended);
        }
    }
}

#[test]
fn a_client_that_changes_its_keys_is_followed() {
    let (server, [_, client]) = configs();
    let mut pair = Pair::new(&server, &client);
    pair.talk(1000);
    for round in 0..3_u8 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.client.writer().write_all(&[round]).unwrap();
        pair.talk(1000);
        pair.session.seal(&[round]).unwrap();
        pair.talk(1000);
        let mut received = [9];
        pair.client.reader().read_exact(&mut received).unwrap();
        assert_eq!((received, pair.plain.last()), ([round], Some(&round)));
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % bound
    }

    /// Changes, drops, repeats or invents bytes.
    fn spoil(&mut self, said: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let (at, byte) = (self.below(said.len().max(1)), u8::try_from(self.below(256)).unwrap());
            match self.below(5) {
                _ if said.is_empty() => said.push(byte),
                0 => said.truncate(at),
                1 => said.insert(at, byte),
                2 => said.extend_from_within(at..),
                3 => said[at] ^= 1 << self.below(8),
                _ => said[at] = byte,
            }
        }
    }
}

#[test]
fn nothing_that_a_client_says_is_a_panic() {
    let (server, clients) = configs();
    let (mut opened, mut refused) = (0, 0);
    for seed in 1..=600 {
        let mut random = Random(seed);
        let mut pair = Pair::new(&server, &clients[random.below(2)]);
        let spoilt = random.below(4);
        for round in 0..4 {
            if round > 1 && !pair.client.is_handshaking() {
                let _ = pair.client.writer().write_all(b"GET / HTTP/1.1\r\n\r\n");
            }
            let mut said = pair.said_by_client();
            if round == spoilt {
                random.spoil(&mut said);
            }
            let step = 1 + random.below(400);
            if pair.hear(&said, step).is_err() {
                refused += 1;
                pair.session.refuse();
                break;
            }
            let answer = pair.said_by_session();
            if pair.client.read_tls(&mut &answer[..]).is_err() || pair.client.process_new_packets().is_err() {
                break;
            }
        }
        opened += usize::from(pair.session.has_been_open);
        // Whatever it was, the end can be said.
        pair.session.end();
    }
    assert!(opened > 100 && refused > 100, "{opened} opened and {refused} refused: not much was tried");
}

#[test]
fn what_makes_no_record_is_not_collected_for_ever() {
    let (server, [_, client]) = configs();
    let mut pair = Pair::new(&server, &client);
    // The beginning of a message of 64 KiB, in records that are whole.
    let mut record = vec![22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
    record.resize(5 + 0x4000, 0);
    let mut heard = Ok(());
    for _ in 0..20 {
        heard = heard.and_then(|()| pair.hear(&record, record.len()));
    }
    assert_eq!(heard, Err(Violation));
}

#[test]
fn the_words_for_plain_http_are_as_long_as_they_say() {
    let (head, body) = PLAIN_HTTP.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
}
