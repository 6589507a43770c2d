//! What holds now: two layers and the entries of their schedules made into one set of caps.
//!
//! Of all values that name the same thing, the lowest wins, wherever it stands: in the operator's document, in the controller's, or in
//! an entry of a schedule that is in force. So nothing that is added can lift a cap, and every cap that is read holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::schedule::next_change;
use super::{Caps, CapsError, Cidr, CivilTime, ContentCaps, Egress, Limit, Origin, ScheduleEntry, Window};
use crate::id::ContentId;
use crate::units::Rate;

/// Whose document it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The operator's.
    Local,
    /// The controller's.
    Controller,
}

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source {
    /// In whose document.
    pub layer: Layer,
    /// In which entry of its schedule, from 0; `None` is the document itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<usize>,
}

/// A value that holds, and where it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cap {
    /// Bytes a second, connections or bytes: 0 is paused, `None` is unlimited.
    pub value: Option<u64>,
    /// Where it stands; `None` of what is unlimited.
    #[serde(flatten)]
    pub source: Option<Source>,
}

/// Everything that holds at a time. Rates are bytes a second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveCaps {
    /// What may be sent.
    pub egress: EffectiveEgress,
    /// What may be taken from origins.
    pub origin: EffectiveOrigin,
    /// What holds for single contents.
    pub contents: BTreeMap<ContentId, EffectiveContent>,
    /// The entries of schedules that are in force.
    #[serde(default)]
    pub schedule: Vec<InForce>,
    /// Seconds by the clock on the wall until another set of entries is in force; `None` if that never happens.
    #[serde(default)]
    pub changes_in_s: Option<u32>,
}

/// What may be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveEgress {
    /// Everything.
    pub total: Cap,
    /// Over HTTP.
    pub http: Cap,
    /// Over BitTorrent.
    pub bittorrent: Cap,
    /// On each connection.
    pub per_connection: Cap,
    /// To groups of clients; only groups with a limit. No two have the same networks. A client that several contain is held by each.
    pub networks: Vec<EffectiveNetwork>,
}

/// Clients that share a cap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveNetwork {
    /// Their networks, in order and each once: what tells the group from others.
    pub cidr: Vec<Cidr>,
    /// What is sent to all of them together.
    pub total: Cap,
}

/// What may be taken from origins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveOrigin {
    /// Bytes a second.
    pub bandwidth: Cap,
    /// Connections at a time.
    pub connections: Cap,
    /// Bytes in each window; only windows with a limit, in order.
    pub volume: Vec<EffectiveVolume>,
    /// Grants, of all layers: an origin that several name needs all of them.
    #[serde(default)]
    pub grants: Vec<EffectiveGrant>,
}

/// The right to use an origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveGrant {
    /// Scheme, host and port.
    pub origin: String,
    /// What it is called.
    pub id: String,
    /// Bytes that may be taken.
    pub bytes: u64,
    /// From when on nothing more is asked for, in seconds since 1970.
    pub until: Option<u64>,
    /// Where it stands.
    #[serde(flatten)]
    pub source: Source,
}

/// Bytes that may be taken in a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveVolume {
    /// Which window.
    pub window: Window,
    /// Bytes.
    pub bytes: Cap,
}

/// Cap and rank of one content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveContent {
    /// What is sent of it, over both protocols.
    pub egress: Cap,
    /// Larger goes first; `None` is what the content was added with. The operator's word goes before the controller's.
    pub priority: Option<i32>,
}

/// An entry of a schedule that is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// Which.
    #[serde(flatten)]
    pub source: Source,
    /// Seconds by the clock on the wall until it is not any more; `None` if it always is.
    pub ends_in_s: Option<u32>,
}

/// Both layers, checked against each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layers {
    local: Caps,
    controller: Caps,
}

impl Layers {
    /// Both documents. A percentage is of the `line_rate` of its own document, or else of the operator's.
    ///
    /// # Errors
    /// A percentage where no `line_rate` is known.
    pub fn new(local: Caps, controller: Caps) -> Result<Layers, CapsError> {
        let layers = Layers { local, controller };
        for layer in [Layer::Local, Layer::Controller] {
            if layers.line_rate(layer).is_none() && has_share(layers.layer(layer)) {
                let reason = match layer {
                    Layer::Local => {
                        "a percentage is of `line_rate`: name that as well, such as \"line_rate\": \"10Gbit/s\""
                    }
                    Layer::Controller => {
                        "the layer of the controller has a percentage of it: name it in either layer"
                    }
                };
                return Err(CapsError { path: "line_rate".to_owned(), reason: reason.to_owned() });
            }
        }
        Ok(layers)
    }

    /// One of the documents.
    #[must_use]
    pub fn layer(&self, layer: Layer) -> &Caps {
        match layer {
            Layer::Local => &self.local,
            Layer::Controller => &self.controller,
        }
    }

    /// With another document in one of the layers.
    ///
    /// # Errors
    /// As [`Layers::new`].
    pub fn with(&self, layer: Layer, caps: Caps) -> Result<Layers, CapsError> {
        match layer {
            Layer::Local => Layers::new(caps, self.controller.clone()),
            Layer::Controller => Layers::new(self.local.clone(), caps),
        }
    }

