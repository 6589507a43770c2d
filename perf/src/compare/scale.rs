//! Rows about whether a byte costs the same with more of something: contents, bytes of a file, shards. Each scenario has a relay of its own,
//! or shares one with those that need the same; all are measured in turn.

use std::time::Duration;

use super::contest::{Contest, LOAD, WARM_UP};
use super::outcome::Outcome;
use super::row::{Row, Who};
use super::side::Side;
use crate::cores::{self, Split};
use crate::load::Load;
use crate::measure::{Window, measure};
use crate::plan::Plan;
use crate::run;
use crate::server::Server;
use crate::stage::Stage;

/// Longest run: there are many of them, and it is CPU time that is compared, which is steady sooner than rates.
const DURATION_MAX: Duration = Duration::from_secs(3);

/// How often everything is asked for, on average and at random, before anything is measured: a relay reads what is asked for the first time
/// past the page cache, and brings it into memory only when it is asked for again. After so many, nearly all of it is hot.
const WARM_ASKED: u64 = 6;

/// Longest time for that.
const WARM_MAX: Duration = Duration::from_secs(120);

/// A relay that runs, and what it was started for.
struct Running<'a> {
    stage: Stage<'a>,
    server: Server,
}

/// One side, ready to be measured.
struct Contender {
    running: usize,
    load: Load,
    window: Window,
    side: Side,
}

impl Contest<'_> {
    /// Measures the scenarios in turn; each but the last is judged by the last.
    pub(super) fn scale_row(&self, row: &Row, scenarios: &[&str]) -> anyhow::Result<Outcome> {
        let plans = scenarios.iter().map(|text| self.plan_of(text, &self.cores));
        self.in_turn(row, &plans.collect::<anyhow::Result<Vec<Plan>>>()?)
    }

    /// One scenario by a relay of two shards, judged by one of a single shard; `None` where there are too few cores for it.
    pub(super) fn shards_row(&self, row: &Row, scenario: &str) -> anyhow::Result<Option<Outcome>> {
        let [first, second, third, fourth, ..] = cores::allowed()?[..] else { return Ok(None) };
        let load = vec![third, fourth];
        let two = self.plan_of(scenario, &Split { server: vec![first, second], load: load.clone() })?;
        let one = self.plan_of(scenario, &Split { server: vec![first], load })?;
        self.in_turn(row, &[two, one]).map(Some)
    }

    fn in_turn(&self, row: &Row, plans: &[Plan]) -> anyhow::Result<Outcome> {
        let mut running: Vec<Running<'_>> = Vec::new();
        let mut contenders = Vec::new();
        for plan in plans {
            let known = running.iter().position(|running| running.stage.plan.has_same_relay(plan));
            if known.is_none() {
                let stage = Stage::set(plan, LOAD, &self.interrupt)?;
                let server = stage.server()?;
                running.push(Running { stage, server });
            }
            let known = known.unwrap_or(running.len() - 1);
            let Running { stage, server } = &running[known];
            let window = Window {
                warm_up: WARM_UP,
                duration: self.duration.min(DURATION_MAX),
                ..run::window(plan, stage)
            };
            let asked = match plan.cores.server.len() {
                1 => window.workload.clone(),
                shards => format!("{}, {shards} shards", window.workload),
            };
            let side = Side::new(Who::Millrace, &server.name, &server.version, asked, &plan.cores);
            contenders.push(Contender { running: known, load: plan.load(server)?, window, side });
        }
        for Contender { running: at, load, window, .. } in &contenders {
            let answers = load.http.as_ref().map(|http| http.distinct() * WARM_ASKED);
            let warming = Window { warm_up: Duration::ZERO, duration: WARM_MAX, answers, ..window.clone() };
            let is_tiny = self.args.tiny || answers.is_none();
            measure(&running[*at].server, load, if is_tiny { window } else { &warming }, &self.interrupt)?;
        }
        for _ in 0..self.args.repeats {
            for Contender { running: at, load, window, side } in &mut contenders {
                side.runs.push(measure(&running[*at].server, load, window, &self.interrupt)?);
            }
        }
        Ok(Outcome::judge_each(row, contenders.into_iter().map(|contender| contender.side).collect()))
    }
}
