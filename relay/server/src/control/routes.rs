//! What there is under an HTTP address besides the bytes of contents. The list is also that of the doors behind which nothing is shown
//! to who may not have it: a test goes through all of it.

use millrace_proto::id::ContentName;

/// One address, or what is known of one content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// The page for people.
    Home,
    /// All contents.
    Index,
    /// The tracker.
    Announce,
    /// What it counts.
    Scrape,
    /// Whether the process answers.
    Health,
    /// Whether the relay is of use.
    Ready,
    /// For search engines.
    Robots,
    /// The page's icon.
    Icon,
    /// The same, for who asks without having read the page.
    OldIcon,
}

impl Route {
    /// Every address.
    pub const ALL: [Route; 9] = [
        Route::Home,
        Route::Index,
        Route::Announce,
        Route::Scrape,
        Route::Health,
        Route::Ready,
        Route::Robots,
        Route::Icon,
        Route::OldIcon,
    ];

    /// Its path.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Route::Home => "/",
            Route::Index => "/index.json",
            Route::Announce => "/announce",
            Route::Scrape => "/scrape",
            Route::Health => "/healthz",
            Route::Ready => "/readyz",
            Route::Robots => "/robots.txt",
            Route::Icon => "/favicon.svg",
            Route::OldIcon => "/favicon.ico",
        }
    }

    /// The address of this path.
    #[must_use]
    pub fn of(path: &str) -> Option<Route> {
        Route::ALL.into_iter().find(|route| route.path() == path)
    }
}

/// A document about one content, below `/c/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    /// The page of a folder.
    Page,
    /// Its status.
    Json,
    /// Its metalink.
    Metalink,
    /// Its torrent.
    Torrent,
    /// The torrent of its v1 half.
    V1Torrent,
}

impl Aspect {
    /// Every document.
    pub const ALL: [Aspect; 5] =
        [Aspect::Page, Aspect::Json, Aspect::Metalink, Aspect::Torrent, Aspect::V1Torrent];

    /// What is behind the content's name.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Aspect::Page => "",
            Aspect::Json => ".json",
            Aspect::Metalink => ".meta4",
            Aspect::Torrent => ".torrent",
            Aspect::V1Torrent => ".v1.torrent",
        }
    }

    /// Which document of which content a path names.
    #[must_use]
    pub fn of(path: &str) -> Option<(ContentName, Aspect)> {
        let rest = path.strip_prefix("/c/")?.trim_end_matches('/');
        let (name, suffix) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
        let aspect = Aspect::ALL.into_iter().find(|aspect| aspect.suffix() == suffix)?;
        Some((name.parse().ok()?, aspect))
    }
}