    /// What holds at `now`.
    #[must_use]
    pub fn effective(&self, now: CivilTime) -> EffectiveCaps {
        let mut held = EffectiveCaps::default();
        for layer in [Layer::Local, Layer::Controller] {
            let (caps, line_rate) = (self.layer(layer), self.line_rate(layer));
            // The entry goes before the document, as the exception before the rule, where only one of them can hold.
            for (index, entry) in caps.schedule.iter().enumerate().filter(|(_, entry)| entry.is_in_force(now))
            {
                let source = Source { layer, schedule: Some(index) };
                held.schedule.push(InForce { source, ends_in_s: next_change(&[entry], now) });
                Lowering { held: &mut held, source, line_rate }.all(
                    &entry.egress,
                    &entry.origin,
                    &entry.contents,
                );
            }
            let source = Source { layer, schedule: None };
            Lowering { held: &mut held, source, line_rate }.all(&caps.egress, &caps.origin, &caps.contents);
        }
        held.egress.networks.sort_by(|a, b| a.cidr.cmp(&b.cidr));
        held.origin.volume.sort_by_key(|volume| volume.window);
        let entries: Vec<&ScheduleEntry> =
            self.local.schedule.iter().chain(&self.controller.schedule).collect();
        held.changes_in_s = next_change(&entries, now);
        held
    }

    /// The entries of schedules that are in force, in the order of [`EffectiveCaps::schedule`].
    #[must_use]
    pub fn in_force(&self, now: CivilTime) -> Vec<Source> {
        let layers = [Layer::Local, Layer::Controller].into_iter();
        let entries = layers.flat_map(|layer| {
            let entries = self.layer(layer).schedule.iter().enumerate();
            entries.map(move |(index, entry)| (Source { layer, schedule: Some(index) }, entry))
        });
        entries.filter(|(_, entry)| entry.is_in_force(now)).map(|(source, _)| source).collect()
    }

    fn line_rate(&self, layer: Layer) -> Option<Rate> {
        self.layer(layer).line_rate.or(self.local.line_rate)
    }
}

/// Takes one place's values in.
struct Lowering<'a> {
    held: &'a mut EffectiveCaps,
    source: Source,
    line_rate: Option<Rate>,
}

impl Lowering<'_> {
    fn all(&mut self, egress: &Egress, origin: &Origin, contents: &BTreeMap<ContentId, ContentCaps>) {
        let Lowering { source, line_rate, .. } = *self;
        let rate = |limit: Option<Limit>| limit.and_then(|limit| limit.bytes_per_second(line_rate));
        let held = &mut self.held.egress;
        held.total.lower(rate(egress.total), source);
        held.http.lower(rate(egress.http), source);
        held.bittorrent.lower(rate(egress.bittorrent), source);
        held.per_connection.lower(rate(egress.per_connection), source);
        for network in egress.networks.iter().filter(|network| network.total.is_some()) {
            let mut cidr = network.cidr.clone();
            cidr.sort_unstable();
            cidr.dedup();
            let known = held.networks.iter().position(|known| known.cidr == cidr);
            let index = known.unwrap_or(held.networks.len());
            if known.is_none() {
                held.networks.push(EffectiveNetwork { cidr, total: Cap::default() });
            }
            held.networks[index].total.lower(rate(network.total), source);
        }
        self.origin(origin, rate(origin.bandwidth));
        for (id, content) in contents {
            let held = self.held.contents.entry(*id).or_default();
            held.egress.lower(rate(content.egress), source);
            held.priority = held.priority.or(content.priority);
        }
    }

    fn origin(&mut self, origin: &Origin, bandwidth: Option<u64>) {
        let (held, source) = (&mut self.held.origin, self.source);
        held.bandwidth.lower(bandwidth, source);
        held.connections.lower(origin.connections.map(u64::from), source);
        for volume in origin.volume.iter().filter(|volume| volume.bytes.is_some()) {
            let known = held.volume.iter().position(|known| known.window == volume.window);
            let index = known.unwrap_or(held.volume.len());
            if known.is_none() {
                held.volume.push(EffectiveVolume { window: volume.window, bytes: Cap::default() });
            }
            held.volume[index].bytes.lower(volume.bytes.map(|bytes| bytes.0), source);
        }
        held.grants.extend(origin.grants.iter().map(|grant| EffectiveGrant {
            origin: grant.origin.clone(),
            id: grant.id.clone(),
            bytes: grant.bytes.0,
            until: grant.until,
            source,
        }));
    }
}

impl Cap {
    /// Takes `value` where it is lower. Of equal ones the first stays.
    fn lower(&mut self, value: Option<u64>, source: Source) {
        if let Some(value) = value.filter(|value| self.value.is_none_or(|held| *value < held)) {
            *self = Cap { value: Some(value), source: Some(source) };
        }
    }
}

fn has_share(caps: &Caps) -> bool {
    let places = caps.schedule.iter().map(|entry| (&entry.egress, &entry.origin, &entry.contents));
    places.chain([(&caps.egress, &caps.origin, &caps.contents)]).any(|(egress, origin, contents)| {
        let of_networks = egress.networks.iter().map(|network| network.total);
        let of_contents = contents.values().map(|content| content.egress);
        [egress.total, egress.http, egress.bittorrent, egress.per_connection, origin.bandwidth]
            .into_iter()
            .chain(of_networks)
            .chain(of_contents)
            .any(|limit| matches!(limit, Some(Limit::Share(_))))
    })
}
