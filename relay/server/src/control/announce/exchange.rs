//! One announce to one tracker, over HTTP or UDP. Every wait and every answer is bounded; trackers that a stranger named may only be
//! at public addresses.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millrace_proto::tracker::AnnounceEvent;
use millrace_proto::tracker::compact::Family;
use millrace_proto::tracker::http::AnnounceRequest;
use millrace_proto::tracker::response::{ANSWER_BYTES_MAX, ResponseError, parse_announce};
use millrace_proto::tracker::udp::{Announce, Answer, Ask, Request};
use reqwest::redirect::Policy;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::UdpSocket;
use url::Url;

use crate::ingest::client::{ClientConfig, ClientError, tls_config};
use crate::ingest::guard::{self, GuardError, PublicResolver};

/// For one HTTP announce, from the name to the last byte.
const HTTP_TIMEOUT: Duration = Duration::from_secs(20);
/// Waits for an answer over UDP; BEP 15 begins with 15 seconds and doubles.
const UDP_WAITS: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(30)];
const REDIRECTS_MAX: usize = 5;

/// What a tracker is told besides names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Report {
    pub(super) uploaded: u64,
    pub(super) left: u64,
    pub(super) event: AnnounceEvent,
}

/// Why an announce failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("not a tracker's URL")]
    Url,
    #[error(transparent)]
    Guard(#[from] GuardError),
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("status {0}")]
    Status(u16),
    #[error(transparent)]
    Response(#[from] ResponseError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("no answer")]
    Silent,
    #[error("the tracker refuses: {0}")]
    Refused(String),
}

/// The clients, and who we are.
#[derive(Debug)]
pub(super) struct Exchange {
    /// For trackers on hosts that the operator named.
    trusted: reqwest::Client,
    /// For all others.
    guarded: reqwest::Client,
    peer_id: [u8; 20],
    port: u16,
    key: u32,
    random: SystemRandom,
    stopping: AtomicBool,
}

impl Exchange {
    pub(super) fn new(peer_id: [u8; 20], port: u16) -> Result<Self, ClientError> {
        let tls = tls_config(&ClientConfig::default())?;
        let builder = || {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .timeout(HTTP_TIMEOUT)
                .user_agent(concat!("millrace/", env!("CARGO_PKG_VERSION")))
        };
        let checked = Policy::custom(|attempt| {
            if attempt.previous().len() > REDIRECTS_MAX {
                return attempt.error("too many redirects");
            }
            match guard::check_literal(attempt.url()) {
                Ok(()) => attempt.follow(),
                Err(error) => attempt.error(error),
            }
        });
        let random = SystemRandom::new();
        Ok(Exchange {
            // A named host is trusted for itself, not for where it sends us.
            trusted: builder().redirect(Policy::none()).no_proxy().build()?,
            guarded: builder().redirect(checked).no_proxy().dns_resolver(PublicResolver).build()?,
            peer_id,
            port,
            key: random_u32(&random),
            random,
            stopping: AtomicBool::new(false),
        })
    }

    /// From now on only farewells are sent.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Announces, and tells how long the tracker wants to be left alone.
    pub(super) async fn announce(
        &self,
        tracker: &str,
        infohash: [u8; 20],
        report: &Report,
        trusted: bool,
    ) -> Result<Duration, ExchangeError> {
        let url = Url::parse(tracker).map_err(|_| ExchangeError::Url)?;
        if !trusted {
            guard::check_literal(&url)?;
        }
        match url.scheme() {
            "http" | "https" => self.over_http(tracker, infohash, report, trusted).await,
            "udp" => self.over_udp(&url, infohash, report, trusted).await,
            _ => Err(ExchangeError::Url),
        }
    }

