//! Making a report: the relay, its contents, the origins, the box.

use std::cell::RefCell;
use std::sync::Arc;

use millrace_proto::admin::ContentStatus;
use millrace_proto::control::report::{ContentReport, Obstacle};
use millrace_proto::control::{DesiredState, Report};
use tokio::sync::watch;

use crate::admin::Admin;
use crate::health::Meter;
use crate::keeper::Outcome;
use crate::plan::Own;
use crate::reach;
use crate::run::unix_now;

/// Makes reports.
pub(crate) struct Reporter {
    admin: Admin,
    held: watch::Receiver<Option<Arc<DesiredState>>>,
    origins_max: usize,
    meter: RefCell<Meter>,
}

impl Reporter {
    pub(crate) fn new(
        admin: Admin,
        held: watch::Receiver<Option<Arc<DesiredState>>>,
        origins_max: usize,
    ) -> Reporter {
        Reporter { admin, held, origins_max, meter: RefCell::default() }
    }

    /// How things are, and all contents.
    pub(crate) async fn gather(&self, outcome: Outcome) -> (Report, Vec<ContentReport>) {
        let held = self.held.borrow().clone();
        let looked = async {
            let status = self.admin.status().await?;
            Ok::<_, crate::admin::AdminError>((status, self.admin.contents().await?))
        };
        let looked = looked.await;
        let caps = looked.as_ref().ok().and_then(|(status, _)| status.caps.as_ref());
        let grants = caps.map(|caps| caps.origin_grants.as_slice()).unwrap_or_default();
        let origins = reach::measure(held.as_deref(), grants, self.origins_max).await;
        let Outcome { sequence, converged, obstacles, own } = outcome;
        let mut report = Report {
            at: unix_now(),
            sequence,
            converged,
            obstacles,
            origins,
            machine: self.meter.borrow_mut().look(),
            ..Report::default()
        };
        match looked {
            Ok((status, contents)) => {
                report.relay = Some(status);
                (report, contents.into_iter().filter_map(|content| describe(content, &own)).collect())
            }
            Err(error) => {
                // What was so is not known to be so any more.
                report.converged = false;
                let what = error.to_string();
                if !report.obstacles.iter().any(|obstacle| obstacle.what == what) {
                    report.obstacles.push(Obstacle { content: None, what });
                }
                (report, Vec::new())
            }
        }
    }
}

fn describe(content: ContentStatus, own: &Own) -> Option<ContentReport> {
    let id = content.id.parse().ok()?;
    Some(ContentReport {
        id,
        own: own.contents.contains(&id),
        state: content.state,
        length: content.length,
        have_bytes: content.have_bytes,
        served: content.served,
        origin_bytes: content.origin_bytes,
        rates: content.rates,
        pinned: content.pinned,
        infohash_v1: content.infohash_v1,
        infohash_v2: content.infohash_v2,
        sha256: content.sha256,
        supersedes: content.supersedes,
        error: content.error,
    })
}
