//! The connection to the controller: hello, documents in, reports out, and again when it is lost.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use millrace_proto::control::report::ContentReport;
use millrace_proto::control::{PROTOCOL, Refusal, RefusalReason, Report, ToAgent, ToController};
use millrace_proto::id::ContentId;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_tungstenite::tungstenite::Message;

use crate::admin::Admin;
use crate::config::{Config, Reconnect};
use crate::documents::Documents;
use crate::identity::Identity;
use crate::keeper::Outcome;
use crate::link::{Link, LinkError, shown};
use crate::report::Reporter;
use crate::run::unix_now;
use crate::tls;

/// Messages refused on one connection before it is given up: the other end is no controller.
const REFUSALS_MAX: u32 = 64;

/// Reports are not made more often, whatever changes.
const REPORT_EVERY: Duration = Duration::from_millis(250);

/// A connection that lasted so long was one: the next wait begins from the shortest.
const LASTING: Duration = Duration::from_secs(60);

type Gathering<'a> = Pin<Box<dyn Future<Output = (Report, Vec<ContentReport>)> + 'a>>;

/// Speaks to the controller.
pub(crate) struct Session {
    identity: Identity,
    documents: Documents,
    client: reqwest::Client,
    outcome: watch::Receiver<Outcome>,
    reporter: Reporter,
    reconnect: Reconnect,
    report_interval: Duration,
    silence_max: Duration,
    message_bytes_max: usize,
}

impl Session {
    pub(crate) fn new(
        config: &Config,
        identity: Identity,
        documents: Documents,
        (admin, outcome): (Admin, watch::Receiver<Outcome>),
    ) -> anyhow::Result<Session> {
        let reporter = Reporter::new(admin, documents.held(), config.origins_measured_max);
        Ok(Session {
            identity,
            documents,
            client: tls::client(config)?,
            outcome,
            reporter,
            reconnect: config.reconnect,
            report_interval: config.report_interval,
            silence_max: config.silence_max,
            message_bytes_max: config.message_bytes_max,
        })
    }

    pub(crate) fn relay(&self) -> &str {
        &self.identity.enrolled.relay
    }

    pub(crate) fn url(&self) -> &str {
        &self.identity.enrolled.url
    }

    /// Connects again and again.
    pub(crate) async fn run(mut self) -> Infallible {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let Err(error) = self.connect().await;
            failures = if began.elapsed() > LASTING { 0 } else { failures + 1 };
            let wait = wait(self.reconnect, failures, chance());
            tracing::warn!(
                controller = self.url(),
                "no controller: {error}; again in {:.1} s",
                wait.as_secs_f32()
            );
            tokio::time::sleep(wait).await;
        }
    }

    /// One connection, to its end.
    async fn connect(&mut self) -> Result<Infallible, LinkError> {
        let token = self.identity.token(unix_now());
        let mut link = Link::open(&self.client, self.url(), Some(&token), self.message_bytes_max).await?;
        tracing::info!(controller = self.url(), "connected");
        let hello = ToController::Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            relay: self.relay().to_owned(),
            sequence: self.documents.sequence(),
            keys: self.documents.keys().to_vec(),
        };
        link.send(text(&hello)).await?;
        self.talk(&mut link).await
    }

    async fn talk(&mut self, link: &mut Link) -> Result<Infallible, LinkError> {
        let Session { documents, outcome, reporter, .. } = self;
        let reporter = &*reporter;
        let (mut heard, mut refusals) = (Instant::now(), 0);
        let mut told: HashMap<ContentId, ContentReport> = HashMap::new();
        let mut ticks = interval(self.report_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pings = interval(self.silence_max / 3);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut gathering: Option<Gathering<'_>> = None;
        let mut not_before = Instant::now();
        let mut is_due = false;
        loop {
            if is_due && gathering.is_none() && Instant::now() >= not_before {
                (is_due, not_before) = (false, Instant::now() + REPORT_EVERY);
                let outcome = outcome.borrow_and_update().clone();
                gathering = Some(Box::pin(reporter.gather(outcome)));
            }
            let is_resting = is_due && gathering.is_none();
            tokio::select! {
                message = link.next() => {
                    heard = Instant::now();
                    if let Some(answer) = answer(documents, message?) {
                        refusals += u32::from(matches!(answer, ToController::Refused { .. }));
                        link.send(text(&answer)).await?;
                        if refusals > REFUSALS_MAX {
                            return Err(LinkError::NoWebSocket("every message had to be refused"));
                        }
                    }
                }
                _ = ticks.tick() => is_due = true,
                _ = outcome.changed() => is_due = true,
                () = tokio::time::sleep_until(not_before), if is_resting => {}
                (report, contents) = gathered(&mut gathering) => {
                    gathering = None;
                    let report = Box::new(since(report, contents, &mut told));
                    link.send(text(&ToController::Report { report })).await?;
                }
                _ = pings.tick() => {
                    if heard.elapsed() > self.silence_max {
                        return Err(LinkError::Silent(self.silence_max));
                    }
                    link.send(Message::Ping(Vec::new().into())).await?;
                }
            }
        }
    }
}