    async fn over_http(
        &self,
        tracker: &str,
        infohash: [u8; 20],
        report: &Report,
        trusted: bool,
    ) -> Result<Duration, ExchangeError> {
        let key = format!("{:08x}", self.key);
        let request = AnnounceRequest {
            infohash,
            peer_id: self.peer_id,
            port: self.port,
            uploaded: report.uploaded,
            downloaded: 0,
            left: report.left,
            event: report.event,
            // Others call this relay; it calls nobody yet.
            numwant: Some(0),
            compact_refused: false,
            key: &key,
            trackerid: "",
        };
        let client = if trusted { &self.trusted } else { &self.guarded };
        let mut response = client.get(request.url(tracker)).send().await?;
        if !response.status().is_success() {
            return Err(ExchangeError::Status(response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(ResponseError::Malformed.into());
            }
            body.extend_from_slice(&chunk);
        }
        let answer = parse_announce(&body)?.answer;
        Ok(Duration::from_secs(answer.interval_s.max(answer.min_interval_s.unwrap_or(0)).into()))
    }

    async fn over_udp(
        &self,
        url: &Url,
        infohash: [u8; 20],
        report: &Report,
        trusted: bool,
    ) -> Result<Duration, ExchangeError> {
        let (host, port) = url.host_str().zip(url.port()).ok_or(ExchangeError::Url)?;
        let mut addresses: Vec<SocketAddr> =
            tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await?.collect();
        if !trusted && let Some(inside) = addresses.iter().find(|address| !guard::is_public(address.ip())) {
            return Err(GuardError::NotPublic { host: host.to_owned(), address: inside.ip() }.into());
        }
        // IPv4 first: more trackers have peers there.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let address = *addresses.first().ok_or_else(|| GuardError::NoAddress(host.to_owned()))?;
        let local: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(local).await?;
        // A connected socket hears its tracker and nobody else.
        socket.connect(address).await?;
        let connection_id = self
            .ask(&socket, Ask::Connect, |answer| match answer {
                Answer::Connect { connection_id } => Some(*connection_id),
                _ => None,
            })
            .await?;
        let announce = Announce {
            infohash,
            peer_id: self.peer_id,
            downloaded: 0,
            left: report.left,
            uploaded: report.uploaded,
            event: report.event,
            key: self.key,
            numwant: Some(0),
            port: self.port,
        };
        let target =
            url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let ask = Ask::Announce { connection_id, announce, url_data: target.as_bytes() };
        let family = Family::of(address.ip());
        let interval_s =
            self.ask(&socket, ask, |answer| Some(answer.announce_answer(family, 0)?.interval_s)).await?;
        Ok(Duration::from_secs(interval_s.into()))
    }

    /// Sends a request until an answer of the right kind comes, and reads it.
    async fn ask<T>(
        &self,
        socket: &UdpSocket,
        ask: Ask<'_>,
        read: impl Fn(&Answer<'_>) -> Option<T>,
    ) -> Result<T, ExchangeError> {
        let mut datagram = [0; 2048];
        for wait in UDP_WAITS {
            let transaction_id = random_u32(&self.random);
            let request = Request { transaction_id, ask };
            let length = request.encode(&mut datagram).map_err(|_| ExchangeError::Url)?;
            socket.send(&datagram[..length]).await?;
            let answered = tokio::time::timeout(wait, async {
                let mut datagram = [0; 2048];
                loop {
                    let length = socket.recv(&mut datagram).await?;
                    match Answer::parse(&datagram[..length]) {
                        Some((id, Answer::Error { message })) if id == transaction_id => {
                            let message = String::from_utf8_lossy(message).replace(char::is_control, " ");
                            return Err(ExchangeError::Refused(message));
                        }
                        Some((id, answer)) if id == transaction_id => {
                            if let Some(found) = read(&answer) {
                                return Ok(found);
                            }
                        }
                        // A late answer to an earlier request, or nothing of the kind.
                        _ => {}
                    }
                }
            });
            if let Ok(answer) = answered.await {
                return answer;
            }
        }
        Err(ExchangeError::Silent)
    }
}

/// Random bits for transaction ids; without randomness always the same, which a connected socket survives.
fn random_u32(random: &SystemRandom) -> u32 {
    let mut bytes = [0; 4];
    let _ = random.fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use millrace_proto::tracker::AnnounceAnswer;
    use millrace_proto::tracker::udp::{encode_announce, encode_connect, encode_error};

    use super::*;

    const REPORT: Report = Report { uploaded: 1, left: 0, event: AnnounceEvent::Started };

    fn exchange() -> Exchange {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Exchange::new(*b"-MR0100-aaaaaaaaaaaa", 6881).unwrap()
    }

    #[tokio::test]
    async fn a_udp_tracker_is_told_in_two_steps() {
        let tracker = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let url = format!("udp://{}/announce?pass=1", tracker.local_addr().unwrap());
        let serving = async {
            let (mut datagram, mut answer) = ([0; 2048], [0; 256]);
            let (length, from) = tracker.recv_from(&mut datagram).await.unwrap();
            let request = Request::parse(&datagram[..length]).unwrap();
            assert_eq!(request.ask, Ask::Connect);
            // What answers another request is passed over.
            let stray = encode_error(&mut answer, request.transaction_id ^ 1, "stray").unwrap();
            tracker.send_to(&answer[..stray], from).await.unwrap();
            let length = encode_connect(&mut answer, request.transaction_id, 42).unwrap();
            tracker.send_to(&answer[..length], from).await.unwrap();
            let (length, from) = tracker.recv_from(&mut datagram).await.unwrap();
            let request = Request::parse(&datagram[..length]).unwrap();
            let Ask::Announce { connection_id: 42, announce, url_data } = request.ask else {
                panic!("{request:?}")
            };
            assert_eq!(
                (announce.port, announce.event, url_data),
                (6881, AnnounceEvent::Started, &b"/announce?pass=1"[..])
            );
            let reply = AnnounceAnswer { interval_s: 900, ..AnnounceAnswer::default() };
            let length = encode_announce(&mut answer, request.transaction_id, Family::V4, &reply).unwrap();
            tracker.send_to(&answer[..length], from).await.unwrap();
        };
        let exchange = exchange();
        let (told, ()) = tokio::join!(exchange.announce(&url, [7; 20], &REPORT, true), serving);
        assert_eq!(told.unwrap(), Duration::from_secs(900));
    }

    #[tokio::test]
    async fn trackers_of_strangers_are_at_public_addresses_or_nowhere() {
        let exchange = exchange();
        for tracker in [
            "http://127.0.0.1:1/announce",
            "udp://10.0.0.1:80",
            "http://[::1]/announce",
            "udp://localhost:80/",
        ] {
            let error = exchange.announce(tracker, [7; 20], &REPORT, false).await.unwrap_err();
            assert!(matches!(error, ExchangeError::Guard(_)), "{tracker}: {error}");
        }
        let error = exchange.announce("wss://tracker.example/", [7; 20], &REPORT, false).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Url));
    }
}
