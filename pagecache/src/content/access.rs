//! Who may have a content. It may be changed while the content is being served, and is asked about with every request: for what is
//! public that is one look at a flag.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use millrace_proto::access::Access;

use super::Content;

/// See the module.
#[derive(Debug)]
pub(super) struct Guarded {
    public: AtomicBool,
    access: ArcSwap<Access>,
}

impl Guarded {
    pub(super) fn new(access: Access) -> Self {
        Guarded { public: AtomicBool::new(access.is_public()), access: ArcSwap::from_pointee(access) }
    }
}

impl Content {
    /// Whether everybody may have it.
    #[must_use]
    #[inline]
    pub fn is_public(&self) -> bool {
        self.guarded.public.load(Ordering::Acquire)
    }

    /// Whether a client with this address may have it, whatever it brings.
    #[must_use]
    #[inline]
    pub fn admits(&self, address: IpAddr) -> bool {
        self.is_public() || self.admits_to_restricted(address)
    }

    fn admits_to_restricted(&self, address: IpAddr) -> bool {
        self.guarded.access.load().admits(address)
    }

    /// Who may have it.
    #[must_use]
    pub fn access(&self) -> Arc<Access> {
        self.guarded.access.load_full()
    }

    /// Changes who may have it; kept on disk by [`crate::Store::save_for_good`].
    pub fn set_access(&self, access: Access) {
        let public = access.is_public();
        // The flag last: it says that what is stored beside it need not be looked at.
        self.guarded.access.store(Arc::new(access));
        self.guarded.public.store(public, Ordering::Release);
    }
}
