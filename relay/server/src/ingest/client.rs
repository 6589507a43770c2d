//! Asking origins over HTTP/1.1 and HTTP/2, with and without TLS.
//!
//! Redirects are followed here, so that every hop is checked by the guard and what was given for one origin (passwords, header
//! fields) is sent to no other. Certificates are always verified.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, IF_RANGE, LOCATION, RANGE,
};
use reqwest::{Client, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::{Origin as UrlOrigin, Url};

use super::answer::{self, Accepted, Refused, Validators};
use super::balance::Fate;
use super::budget::OriginBudget;
use super::guard::{self, GuardError, PublicResolver};
use super::metrics::IngestMetrics;
use super::origin::{Origin, Trust, without_credentials};

/// Redirects followed for one request.
const REDIRECTS_MAX: usize = 10;

/// How origins are talked to.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `User-Agent`.
    pub agent: String,
    /// A file of certificates (PEM) that are trusted besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// Time to connect, TLS included.
    pub connect_timeout: Duration,
    /// Time from a request to the head of its answer.
    pub head_timeout: Duration,
    /// Longest silence within a body.
    pub idle_timeout: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig {
            agent: format!("millrace/{}", env!("CARGO_PKG_VERSION")),
            ca_file: None,
            connect_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
        }
    }
}

/// A client that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The named file holds no certificate that can be read.
    #[error("{path}: {error}: name a PEM file of CA certificates")]
    CaFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        error: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client: {0}")]
    Http(#[from] reqwest::Error),
}

/// Why a request brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The answer was refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Connecting, TLS, or the connection failed.
    #[error("{0}")]
    Transport(String),
    /// It leads where it must not.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// Redirects in a loop, to nowhere, or from https to http.
    #[error("{0}")]
    Redirect(String),
    /// Redirected to an origin that may not be asked now.
    #[error("redirected, and {0}")]
    Ungranted(String),
    /// Another length than the content has.
    #[error("it has {found} bytes here, and should have {expected}")]
    Length {
        /// Bytes of the file.
        expected: u64,
        /// Bytes that the origin says it has.
        found: u64,
    },
    /// A body that ended early.
    #[error("body ended after {received} of {expected} bytes")]
    Short {
        /// Bytes that came.
        received: u64,
        /// Bytes promised.
        expected: u64,
    },
    /// A body that went on.
    #[error("body is longer than the {0} bytes promised")]
    Long(u64),
    /// No byte for too long.
    #[error("no byte for {} s", .0.as_secs_f32())]
    Stalled(Duration),
}

impl FetchError {
    /// What it means for the origin.
    #[must_use]
    pub fn fate(&self) -> Fate {
        match self {
            FetchError::Refused(Refused::Later { retry_after, .. }) => {
                Fate::Rest(retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))
            }
            FetchError::Refused(Refused::Status(_) | Refused::Changed(_))
            | FetchError::Guard(_)
            | FetchError::Redirect(_)
            | FetchError::Length { .. } => Fate::GiveUp,
            _ => Fate::Rest(None),
        }
    }
}

/// How origins are asked, on whichever connection.
#[derive(Debug, Clone)]
pub struct Clients {
    tls: rustls::ClientConfig,
    config: Arc<ClientConfig>,
    metrics: Arc<IngestMetrics>,
    budget: Arc<OriginBudget>,
}

/// One connection to an origin, opened when it is first asked; and another where that leads elsewhere.
#[derive(Debug, Default)]
pub struct Connection {
    /// For what the operator named.
    open: OnceLock<Client>,
    /// Connects to public addresses only.
    guarded: OnceLock<Client>,
}

impl Clients {
    /// Sets up what all connections share.
    ///
    /// # Errors
    /// An unreadable CA file, or TLS that cannot be set up.
    pub fn new(
        config: ClientConfig,
        metrics: Arc<IngestMetrics>,
        budget: Arc<OriginBudget>,
    ) -> Result<Self, ClientError> {
        let tls = tls_config(&config)?;
        let clients = Clients { tls, config: Arc::new(config), metrics, budget };
        // What is wrong shall be found now, not with the first pull.
        clients.builder().build()?;
        Ok(clients)
    }

