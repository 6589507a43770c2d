//! The control thread: it answers what shards ask, the admin socket, metrics, and trackers. Nothing in it can stall a shard.

mod access;
pub mod admin;
mod announce;
mod body;
mod caps;
mod contents;
pub mod describe;
pub mod documents;
mod door;
mod ears;
mod events;
mod exposition;
mod heartbeat;
pub mod index;
pub mod metrics;
mod openapi;
mod page;
mod pages;
mod parting;
mod problem;
pub mod questions;
pub mod routes;
pub mod socket;
mod status;
pub mod tracker;
mod udp_tracker;
pub mod viewer;

use std::collections::HashMap;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use millrace_engine::event::News;
use millrace_engine::ids::{ConnId, ShardId};
use millrace_engine::op::Question;
use millrace_send::Mailbox;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use crate::listen::local_addresses;
use crate::relay::Relay;
use crate::upgrade::Gate;

use announce::Announcer;
use ears::Ears;
use parting::{PATIENCE, Parting, until_replaced};
use questions::Questions;
use tracker::{Reachable, Tracker};

/// How often rates are measured and silent peers forgotten.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// A question and who waits for its answer.
#[derive(Debug)]
pub struct Asked {
    /// The shard.
    pub shard: ShardId,
    /// Its connection.
    pub conn: ConnId,
    /// What was asked.
    pub question: Box<Question>,
}

/// What the control thread is given.
#[derive(Debug)]
pub struct Parts {
    /// The relay it speaks for.
    pub relay: Arc<Relay>,
    /// What shards ask. The thread ends when all senders are gone.
    pub asks: UnboundedReceiver<Asked>,
    /// The news that shards get: that is how this thread hears of contents.
    pub news: Mailbox,
    /// The UDP side of the BitTorrent port.
    pub udp: UdpSocket,
    /// Where metrics are served, besides the admin socket.
    pub metrics: Option<TcpListener>,
    /// Where the pages for people are served, if apart from the data.
    pub pages: Option<TcpListener>,
    /// The admin socket.
    pub admin: UnixListener,
    /// What is waited for before anybody is answered.
    pub gate: Gate,
}

/// Starts the thread.
///
/// # Errors
/// The kernel gives no thread or no descriptor.
pub fn start(parts: Parts) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("control".into()).spawn(move || {
        let _fatal = crate::start::AbortOnPanic;
        parts.gate.pass();
        if let Err(error) = runtime.block_on(run(parts)) {
            tracing::error!(%error, "the control thread ends");
        }
        // Hashing that was asked for may still run; nobody waits for it any more.
        runtime.shutdown_background();
    })
}

async fn run(parts: Parts) -> io::Result<()> {
    let Parts { relay, mut asks, mut news, udp, metrics, pages, admin, .. } = parts;
    let replaced = || relay.replaced.subscribe();
    let reachable = Reachable {
        public: relay.public_url.host().and_then(|host| match host {
            url::Host::Ipv4(v4) => Some(v4.into()),
            url::Host::Ipv6(v6) => Some(v6.into()),
            url::Host::Domain(_) => None,
        }),
        bound: relay.bittorrent,
        local: local_addresses(),
    };
    let tracker = Tracker::new(reachable, relay.peer_id);
    let questions = Arc::new(Questions::new(Arc::clone(&relay), tracker));
    let announcer = Announcer::new(&questions.links, relay.peer_id).map_err(io::Error::other)?;
    let mut ears = Ears {
        questions: Arc::clone(&questions),
        events: events::Events::new(relay.replaced.subscribe()),
        announcer,
        covered: HashMap::new(),
    };
    // What was there before anything began is in the first answer.
    while let Some(first) = news.next() {
        ears.note(first);
    }
    let (events, announcer) = (ears.events.clone(), ears.announcer.clone());
    let udp = tokio::net::UdpSocket::from_std(udp)?;
    spawn_until(replaced(), udp_tracker::run(udp, Arc::clone(&questions)));
    tokio::spawn(ears.listen(news));
    tokio::spawn(sample(Arc::clone(&questions), events.clone()));
    let caps = Arc::clone(&relay.caps);
    spawn_until(replaced(), async move { caps.follow_schedule().await });
    admin.set_nonblocking(true)?;
    // One that was handed over has a path of its own.
    let address = admin.local_addr()?;
    let socket = address.as_pathname().unwrap_or(&relay.config.admin);
    let service = admin::service(Arc::clone(&questions), events, socket);
    let door = door::Door::new(tokio::net::UnixListener::from_std(admin)?);
    let (door, heard) = Parting::new(door, replaced());
    let serving = axum::serve(door, service).with_graceful_shutdown(heard);
    let mut doors = vec![tokio::spawn(async move { lost(serving.await) })];
    let routers = [
        metrics.map(|metrics| (metrics, metrics::router(Arc::clone(&questions)))),
        pages.map(|pages| (pages, pages::router(Arc::clone(&questions)))),
    ];
    for (listener, router) in routers.into_iter().flatten() {
        listener.set_nonblocking(true)?;
        let (listener, heard) = Parting::new(tokio::net::TcpListener::from_std(listener)?, replaced());
        let service = router.into_make_service_with_connect_info::<pages::Asker>();
        let serving = axum::serve(listener, service).with_graceful_shutdown(heard);
        doors.push(tokio::spawn(async move { lost(serving.await) }));
    }
    while let Some(Asked { shard, conn, question }) = asks.recv().await {
        if let Some(rest) = question.path.strip_prefix("/pull/") {
            let (questions, shards, rest) = (Arc::clone(&questions), relay.shards.clone(), rest.to_owned());
            let reply = move |answer| shards.post(shard, News::Answer { conn, answer });
            tokio::spawn(async move { questions.pull(&rest, reply).await });
        } else {
            let answer = questions.answer(&question);
            relay.shards.post(shard, News::Answer { conn, answer });
        }
    }
    if *relay.replaced.borrow() {
        let parting = async {
            for door in doors {
                let _ = door.await;
            }
        };
        // Those who have been waiting for longer have been let go.
        let _ = tokio::time::timeout(PATIENCE, parting).await;
    } else {
        // Another program says farewell in its time, under the same name.
        announcer.stop().await;
    }
    Ok(())
}

/// Runs a task until another program is the relay.
fn spawn_until(mut replaced: watch::Receiver<bool>, task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        tokio::select! {
            () = until_replaced(&mut replaced) => {}
            () = task => {}
        }
    });
}

/// Listeners are served until the thread ends, or another program is the relay.
fn lost(served: io::Result<()>) {
    if let Err(error) = served {
        tracing::error!(%error, "a socket of the control thread is lost");
    }
}

async fn sample(questions: Arc<Questions>, events: events::Events) {
    let mut every = tokio::time::interval(SAMPLE_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ticks: u64 = 0;
    let mut stuck = Vec::new();
    loop {
        every.tick().await;
        ticks += 1;
        let now_stuck = questions.stuck_shards();
        if now_stuck != stuck {
            match now_stuck.is_empty() {
                true => tracing::info!("every shard turns again"),
                false => tracing::error!("{}", heartbeat::describe(&now_stuck)),
            }
            stuck = now_stuck;
        }
        questions.index.sample();
        events.relay(&questions);
        if ticks.is_multiple_of(60) {
            questions.tracker.expire();
        }
    }
}
