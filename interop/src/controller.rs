//! A controller inside the test: enrols, takes an agent's WebSocket over TLS, sends it whatever a test wants it to hear, and keeps what it
//! says. It goes away and comes back at the same address.

mod certificates;
mod serve;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_proto::control::PublicKey;
use millrace_proto::control::signed::{STATE_TYPE, compact};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::sync::{broadcast, oneshot};
use tokio_tungstenite::tungstenite::Message;

use crate::relay::free_address;
use crate::scratch::Scratch;

use certificates::Certificates;

/// Longest wait for anything that an agent says, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The relay's name at this controller.
pub const RELAY: &str = "relay-1";

/// What enrolment wants to hear.
pub const TOKEN: &str = "let me in";

/// A controller.
#[derive(Debug)]
pub struct Controller {
    address: SocketAddr,
    key: Ed25519KeyPair,
    certificates: Certificates,
    shared: Arc<Shared>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// What an order makes connections do.
#[derive(Debug, Clone)]
enum Order {
    Say(Message),
    Close,
}

#[derive(Debug)]
struct Shared {
    /// What enrolment answers with.
    url: String,
    keys: Mutex<Vec<PublicKey>>,
    /// Who enrolled.
    agent: Mutex<Option<PublicKey>>,
    orders: broadcast::Sender<Order>,
    /// What every connection hears first.
    greeting: Mutex<Option<String>>,
    manners: Mutex<Manners>,
    heard: Mutex<Heard>,
    more: Condvar,
}

/// How it behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manners {
    /// As it should.
    #[default]
    Good,
    /// What it sends comes in pieces of so many bytes, each for itself.
    Slow(usize),
    /// It answers no request.
    Mute,
    /// It answers with something that is no HTTP.
    Garbage,
    /// It refuses WebSockets with this status.
    Refusing(u16),
}

#[derive(Debug, Default)]
struct Heard {
    messages: Vec<Value>,
    /// How many of them were waited for already.
    seen: usize,
    connections: usize,
    /// Tokens of connections that were not as they should be.
    bad_tokens: Vec<String>,
}

impl Controller {
    /// A controller at a free address of loopback.
    #[must_use]
    pub fn start() -> Self {
        Self::start_as(1, false)
    }

    /// As [`Controller::start`], with the key of this seed; one that is `strict` wants certificates of its clients.
    #[must_use]
    pub fn start_as(seed: u8, strict: bool) -> Self {
        let address = free_address();
        let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a key");
        let shared = Shared {
            url: format!("wss://localhost:{}/v1/agent", address.port()),
            keys: Mutex::new(vec![public(&key)]),
            agent: Mutex::default(),
            orders: broadcast::channel(64).0,
            greeting: Mutex::default(),
            manners: Mutex::default(),
            heard: Mutex::default(),
            more: Condvar::new(),
        };
        let certificates = Certificates::make(strict);
        let mut controller =
            Controller { address, key, certificates, shared: Arc::new(shared), running: None };
        controller.restart();
        controller
    }

    /// Its URL, as an operator would write it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The certificate of the CA that signed its own, as a file.
    #[must_use]
    pub fn ca_file(&self, scratch: &Scratch) -> PathBuf {
        scratch.file("ca.pem", self.certificates.ca_pem.as_bytes())
    }

    /// A certificate and its key that it takes of a client, as files.
    #[must_use]
    pub fn client_files(&self, scratch: &Scratch) -> (PathBuf, PathBuf) {
        let (certificate, key) = &self.certificates.client_pem;
        (scratch.file("client.pem", certificate.as_bytes()), scratch.file("client.key", key.as_bytes()))
    }