    fn builder(&self) -> reqwest::ClientBuilder {
        let config = &self.config;
        Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .user_agent(&config.agent)
            .connect_timeout(config.connect_timeout)
            // A retry that we do not see would ask for bytes twice.
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(1)
            .tcp_keepalive(Duration::from_secs(30))
    }

    /// The client of a connection that connects to public addresses only, or to all.
    fn client<'a>(&self, connection: &'a Connection, guarded: bool) -> Result<&'a Client, FetchError> {
        let (place, builder) = match guarded {
            true => (&connection.guarded, self.builder().dns_resolver(PublicResolver)),
            false => (&connection.open, self.builder()),
        };
        if let Some(client) = place.get() {
            return Ok(client);
        }
        let client = builder.build().map_err(|error| FetchError::Transport(causes(&error)))?;
        Ok(place.get_or_init(|| client))
    }

    /// Longest silence within a body.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        self.config.idle_timeout
    }

    /// Asks on `connection` for `asked` (bytes of the resource) at `url` of `origin`, and judges the head of the answer against what is `known`.
    /// With `conditional` an origin that knows `If-Range` sends no part of another version.
    ///
    /// # Errors
    /// See [`FetchError`]; the connection of a refused answer is dropped with what it had brought.
    pub async fn fetch(
        &self,
        connection: &Connection,
        origin: &Origin,
        url: &Url,
        asked: &Range<u64>,
        known: Option<&Validators>,
        conditional: bool,
    ) -> Result<(Response, Accepted), FetchError> {
        let mut fields = HeaderMap::new();
        let range = format!("bytes={}-{}", asked.start, asked.end.saturating_sub(1));
        fields
            .insert(RANGE, HeaderValue::from_str(&range).map_err(|_| FetchError::Transport(range.clone()))?);
        if let Some(validator) = known.and_then(Validators::if_range).filter(|_| conditional)
            && let Ok(value) = HeaderValue::from_str(validator)
        {
            fields.insert(IF_RANGE, value);
        }
        let response = self.follow(connection, origin, url, &fields).await?;
        let accepted = answer::judge(response.status(), response.headers(), asked, known)?;
        Ok((response, accepted))
    }

    /// Reads a small document, such as a .torrent, of at most `bytes_max`.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn document(
        &self,
        connection: &Connection,
        origin: &Origin,
        bytes_max: usize,
    ) -> Result<Vec<u8>, FetchError> {
        let mut response = self.follow(connection, origin, &origin.url, &HeaderMap::new()).await?;
        if response.status() != StatusCode::OK {
            return Err(Refused::Status(response.status()).into());
        }
        let mut document = Vec::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            if document.len() + chunk.len() > bytes_max {
                return Err(FetchError::Long(u64::try_from(bytes_max).unwrap_or(u64::MAX)));
            }
            document.extend_from_slice(&chunk);
        }
        Ok(document)
    }

    /// The next bytes of a body, `None` at its end.
    ///
    /// # Errors
    /// A broken connection, a broken body, or silence.
    pub async fn chunk(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, FetchError> {
        let idle = self.config.idle_timeout;
        let read =
            tokio::time::timeout(idle, response.chunk()).await.map_err(|_| FetchError::Stalled(idle))?;
        read.map_err(|error| FetchError::Transport(causes(&error)))
    }

    /// Sends a GET, and follows where it is sent.
    async fn follow(
        &self,
        connection: &Connection,
        origin: &Origin,
        url: &Url,
        fields: &HeaderMap,
    ) -> Result<Response, FetchError> {
        let mut at = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let sent = self.send(connection, origin, &at, fields).await;
            let response = sent.inspect_err(|_| self.metrics.answered(0))?;
            self.metrics.answered(response.status().as_u16());
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            let next = response.headers().get(LOCATION).and_then(|to| at.join(to.to_str().ok()?).ok());
            let next =
                next.ok_or_else(|| FetchError::Redirect("redirected without a usable Location".into()))?;
            if !is_same_origin(&origin.url, &next)
                && let Some(wait) = self.budget.ungranted(&next)
            {
                return Err(FetchError::Ungranted(wait.why));
            }
            match (at.scheme(), next.scheme()) {
                ("https", "https") | ("http", "http" | "https") => at = next,
                (from, to) => {
                    return Err(FetchError::Redirect(format!(
                        "redirected from {from} to {to}, which is not followed"
                    )));
                }
            }
        }
        Err(FetchError::Redirect(format!("redirected more than {REDIRECTS_MAX} times")))
    }

    async fn send(
        &self,
        connection: &Connection,
        origin: &Origin,
        url: &Url,
        fields: &HeaderMap,
    ) -> Result<Response, FetchError> {
        let same = is_same_origin(&origin.url, url);
        let guarded = origin.trust != Trust::Named || !same;
        if guarded {
            guard::check_literal(url).inspect_err(|_| self.metrics.guard_refusals.increment())?;
        }
        let client = self.client(connection, guarded)?;
        let mut request = client.get(without_credentials(url)).headers(fields.clone());
        request = request.header(ACCEPT_ENCODING, "identity");
        if same {
            request = request.headers(own_fields(origin)?);
        }
        let head = self.config.head_timeout;
        let sent = tokio::time::timeout(head, request.send()).await.map_err(|_| FetchError::Stalled(head))?;
        sent.map_err(|error| self.classify(&error))
    }

    /// A refusal of the resolver comes wrapped in errors of the client.
    fn classify(&self, error: &reqwest::Error) -> FetchError {
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = cause {
            if let Some(refused) = error.downcast_ref::<GuardError>() {
                self.metrics.guard_refusals.increment();
                return refused.clone().into();
            }
            cause = error.source();
        }
        FetchError::Transport(causes(error))
    }
}

