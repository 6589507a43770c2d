//! A relay as it is seen from outside: its contents, their files and torrents, by its public addresses alone.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use millrace_proto::admin::{ContentState, ContentStatus, Index};
use millrace_proto::metainfo::Metainfo;
use url::Url;

use super::{HttpFile, Server, Torrent, fetch};

/// Where a relay is, and what of it is to be measured.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    pub(crate) bittorrent: SocketAddr,
    /// Content id, infohash or name; `None` is the first complete one.
    pub(crate) content: Option<String>,
    pub(crate) infohash: InfohashKind,
}

/// Which infohash peers are asked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum InfohashKind {
    #[default]
    V1,
    V2,
}

impl Remote {
    /// The relay of a URL; its BitTorrent port is 6881 unless told otherwise.
    ///
    /// # Errors
    /// A URL that is not `http://`, or a name that cannot be resolved.
    pub(crate) fn parse(url: &str, bittorrent: Option<SocketAddr>) -> anyhow::Result<Self> {
        let url = Url::parse(url).with_context(|| format!("--target {url}"))?;
        if url.scheme() != "http" {
            bail!("--target {url}: only http:// is measured");
        }
        let addresses = url.socket_addrs(|| None).with_context(|| format!("--target {url}"))?;
        let address = *addresses.first().with_context(|| format!("--target {url}: no address"))?;
        let bittorrent = bittorrent.unwrap_or_else(|| SocketAddr::new(address.ip(), 6881));
        let host = url.authority().to_owned();
        Ok(Remote { address, host, bittorrent, content: None, infohash: InfohashKind::V1 })
    }

    /// A content of a relay, by HTTP alone.
    pub(crate) fn at(address: SocketAddr, content: &str) -> Self {
        let (host, content) = (address.to_string(), Some(content.to_owned()));
        Remote { address, host, bittorrent: address, content, infohash: InfohashKind::V1 }
    }

    /// Whether it answers and is ready.
    pub(crate) fn is_ready(&self) -> bool {
        fetch::get(self.address, &self.host, "/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// The content to measure, if it is complete; with its torrent where `torrent` is wanted.
    ///
    /// # Errors
    /// The relay does not answer, or its pull failed.
    pub(crate) fn complete(&self, torrent: bool) -> anyhow::Result<Option<ContentStatus>> {
        let index: Index = serde_json::from_slice(&fetch::get_ok(self.address, &self.host, "/index.json")?)
            .with_context(|| format!("http://{}/index.json", self.host))?;
        let named = |content: &&ContentStatus| match &self.content {
            None => true,
            Some(name) => {
                let hashes = [&content.infohash_v1, &content.infohash_v2];
                content.id == *name
                    || content.name == *name
                    || hashes.iter().any(|hash| hash.as_ref() == Some(name))
            }
        };
        let candidates: Vec<ContentStatus> = index.contents.iter().filter(named).cloned().collect();
        if let [ContentStatus { state: ContentState::Failed, error, .. }] = candidates.as_slice() {
            bail!("the relay failed to take the content in: {}", error.as_deref().unwrap_or("no reason"));
        }
        let usable = |content: &ContentStatus| {
            content.state == ContentState::Complete && (!torrent || content.torrent_url.is_some())
        };
        Ok(candidates.into_iter().find(usable))
    }

    /// Everything that load needs to know.
    ///
    /// # Errors
    /// The relay does not answer, or not as it should.
    pub(crate) fn describe(&self, content: &ContentStatus, torrent: bool) -> anyhow::Result<Server> {
        let file_url = Url::parse(&content.http_url).context("the URL of the content")?;
        let file = match content.files.as_slice() {
            [] | [_] => HttpFile {
                address: self.address,
                host: self.host.clone(),
                path: file_url[url::Position::BeforePath..].to_owned(),
                length: content.length.context("the content has no length")?,
            },
            _ => bail!("{} is a folder: name a content of one file", content.name),
        };
        Ok(Server {
            name: "millrace".into(),
            version: String::new(),
            pid: None,
            http: Some(file),
            bittorrent: if torrent { Some(self.torrent(content)?) } else { None },
            metrics: None,
            process: None,
        })
    }

    fn torrent(&self, content: &ContentStatus) -> anyhow::Result<Torrent> {
        let path = format!("/c/{}.torrent", content.id);
        let bytes = fetch::get_ok(self.address, &self.host, &path)?;
        let metainfo = Metainfo::parse(&bytes).with_context(|| path.clone())?;
        let infohash = match self.infohash {
            InfohashKind::V1 => metainfo.infohash_v1().map(|hash| hash.0),
            InfohashKind::V2 => metainfo.infohash_v2().and_then(|hash| hash.0.first_chunk().copied()),
        };
        Ok(Torrent {
            address: self.bittorrent,
            infohash: infohash.with_context(|| format!("{path} has no infohash of that version"))?,
            piece_bytes: metainfo.info.piece_bytes,
            length: metainfo.info.length,
            one_address_each: false,
        })
    }
}
