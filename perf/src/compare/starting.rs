//! Starting the servers of a row.

use std::path::Path;

use anyhow::Context as _;
use millrace_proto::metainfo::Metainfo;

use super::contest::{Contest, TORRENT_NAME};
use super::outcome::Comparison;
use super::row::{Row, Who};
use crate::interrupt::Interrupted;
use crate::peers::{Absent, Found, Ground, Peer, Seed, bare, libtorrent, nginx, rqbit, transmission};
use crate::server::Server;
use crate::server::relay::{self, RelayPlan};
use crate::server::remote::InfohashKind;

impl Contest<'_> {
    /// Our relay, with the test file taken in and everything known that it computes of it.
    pub(super) fn start_ours(&self, row: &Row, file: &Path, scratch: &Path) -> anyhow::Result<Server> {
        let folder = scratch.join("millrace");
        std::fs::create_dir(&folder)?;
        let plan = RelayPlan {
            program: relay::find(self.args.relay.as_deref())?,
            cores: self.cores.server.clone(),
            folder: folder.clone(),
            sources: vec![file.to_str().context("a path that is not UTF-8")?.to_owned()],
            connections: row.connections(),
            io: self.args.io.clone(),
            // The network sees to it, where it is ours.
            congestion: None,
            infohash: InfohashKind::V1,
            egress: None,
            pull_through: None,
        };
        let torrent = row.needs_torrent();
        let length = self.args.content_bytes.0;
        let mut server =
            plan.start(&self.interrupt)?.into_server(&plan.program, length, torrent, &self.interrupt)?;
        relay::wait_for_digest(&mut server, length, &self.interrupt)?;
        Ok(server)
    }

    /// Those of the others that are installed and wanted.
    ///
    /// # Errors
    /// The relay tells no torrent, or Ctrl-C.
    pub(super) fn start_peers(
        &self,
        row: &Row,
        file: &Path,
        scratch: &Path,
        servers: &mut Vec<(Who, Server)>,
        comparison: &mut Comparison,
    ) -> anyhow::Result<()> {
        let seed = if row.needs_torrent() { Some(self.seed(&mut servers[0].1, scratch)?) } else { None };
        for entry in row.entries[1..].iter().filter(|entry| self.args.is_against(entry.who)) {
            let found = match self.look(entry.who) {
                Ok(found) => found,
                Err(Absent { name, remedy }) => {
                    comparison.note(format!("{name} is not compared: {remedy}"));
                    continue;
                }
            };
            for peer in found {
                let folder = scratch.join(format!("peer-{}", servers.len()));
                std::fs::create_dir(&folder)?;
                let ground = Ground {
                    file,
                    length: self.args.content_bytes.0,
                    folder: &folder,
                    cores: &self.cores.server,
                    connections: row.connections(),
                    seed: seed.as_ref(),
                    interrupt: &self.interrupt,
                };
                match peer.start(&ground) {
                    Ok(server) => servers.push((entry.who, server)),
                    Err(error) if error.is::<Interrupted>() => return Err(error),
                    Err(error) => comparison.note(format!("{}: not compared: {error:#}", row.name)),
                }
            }
        }
        Ok(())
    }

    pub(super) fn look(&self, who: Who) -> Found {
        match who {
            // One is there already, the others are no servers.
            Who::Millrace | Who::Fio | Who::Openssl | Who::Direct | Who::Origin => Ok(Vec::<Peer>::new()),
            Who::Nginx(flavour) => nginx::look(flavour),
            Who::Libtorrent => libtorrent::look(),
            Who::Transmission => transmission::look(self.own_network),
            Who::Rqbit => rqbit::look(),
            Who::Bare => bare::look(),
        }
    }

    /// The v1 half of the relay's torrent, which everybody can read; the relay is asked by it as well.
    fn seed(&self, relay: &mut Server, scratch: &Path) -> anyhow::Result<Seed> {
        let torrent = relay::about_content(relay, "torrent")?;
        let half = Metainfo::parse(&torrent)?.v1_half().context("the relay's torrent has no v1 half")?;
        let half = Metainfo { announce: Vec::new(), web_seeds: Vec::new(), ..half };
        let path = scratch.join(TORRENT_NAME);
        std::fs::write(&path, half.to_bytes())?;
        let infohash = half.infohash_v1().context("a v1 torrent without an infohash")?.0;
        relay.bittorrent.as_mut().context("the relay has no torrent")?.infohash = infohash;
        Ok(Seed { path, infohash, piece_bytes: half.info.piece_bytes })
    }
}