/// What is sent to the origin itself: Basic from the URL's user and password (RFC 7617), and the given fields.
fn own_fields(origin: &Origin) -> Result<HeaderMap, FetchError> {
    let mut fields = HeaderMap::new();
    let url = &origin.url;
    if !url.username().is_empty() || url.password().is_some() {
        let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let pair = format!("{}:{}", decode(url.username()), decode(url.password().unwrap_or_default()));
        let value = format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes()));
        fields.insert(AUTHORIZATION, HeaderValue::from_str(&value).map_err(|_| bad_field("Authorization"))?);
    }
    for (name, value) in &origin.headers {
        let name = HeaderName::try_from(name).map_err(|_| bad_field(name))?;
        // These decide what we read, and where.
        if [RANGE, IF_RANGE, ACCEPT_ENCODING, HOST].contains(&name) {
            return Err(bad_field(name.as_str()));
        }
        fields.insert(name.clone(), HeaderValue::from_str(value).map_err(|_| bad_field(name.as_str()))?);
    }
    Ok(fields)
}

fn bad_field(name: &str) -> FetchError {
    FetchError::Redirect(format!("header field {name} cannot be sent to an origin"))
}

fn is_same_origin(a: &Url, b: &Url) -> bool {
    matches!(a.origin(), UrlOrigin::Tuple(..)) && a.origin() == b.origin()
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// An error with its causes in one line. What only repeats the URL is left out: whoever shows this names it.
fn causes(error: &dyn std::error::Error) -> String {
    let outer = error.source().filter(|_| error.to_string().contains(" for url (")).unwrap_or(error);
    let mut text = outer.to_string();
    let mut cause = outer.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// The system's certificates, and those of the file. A system that has none is no error: what is asked over HTTPS then fails, and nothing
/// else.
pub(crate) fn tls_config(config: &ClientConfig) -> Result<rustls::ClientConfig, ClientError> {
    let mut roots = rustls::RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = &config.ca_file {
        let wrong = |error: String| ClientError::CaFile { path: path.display().to_string(), error };
        let named: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?.collect();
        let named = named.map_err(|error| wrong(error.to_string()))?;
        if named.is_empty() {
            return Err(wrong("no certificate in it".into()));
        }
        for certificate in named {
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut tls = builder.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}
