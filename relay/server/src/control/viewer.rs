//! Who looks: whatever is shown of contents is shown to somebody, and what is not for him is not there.

use std::net::IpAddr;

use millrace_pagecache::Content;

/// Who looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewer {
    /// Whoever may use the admin socket, and the relay itself: sees everything.
    Operator,
    /// A client with this address.
    Client(IpAddr),
}

impl Viewer {
    /// Whether a content is there for him.
    #[must_use]
    pub fn sees(self, content: &Content) -> bool {
        match self {
            Viewer::Operator => true,
            Viewer::Client(address) => content.admits(address),
        }
    }
}