/// The report that is being made, where one is.
async fn gathered(gathering: &mut Option<Gathering<'_>>) -> (Report, Vec<ContentReport>) {
    match gathering {
        Some(gathering) => gathering.await,
        None => std::future::pending().await,
    }
}

/// What is said to a message of the controller, if anything is.
fn answer(documents: &mut Documents, message: Message) -> Option<ToController> {
    let outcome = match message {
        Message::Text(text) => serde_json::from_str::<ToAgent>(&text)
            .map_err(|error| malformed(format!("the message is not understood: {error}")))
            .and_then(|ToAgent::State { document }| documents.accept(&document, unix_now())),
        Message::Binary(_) => Err(malformed("messages are texts, and this one is binary".to_owned())),
        _ => return None,
    };
    Some(match outcome {
        Ok(sequence) => {
            tracing::info!(sequence, "the controller's document is accepted");
            ToController::Accepted { sequence }
        }
        Err(refusal) => {
            // It may repeat what came.
            let refusal = Refusal { detail: shown(&refusal.detail), ..refusal };
            tracing::warn!(reason = ?refusal.reason, "a message of the controller is refused: {refusal}");
            ToController::Refused { refusal }
        }
    })
}

fn malformed(detail: String) -> Refusal {
    Refusal { reason: RefusalReason::Malformed, detail, sequence: None }
}

/// The report with what is new of the contents.
fn since(
    mut report: Report,
    contents: Vec<ContentReport>,
    told: &mut HashMap<ContentId, ContentReport>,
) -> Report {
    if report.relay.is_none() {
        // Nothing is known of its contents.
        return report;
    }
    let here: std::collections::HashSet<ContentId> = contents.iter().map(|content| content.id).collect();
    report.removed = told.extract_if(|id, _| !here.contains(id)).map(|(id, _)| id).collect();
    report.contents = contents
        .into_iter()
        .filter(|content| told.insert(content.id, content.clone()).as_ref() != Some(content))
        .collect();
    report
}

fn text(message: &ToController) -> Message {
    // Keys are strings: there is nothing that JSON could not say.
    Message::text(serde_json::to_string(message).unwrap_or_default())
}

/// How long to wait after so many failures in a row; `chance` is from 0 to 1.
fn wait(reconnect: Reconnect, failures: u32, chance: f64) -> Duration {
    let doubled = reconnect.min.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(20)));
    // Boxes that lost their controller together do not come back together.
    doubled.min(reconnect.max).mul_f64(1.0 - chance / 2.0)
}

fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness every box waits alike, which is no reason not to wait.
    let _ = SystemRandom::new().fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_stays_in_one_line_of_the_log() {
        let said = shown(&format!("a\nb\u{1b}[2J{}", "c".repeat(10_000)));
        assert!(said.starts_with("a b [2Jccc") && said.len() == 500, "{said}");
    }

    #[test]
    fn waits_double_up_to_a_bound_and_differ() {
        let reconnect = Reconnect { min: Duration::from_secs(1), max: Duration::from_secs(300) };
        let most = |failures| wait(reconnect, failures, 0.0).as_secs();
        assert_eq!([1, 2, 3, 9, 10, 1000].map(most), [1, 2, 4, 256, 300, 300]);
        assert_eq!(wait(reconnect, 3, 1.0), Duration::from_secs(2));
        assert!((0..100).all(|_| (0.0..=1.0).contains(&chance())));
    }
}