    /// Goes away: nobody listens any more, and connections break.
    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            thread.join().expect("the controller's thread");
        }
    }

    /// Comes back at the same address.
    pub fn restart(&mut self) {
        self.stop();
        let (stop, stopped) = oneshot::channel();
        let listener = crate::until("the controller's address to be free", PATIENCE, || {
            std::net::TcpListener::bind(self.address).ok()
        });
        let (shared, tls) = (Arc::clone(&self.shared), self.certificates.server());
        let thread = std::thread::spawn(move || serve::serve(listener, tls, shared, stopped));
        self.running = Some((stop, thread));
    }

    /// Behaves so from the next connection on.
    pub fn behave(&self, manners: Manners) {
        *lock(&self.shared.manners) = manners;
    }

    /// The key that it signs with.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        public(&self.key)
    }

    /// A document for the relay, signed: `more` is merged into a state that is good for an hour.
    #[must_use]
    pub fn document(&self, sequence: u64, more: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        let mut state = json!({"relay": RELAY, "sequence": sequence, "expires_at": now + 3_600});
        if let (Value::Object(state), Value::Object(more)) = (&mut state, more) {
            state.extend(more);
        }
        let sign = |message: &[u8]| self.key.sign(message).as_ref().to_vec();
        compact(public(&self.key), STATE_TYPE, state.to_string().as_bytes(), sign)
    }

    /// Wants this from now on: says so to whoever is connected, and first of all to whoever connects.
    pub fn want(&self, sequence: u64, more: Value) {
        let message = state_message(&self.document(sequence, more));
        *lock(&self.shared.greeting) = Some(message.clone());
        self.say(&message);
    }

    /// Sends a document to whoever is connected.
    pub fn say_document(&self, document: &str) {
        self.say(&state_message(document));
    }

    /// Sends a text to whoever is connected.
    pub fn say(&self, text: &str) {
        // Nobody may be.
        let _ = self.shared.orders.send(Order::Say(Message::text(text)));
    }

    /// Sends bytes to whoever is connected.
    pub fn say_bytes(&self, bytes: &[u8]) {
        let _ = self.shared.orders.send(Order::Say(Message::binary(bytes.to_vec())));
    }

    /// Closes all connections.
    pub fn disconnect(&self) {
        let _ = self.shared.orders.send(Order::Close);
    }

    /// Connections so far that were let in.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.shared.heard).connections
    }

    /// Waits for a message that `is_it`; those that came before are gone for later waits.
    ///
    /// # Panics
    /// If there is none within a minute.
    #[track_caller]
    pub fn hear(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = lock(&self.shared.heard);
        loop {
            while heard.seen < heard.messages.len() {
                heard.seen += 1;
                let message = &heard.messages[heard.seen - 1];
                if is_it(message) {
                    return message.clone();
                }
            }
            assert!(heard.bad_tokens.is_empty(), "{what}: tokens were refused: {:?}", heard.bad_tokens);
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "waited {PATIENCE:?} for {what}; last: {:#?}",
                heard.messages.iter().rev().take(3).collect::<Vec<_>>()
            );
            heard = self.shared.more.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for a report that the relay is at this sequence; the report.
    #[track_caller]
    pub fn hear_converged(&self, sequence: u64) -> Value {
        let message = self.hear(&format!("the relay to be at {sequence}"), |message| {
            let report = &message["report"];
            message["type"] == "report" && report["sequence"] == sequence && report["converged"] == true
        });
        message["report"].clone()
    }

    /// Waits for a refusal; why.
    #[track_caller]
    pub fn hear_refused(&self) -> String {
        let message = self.hear("a refusal", |message| message["type"] == "refused");
        message["refusal"]["reason"].as_str().expect("a reason").to_owned()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.stop();
    }
}

fn state_message(document: &str) -> String {
    json!({"type": "state", "document": document}).to_string()
}

fn public(key: &Ed25519KeyPair) -> PublicKey {
    PublicKey(key.public_key().as_ref().try_into().expect("32 bytes"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A configuration file of an agent for this controller and the relay behind `admin`; `more` is appended.
#[must_use]
pub fn configuration(controller: &Controller, scratch: &Scratch, admin: &Path, more: &str) -> PathBuf {
    let text = format!(
        "state = {:?}\nadmin = {admin:?}\nca-file = {:?}\nreport-interval = 1\nreconnect-max = 1\nconverge-interval = 3600\n{more}\n",
        scratch.join("agent"),
        controller.ca_file(scratch),
    );
    scratch.file("agent.toml", text.as_bytes())
}
