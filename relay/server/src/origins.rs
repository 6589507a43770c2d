//! The origins of pull-through, which a reload may replace while they are used.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use url::Url;

use crate::config::Origin;

/// Origins by name; clones see the same.
#[derive(Debug, Clone, Default)]
pub struct Origins(Arc<ArcSwap<BTreeMap<String, Origin>>>);

impl Origins {
    /// These.
    #[must_use]
    pub fn new(origins: BTreeMap<String, Origin>) -> Self {
        Origins(Arc::new(ArcSwap::from_pointee(origins)))
    }

    /// From now on these. What is being pulled goes on with what it began with.
    pub fn replace(&self, origins: BTreeMap<String, Origin>) {
        self.0.store(Arc::new(origins));
    }

    /// The origin of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Origin> {
        self.0.load().get(name).cloned()
    }

    /// The URLs of all.
    #[must_use]
    pub fn urls(&self) -> Vec<Url> {
        self.0.load().values().map(|origin| origin.url.clone()).collect()
    }
}
