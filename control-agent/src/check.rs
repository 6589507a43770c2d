//! `check-controller`: whether a controller does what docs/control-protocol.md says, seen from an agent. Each check says what it wants;
//! what builds on one that failed is not run.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use millrace_proto::admin::Problem;
use millrace_proto::control::{Enrolled, PROTOCOL, ToAgent, ToController};
use reqwest::StatusCode;
use tokio_tungstenite::tungstenite::Message;
use url::Url;

use crate::cli::CheckArgs;
use crate::config::Config;
use crate::documents;
use crate::enroll;
use crate::identity::Key;
use crate::link::{Link, LinkError};
use crate::run::{Failure, configuration, runtime, unix_now};
use crate::tls;

/// How long a controller may take to say something.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is sent that must be refused.
const NONSENSE: &str = "this is no token that anybody gave out";

/// The controller, and how the checks went.
struct Checks {
    client: reqwest::Client,
    base: Url,
    message_bytes_max: usize,
    failed: u32,
    skipped: u32,
}

/// A box of our own making.
struct Guest {
    key: Key,
    token: String,
    enrolled: Enrolled,
}

/// Runs the command.
pub(crate) fn check(args: &CheckArgs) -> Result<(), Failure> {
    let base = enroll::controller(&args.url)?;
    let config = configuration(args.config.as_deref())?;
    let failed = runtime()?.block_on(run(&config, base, args.token.clone()))?;
    if failed == 0 { Ok(()) } else { Err(Failure::Found) }
}

async fn run(config: &Config, base: Url, token: Option<String>) -> anyhow::Result<u32> {
    let message_bytes_max = config.message_bytes_max;
    let mut checks = Checks { client: tls::client(config)?, base, message_bytes_max, failed: 0, skipped: 0 };
    let refused = checks.refuses_an_unknown_token().await;
    checks.note("enrolment with an unknown token is refused (401 or 403, and a problem document)", refused);
    let refused = checks.refuses_what_is_no_enrolment().await;
    checks.note("enrolment that is not understood is refused (400 or 422, and a problem document)", refused);
    let guest = match token {
        Some(token) => {
            let guest = checks.enrols(token).await;
            checks.take("enrolment with the token is answered with relay, url and keys", guest)
        }
        None => {
            checks.skipped += 1;
            say("not run  everything that needs an enrolment: name a token with --token");
            None
        }
    };
    if let Some(guest) = guest {
        checks.connections(guest).await;
    }
    say(&format!("{} failed, {} not run", checks.failed, checks.skipped));
    Ok(checks.failed)
}

impl Checks {
    /// What an enrolled box can see.
    async fn connections(&mut self, guest: Guest) {
        let again = self.enrols_again(&guest).await;
        self.note("the same key with the same token again is the same relay", again);
        let stolen = self.refuses_another_key(&guest).await;
        self.note("another key with the same token is refused", stolen);
        let url = guest.enrolled.url.clone();
        let relay = guest.enrolled.relay.clone();
        let now = unix_now();
        let stranger = Key::make().map(|(key, _)| key.token(&relay, &url, now)).unwrap_or_default();
        let bad = [
            ("no token", None),
            ("a token that is none", Some("garbage".to_owned())),
            ("a token signed by an unknown key", Some(stranger)),
            ("a token that is over", Some(guest.key.token(&relay, &url, now.saturating_sub(86_400)))),
            ("a token for another address", Some(guest.key.token(&relay, "wss://elsewhere.example/", now))),
            ("a token for another relay", Some(guest.key.token(&format!("{relay}-other"), &url, now))),
        ];
        for (what, token) in bad {
            let refused = self.refuses_connection(&url, token.as_deref()).await;
            self.note(&format!("a WebSocket with {what} is refused (401 or 403)"), refused);
        }
        let first = self.says_what_it_wants(&guest).await;
        let sequence = self.take(
            "a WebSocket is opened, and after hello a desired state comes that an agent accepts",
            first,
        );
        let Some(sequence) = sequence else { return };
        let second = self.says_what_it_wants(&guest).await.and_then(|again| {
            ensure!(again >= sequence, "sequence {again} came after {sequence}: agents refuse what is older");
            Ok(())
        });
        self.note("the sequence of a new connection is not smaller", second);
        let tolerated = self.bears_what_agents_say(&guest).await;
        self.note(
            "refusals, reports and messages of a later version are borne, and a ping is answered",
            tolerated,
        );
    }

    async fn refuses_an_unknown_token(&self) -> anyhow::Result<()> {
        let (key, _) = Key::make().map_err(|why| anyhow!(why))?;
        let request = enroll::request(NONSENSE.to_owned(), key.public(), None);
        let body = serde_json::to_vec(&request).context("the request cannot be written")?;
        self.refuses(body, &[StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN]).await
    }

