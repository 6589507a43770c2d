//! A WebSocket to the controller (RFC 6455), opened by the HTTP client, so that TLS, certificates and proxies are its matter.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use millrace_proto::admin::Problem;
use reqwest::StatusCode;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::tls::causes;

/// Time from the request to the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Time that the controller may take to read a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Most of a stranger's word that is shown.
const SHOWN_CHARS_MAX: usize = 500;

/// Most of a refusal's body that is read.
const PROBLEM_BYTES_MAX: u64 = 64 << 10;

/// Why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// No connection, no TLS, no answer.
    #[error("{0}")]
    Unreachable(String),
    /// The controller answers something else.
    #[error("it answers {status}: {detail}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// Its word.
        detail: String,
    },
    /// It answers as no WebSocket does.
    #[error("it answers as no WebSocket does: {0}")]
    NoWebSocket(&'static str),
    /// It broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] tungstenite::Error),
    /// It was closed.
    #[error("the controller closed the connection{0}")]
    Closed(String),
    /// A message was not taken.
    #[error("the controller does not read: a message was not taken within {} s", SEND_TIMEOUT.as_secs())]
    Unread,
    /// Nothing came.
    #[error("nothing was heard for {} s", .0.as_secs())]
    Silent(Duration),
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Link(WebSocketStream<reqwest::Upgraded>);

impl Link {
    /// Connects. `token` proves who this is; without one it asks all the same, which is for finding out what is answered then.
    pub(crate) async fn open(
        client: &reqwest::Client,
        url: &str,
        token: Option<&str>,
        message_bytes_max: usize,
    ) -> Result<Link, LinkError> {
        // The scheme of a WebSocket over TLS is one that HTTP clients do not know.
        let url = url.strip_prefix("wss://").map_or_else(|| url.to_owned(), |rest| format!("https://{rest}"));
        let key = generate_key();
        let mut request = client
            .get(url)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", &key);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let late = || LinkError::Unreachable(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()));
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, request.send()).await.map_err(|_| late())?;
        let response = sent.map_err(|error| LinkError::Unreachable(causes(&error)))?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let detail = problem(response).await;
            return Err(LinkError::Refused { status, detail });
        }
        let field = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        if !field("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
            return Err(LinkError::NoWebSocket("101 without `Upgrade: websocket`"));
        }
        if field("sec-websocket-accept") != Some(derive_accept_key(key.as_bytes()).as_str()) {
            return Err(LinkError::NoWebSocket("Sec-WebSocket-Accept is wrong (RFC 6455 §4.1)"));
        }
        let upgraded = response.upgrade().await.map_err(|error| LinkError::Unreachable(causes(&error)))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        Ok(Link(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await))
    }

    /// The next message of any kind.
    pub(crate) async fn next(&mut self) -> Result<Message, LinkError> {
        match self.0.next().await {
            None => Err(LinkError::Closed(String::new())),
            Some(Ok(Message::Close(frame))) => {
                let why = frame.map(|frame| format!(" ({} {})", frame.code, shown(&frame.reason)));
                Err(LinkError::Closed(why.unwrap_or_default()))
            }
            Some(message) => Ok(message?),
        }
    }

    /// Sends a message.
    pub(crate) async fn send(&mut self, message: Message) -> Result<(), LinkError> {
        tokio::time::timeout(SEND_TIMEOUT, self.0.send(message)).await.map_err(|_| LinkError::Unread)??;
        Ok(())
    }
}

/// What a refusal says of itself.
pub(crate) async fn problem(mut response: reqwest::Response) -> String {
    let (mut body, mut read) = (Vec::new(), 0);
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(ANSWER_TIMEOUT, response.chunk()).await {
        read += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        if read > PROBLEM_BYTES_MAX {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    let detail = serde_json::from_slice::<Problem>(&body).ok().and_then(|problem| problem.detail);
    let said = detail.unwrap_or_else(|| "no problem document (RFC 9457) says why".to_owned());
    shown(&said)
}

/// A stranger's word, as it may stand in a line of the log.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
