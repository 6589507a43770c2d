//! Rows that are about us alone: one of the other commands, carried out as a scenario file has it, and held against the targets.

use anyhow::Context as _;

use super::contest::Contest;
use super::outcome::Outcome;
use super::row::Row;
use crate::cores::{self, Split};
use crate::faststart;
use crate::load::runtime::Runtime;
use crate::plan::Plan;
use crate::run;
use crate::scenario;
use crate::settings::{Kind, Settings};
use crate::stage::Stage;

/// What drives the load: other threads on its cores, an origin or a second load, have to get their turn, so it must sleep.
const LOAD: Runtime = Runtime::Epoll;

impl Contest<'_> {
    /// Carries out one scenario.
    pub(super) fn own_row(&self, row: &Row, text: &str) -> anyhow::Result<Outcome> {
        let plan = self.plan_of(text, &self.cores)?;
        let stage = Stage::set(&plan, LOAD, &self.interrupt)?;
        let (loads, pulls) = match plan.kind {
            Kind::Faststart => (Vec::new(), vec![faststart::measure(&stage)?]),
            _ => (run::measurements(&stage)?, Vec::new()),
        };
        Ok(Outcome::found(row, loads, pulls))
    }

    /// The plan of a scenario on these cores, with what was asked of the whole comparison.
    pub(super) fn plan_of(&self, text: &str, cores: &Split) -> anyhow::Result<Plan> {
        let file = scenario::parse(text)?;
        let file = if self.args.tiny { scenario::tiny(file) } else { file };
        let list = |cores: &[usize]| cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let settings = Settings {
            relay: self.args.relay.clone(),
            io: self.args.io.clone(),
            // In a network of our own its routes say it, and to a user who may not choose it nobody can.
            congestion: crate::server::relay::may_choose(&self.args.congestion)
                .then(|| self.args.congestion.clone()),
            server_core: Some(list(&cores.server)),
            load_cores: Some(list(&cores.load)),
            // The folder is on the disk that is to be measured; many contents would take it hours.
            folder: self.args.folder.clone().filter(|_| file.contents.is_none()),
            // Which would cost the load more than anything that is compared.
            verify: Some(false),
            ..Settings::default()
        };
        let settings = settings.over(file);
        let kind = settings.kind.unwrap_or(Kind::Http);
        Plan::check(kind, &settings, &cores::allowed()?)
            .with_context(|| format!("the scenario {}", settings.about.as_deref().unwrap_or_default()))
    }
}