    async fn refuses_what_is_no_enrolment(&self) -> anyhow::Result<()> {
        let allowed = [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY];
        for body in
            ["", "{", "[]", r#"{"token":1}"#, r#"{"protocol":1,"token":"t","key":"short","version":"0"}"#]
        {
            self.refuses(body.into(), &allowed).await.with_context(|| format!("for `{body}`"))?;
        }
        Ok(())
    }

    async fn refuses(&self, body: Vec<u8>, allowed: &[StatusCode]) -> anyhow::Result<()> {
        let request =
            self.client.post(enroll::address(&self.base)).header("Content-Type", "application/json");
        let sent = request.body(body).timeout(PATIENCE).send().await;
        let response = sent.map_err(|error| anyhow!("no answer: {}", tls::causes(&error)))?;
        let status = response.status();
        ensure!(allowed.contains(&status), "it answers {status}");
        let kind =
            response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        ensure!(kind.starts_with("application/problem+json"), "Content-Type is `{kind}`");
        let body = response.bytes().await.map_err(|error| anyhow!("{}", tls::causes(&error)))?;
        let problem: Problem =
            serde_json::from_slice(&body).context("the body is no problem document (RFC 9457)")?;
        ensure!(
            problem.status == status.as_u16(),
            "the problem document says {} and the answer {status}",
            problem.status
        );
        Ok(())
    }

    async fn enrols(&self, token: String) -> anyhow::Result<Guest> {
        let (key, _) = Key::make().map_err(|why| anyhow!(why))?;
        let enrolled = self.enrol(&token, &key).await?;
        Ok(Guest { key, token, enrolled })
    }

    async fn enrol(&self, token: &str, key: &Key) -> anyhow::Result<Enrolled> {
        let name = Some("check-controller".to_owned());
        enroll::ask(&self.client, &self.base, &enroll::request(token.to_owned(), key.public(), name)).await
    }

    async fn enrols_again(&self, guest: &Guest) -> anyhow::Result<()> {
        let again = self.enrol(&guest.token, &guest.key).await?;
        ensure!(
            again.relay == guest.enrolled.relay,
            "it is `{}` now, and was `{}`",
            again.relay,
            guest.enrolled.relay
        );
        Ok(())
    }

    async fn refuses_another_key(&self, guest: &Guest) -> anyhow::Result<()> {
        let (key, _) = Key::make().map_err(|why| anyhow!(why))?;
        let request = enroll::request(guest.token.clone(), key.public(), None);
        let body = serde_json::to_vec(&request).context("the request cannot be written")?;
        self.refuses(body, &[StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::CONFLICT]).await
    }

    async fn refuses_connection(&self, url: &str, token: Option<&str>) -> anyhow::Result<()> {
        match Link::open(&self.client, url, token, self.message_bytes_max).await {
            Err(LinkError::Refused { status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, .. }) => {
                Ok(())
            }
            Err(other) => Err(other.into()),
            Ok(_) => Err(anyhow!("it is let in")),
        }
    }

    async fn open(&self, guest: &Guest) -> anyhow::Result<Link> {
        let Enrolled { relay, url, keys } = &guest.enrolled;
        let token = guest.key.token(relay, url, unix_now());
        let mut link = Link::open(&self.client, url, Some(&token), self.message_bytes_max).await?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let (relay, keys) = (relay.clone(), keys.clone());
        send(&mut link, &ToController::Hello { protocol: PROTOCOL, version, relay, sequence: None, keys })
            .await?;
        Ok(link)
    }

    /// The sequence of the first state.
    async fn says_what_it_wants(&self, guest: &Guest) -> anyhow::Result<u64> {
        let mut link = self.open(guest).await?;
        let late = || anyhow!("no state within {} s", PATIENCE.as_secs());
        let message = tokio::time::timeout(PATIENCE, next_text(&mut link)).await.map_err(|_| late())??;
        let ToAgent::State { document } =
            serde_json::from_str(&message).context("the message is not understood")?;
        let state = documents::verify(&document, &guest.enrolled.keys).map_err(|refusal| anyhow!(refusal))?;
        ensure!(state.relay == guest.enrolled.relay, "the state is for relay `{}`", state.relay);
        ensure!(state.expires_at > unix_now(), "the state has expired");
        send(&mut link, &ToController::Accepted { sequence: state.sequence }).await?;
        Ok(state.sequence)
    }

    async fn bears_what_agents_say(&self, guest: &Guest) -> anyhow::Result<()> {
        let mut link = self.open(guest).await?;
        send(&mut link, &ToController::Report { report: Box::default() }).await?;
        let refusal = serde_json::json!({"type": "refused", "refusal": {"reason": "older", "detail": "a check", "sequence": 1}});
        link.send(Message::text(refusal.to_string())).await?;
        link.send(Message::text(r#"{"type":"of a later version","more":[1]}"#)).await?;
        let asked: &[u8] = b"still there?";
        link.send(Message::Ping(asked.into())).await?;
        let answered = async {
            loop {
                if let Message::Pong(said) = link.next().await?
                    && said.as_ref() == asked
                {
                    return Ok::<_, LinkError>(());
                }
            }
        };
        let late = || anyhow!("no pong within {} s", PATIENCE.as_secs());
        Ok(tokio::time::timeout(PATIENCE, answered).await.map_err(|_| late())??)
    }

    fn note(&mut self, what: &str, outcome: anyhow::Result<()>) {
        self.take(what, outcome);
    }

    fn take<T>(&mut self, what: &str, outcome: anyhow::Result<T>) -> Option<T> {
        match outcome {
            Ok(value) => {
                say(&format!("ok       {what}"));
                Some(value)
            }
            Err(error) => {
                self.failed += 1;
                say(&format!("FAILED   {what}: {}", format!("{error:#}").replace('\n', " ")));
                None
            }
        }
    }
}

async fn send(link: &mut Link, message: &ToController) -> anyhow::Result<()> {
    let text = serde_json::to_string(message).context("the message cannot be written")?;
    Ok(link.send(Message::text(text)).await?)
}

async fn next_text(link: &mut Link) -> Result<String, LinkError> {
    loop {
        if let Message::Text(text) = link.next().await? {
            return Ok(text.to_string());
        }
    }
}

pub(crate) fn say(line: &str) {
    // Whoever reads may have gone.
    let _ = writeln!(std::io::stdout(), "{line}");
}
