//! How other threads reach a shard: a queue of news, and an eventfd that is written only when the shard may be asleep.
//!
//! While a shard is busy a post costs no system call. The two sides meet as in Dekker's algorithm: the poster puts the news down and
//! then looks whether the shard sleeps; the shard says that it will sleep and then looks for news. One of them sees the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{self, Receiver, Sender};

use millrace_engine::event::News;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// The shard's end: belongs to its loop.
#[derive(Debug)]
pub struct Mailbox {
    news: Receiver<News>,
    /// News that was found while looking whether there was any.
    found: Option<News>,
    /// A poster has decided to ring, and its write had not come yet when it was to be taken back.
    rings_to_come: bool,
    bell: Arc<Bell>,
}

/// The other end: anybody may hold one.
#[derive(Debug, Clone)]
pub struct Postbox {
    news: Sender<News>,
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Bell {
    eventfd: EventFd,
    asleep: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        // The counter cannot overflow, since `asleep` lets one write through per sleep; a failed write would mean a closed
        // descriptor, which `self` owns.
        let written = self.eventfd.write(1);
        debug_assert!(written.is_ok(), "the eventfd of a mailbox takes no write: {written:?}");
    }
}

impl Postbox {
    /// Gives news to the shard and wakes it where it sleeps. News for a shard that has ended is dropped. Never waits.
    pub fn post(&self, news: News) {
        if self.news.send(news).is_err() {
            return;
        }
        fence(Ordering::SeqCst);
        if self.bell.asleep.load(Ordering::Relaxed) && self.bell.asleep.swap(false, Ordering::Relaxed) {
            self.bell.ring();
        }
    }
}

impl Mailbox {
    /// A mailbox and the first of its postboxes.
    ///
    /// # Errors
    /// No descriptor left for the eventfd.
    pub fn new() -> io::Result<(Postbox, Mailbox)> {
        let eventfd = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let bell = Arc::new(Bell { eventfd, asleep: AtomicBool::new(false) });
        let (sender, news) = mpsc::channel();
        Ok((
            Postbox { news: sender, bell: Arc::clone(&bell) },
            Mailbox { news, found: None, rings_to_come: false, bell },
        ))
    }

    /// The next piece of news, in the order of each poster. Never waits.
    #[expect(
        clippy::should_implement_trait,
        reason = "none now does not mean that none will follow, as it would of an iterator"
    )]
    pub fn next(&mut self) -> Option<News> {
        self.found.take().or_else(|| self.news.try_recv().ok())
    }

    /// Call before waiting for readiness: from now on a post makes [`as_fd`](AsFd::as_fd) readable. False when there is news
    /// already, and the loop must not wait.
    #[must_use]
    pub fn may_sleep(&mut self) -> bool {
        self.bell.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.found.is_none() {
            self.found = self.news.try_recv().ok();
        }
        self.found.is_none()
    }

    /// Call after waiting: posts need no system call again.
    pub fn wake(&mut self) {
        // False already: a poster has rung, or is about to. A write that comes later makes the next wait return at once, and is
        // taken back after that; left there it would keep the shard from ever sleeping.
        let rung = !self.bell.asleep.swap(false, Ordering::Relaxed);
        if rung || self.rings_to_come {
            self.rings_to_come = self.bell.eventfd.read().is_err();
        }
    }
}

impl AsFd for Mailbox {
    /// The eventfd, non-blocking: readable when news was posted after [`may_sleep`](Mailbox::may_sleep).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.eventfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn is_readable(mailbox: &Mailbox, timeout: PollTimeout) -> bool {
        poll(&mut [PollFd::new(mailbox.as_fd(), PollFlags::POLLIN)], timeout).unwrap() == 1
    }

    #[test]
    fn a_busy_shard_is_not_rung() {
        let (postbox, mut mailbox) = Mailbox::new().unwrap();
        postbox.post(News::Drain);
        assert!(!is_readable(&mailbox, PollTimeout::ZERO));
        assert!(!mailbox.may_sleep(), "there is news");
        mailbox.wake();
        assert!(matches!(mailbox.next(), Some(News::Drain)));
        assert!(mailbox.next().is_none());
    }

    #[test]
    fn a_sleeping_shard_is_rung_once() {
        let (postbox, mut mailbox) = Mailbox::new().unwrap();
        assert!(mailbox.may_sleep());
        postbox.post(News::Drain);
        postbox.clone().post(News::Drain);
        assert!(is_readable(&mailbox, PollTimeout::ZERO));
        mailbox.wake();
        assert!(!is_readable(&mailbox, PollTimeout::ZERO));
        assert_eq!(std::iter::from_fn(|| mailbox.next()).count(), 2);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        const POSTS: usize = 20_000;
        let (postbox, mut mailbox) = Mailbox::new().unwrap();
        let posters: Vec<_> = (0..2)
            .map(|_| {
                let postbox = postbox.clone();
                std::thread::spawn(move || (0..POSTS).for_each(|_| postbox.post(News::Drain)))
            })
            .collect();
        let mut received = 0;
        while received < 2 * POSTS {
            if mailbox.may_sleep() {
                // A lost wake-up shows as a test that hangs.
                assert!(is_readable(&mailbox, PollTimeout::NONE));
            }
            mailbox.wake();
            received += std::iter::from_fn(|| mailbox.next()).count();
        }
        assert!(mailbox.next().is_none());
        posters.into_iter().for_each(|poster| poster.join().unwrap());
    }
}
