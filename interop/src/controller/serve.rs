//! The controller's own thread: connections, enrolment, WebSockets. What a connection ends with is the test's business, not ours.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt as _, StreamExt as _};
use millrace_proto::control::signed::{Claims, Signed, TOKEN_TYPE};
use millrace_proto::control::{Enroll, PublicKey};
use ring::signature::{ED25519, UnparsedPublicKey};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Manners, Order, RELAY, Shared, TOKEN, lock};

/// Serves until told to stop, or nobody is there any more who could tell.
pub(super) fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    shared: Arc<Shared>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        listener.set_nonblocking(true).expect("a listener");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        let accepting = async {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (tls, shared) = (TlsAcceptor::from(Arc::clone(&tls)), Arc::clone(&shared));
                tokio::spawn(async move {
                    let _ = connection(stream, tls, &shared).await;
                });
            }
        };
        tokio::select! {
            () = accepting => {}
            _ = stopped => {}
        }
    });
}

async fn connection(stream: TcpStream, tls: TlsAcceptor, shared: &Shared) -> io::Result<()> {
    let manners = *lock(&shared.manners);
    stream.set_nodelay(true)?;
    let stream = tls.accept(stream).await?;
    match manners {
        Manners::Slow(bytes) => answer(Slow { stream, bytes }, manners, shared).await,
        _ => answer(stream, manners, shared).await,
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    manners: Manners,
    shared: &Shared,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    match manners {
        Manners::Mute => std::future::pending().await,
        Manners::Garbage => return stream.write_all(&[0x16; 4096]).await,
        _ => {}
    }
    if head.starts_with("POST /v1/enroll ") {
        let length = field(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let (status, answer) = enroll(&body, shared);
        return write_answer(&mut stream, status, &answer).await;
    }
    if let Manners::Refusing(status) = manners {
        return write_answer(&mut stream, status, &problem(status, "not today")).await;
    }
    if let Err(why) = check_token(field(&head, "authorization").unwrap_or_default(), shared) {
        lock(&shared.heard).bad_tokens.push(why.clone());
        return write_answer(&mut stream, 401, &problem(401, &why)).await;
    }
    let Some(key) = field(&head, "sec-websocket-key") else {
        return write_answer(&mut stream, 400, &problem(400, "no WebSocket")).await;
    };
    let accept = derive_accept_key(key.as_bytes());
    let switching = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(switching.as_bytes()).await?;
    stream.flush().await?;
    // Before the first message is heard: what is said after that must not be missed.
    let orders = shared.orders.subscribe();
    talk(WebSocketStream::from_raw_socket(stream, Role::Server, None).await, orders, shared).await;
    Ok(())
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocketStream<S>,
    mut orders: broadcast::Receiver<Order>,
    shared: &Shared,
) {
    lock(&shared.heard).connections += 1;
    let greeting = lock(&shared.greeting).clone();
    if let Some(greeting) = greeting
        && socket.send(greeting.into()).await.is_err()
    {
        return;
    }
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Ok(Order::Say(message)) => if socket.send(message).await.is_err() { return },
                Ok(Order::Close) | Err(_) => return,
            },
            message = socket.next() => {
                let Some(Ok(message)) = message else { return };
                if let Ok(Ok(message)) = message.to_text().map(serde_json::from_str) {
                    lock(&shared.heard).messages.push(message);
                    shared.more.notify_all();
                }
            }
        }
    }
}

fn enroll(body: &[u8], shared: &Shared) -> (u16, Value) {
    let request: Enroll = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return (400, problem(400, &error.to_string())),
    };
    let mut agent = lock(&shared.agent);
    if request.token != TOKEN || agent.is_some_and(|known| known != request.key) {
        return (403, problem(403, "the token is not known"));
    }
    *agent = Some(request.key);
    (200, json!({"relay": RELAY, "url": shared.url, "keys": *lock(&shared.keys)}))
}

fn check_token(authorization: &str, shared: &Shared) -> Result<(), String> {
    let token = authorization.strip_prefix("Bearer ").ok_or("no token")?;
    let signed = Signed::parse(token, TOKEN_TYPE).map_err(|error| error.to_string())?;
    let agent: Option<PublicKey> = *lock(&shared.agent);
    if agent != Some(signed.key) {
        return Err("not the key that was enrolled".to_owned());
    }
    let key = UnparsedPublicKey::new(&ED25519, signed.key.0);
    key.verify(signed.message, &signed.signature).map_err(|_| "a bad signature")?;
    let claims: Claims = serde_json::from_slice(&signed.payload).map_err(|error| error.to_string())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if claims.sub != RELAY || claims.aud != shared.url || claims.exp <= now {
        return Err(format!("{claims:?}"));
    }
    Ok(())
}

fn problem(status: u16, detail: &str) -> Value {
    json!({"type": "about:blank", "title": "Refused", "status": status, "detail": detail})
}

async fn write_answer(stream: &mut (impl AsyncWrite + Unpin), status: u16, body: &Value) -> io::Result<()> {
    let (kind, body) =
        (if status < 400 { "application/json" } else { "application/problem+json" }, body.to_string());
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// Writes few bytes at a time, each lot a TLS record of its own.
struct Slow<S> {
    stream: S,
    bytes: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Slow<S> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Slow<S> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        let some = buffer.len().min(self.bytes);
        std::pin::Pin::new(&mut self.stream).poll_write(context, &buffer[..some])
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
