//! How pulled bytes get into files: at once by `pwrite`, or through the ring, where a write takes its time.
//!
//! A write through the ring that nobody waits for any more still happens, maybe long after. So each is a task of its own that owns the
//! files and the bytes until the kernel is done with them; bytes count as written, and become visible, only after that; and
//! [`Writes::landed`] tells when no write of a content is under way, which has to be so before anybody else may write the same place.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use millrace_pagecache::content::{Content, Placement, Stream};
use millrace_proto::id::ContentId;
use tokio::sync::Notify;

use super::runtime::{self, Way};

/// Writes to the files of all contents, in one way.
#[derive(Debug)]
pub(super) struct Writes {
    way: Way,
    under_way: Arc<UnderWay>,
}

/// The ranges of each content that are being written; no entry is none.
#[derive(Debug, Default)]
struct UnderWay {
    ranges: Mutex<HashMap<ContentId, Vec<Range<u64>>>>,
    ended: Notify,
}

/// One write under way. It has ended when both have dropped this: the task that writes, and whoever waits for it and then notes it.
struct Held {
    under_way: Arc<UnderWay>,
    id: ContentId,
    range: Range<u64>,
}

impl Writes {
    /// Writes in this way, which is also that of the thread they are made on.
    #[must_use]
    pub(super) fn new(way: Way) -> Self {
        Writes { way, under_way: Arc::default() }
    }

    /// Writes `bytes` where `stream` is, and makes them visible.
    ///
    /// # Errors
    /// As [`Stream::write`], whichever the way.
    pub(super) async fn append(
        &self,
        content: &Content,
        stream: &mut Stream,
        bytes: Bytes,
    ) -> io::Result<()> {
        match self.way {
            Way::Pwrite => stream.write(&bytes),
            Way::Uring => {
                let placement = stream.place(bytes.len())?;
                let held = UnderWay::hold(&self.under_way, content.id(), placement.range());
                stream.written(through_ring(&held, placement, bytes).await?)
            }
        }
    }

    /// Writes `bytes` at `offset`. Nothing becomes visible by it.
    ///
    /// # Errors
    /// As [`Content::write`], whichever the way.
    pub(super) async fn write(&self, content: &Content, offset: u64, bytes: Bytes) -> io::Result<()> {
        match self.way {
            Way::Pwrite => content.write(offset, &bytes),
            Way::Uring => {
                let placement = content.place(offset, bytes.len())?;
                let held = UnderWay::hold(&self.under_way, content.id(), placement.range());
                content.written(through_ring(&held, placement, bytes).await?)
            }
        }
    }

    /// Waits until no write into `range` of this content is under way: what was written there is noted by then, unless nobody waited.
    pub(super) async fn landed(&self, id: ContentId, range: Range<u64>) {
        // All of this is on one thread: nothing ends between the look and the wait.
        while self.under_way.touches(id, &range) {
            self.under_way.ended.notified().await;
        }
    }
}

async fn through_ring(held: &Rc<Held>, placement: Placement, bytes: Bytes) -> io::Result<Placement> {
    to_its_end(held, async move {
        for part in placement.parts() {
            runtime::write_all_at(part.file.file(), bytes.slice(part.bytes.clone()), part.at).await?;
        }
        Ok(placement)
    })
    .await
}

/// Runs `write` to its end, even when the future that waits for it is dropped.
async fn to_its_end<T: 'static>(
    held: &Rc<Held>,
    write: impl Future<Output = io::Result<T>> + 'static,
) -> io::Result<T> {
    let held = Rc::clone(held);
    let task = tokio::task::spawn_local(async move {
        let _held = held;
        write.await
    });
    task.await.map_err(io::Error::other)?
}

impl UnderWay {
    fn hold(this: &Arc<Self>, id: ContentId, range: Range<u64>) -> Rc<Held> {
        debug_assert!(!this.touches(id, &range), "{id}: {range:?} is being written already");
        this.ranges().entry(id).or_default().push(range.clone());
        Rc::new(Held { under_way: Arc::clone(this), id, range })
    }

    /// Whether a byte of `range` is being written.
    fn touches(&self, id: ContentId, range: &Range<u64>) -> bool {
        let ranges = self.ranges();
        let of_content = ranges.get(&id).map_or(&[][..], Vec::as_slice);
        of_content.iter().any(|other| other.start < range.end && range.start < other.end)
    }

    fn ranges(&self) -> MutexGuard<'_, HashMap<ContentId, Vec<Range<u64>>>> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut ranges = self.under_way.ranges();
        if let Some(of_content) = ranges.get_mut(&self.id) {
            of_content.retain(|range| *range != self.range);
            if of_content.is_empty() {
                ranges.remove(&self.id);
            }
        }
        drop(ranges);
        self.under_way.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    #[tokio::test]
    async fn a_write_that_nobody_waits_for_is_waited_for_before_the_next() {
        let all = async {
            let writes = Writes::new(Way::Uring);
            let (id, other) = (ContentId([1; 16]), ContentId([2; 16]));
            let (done, kernel) = oneshot::channel();
            let held = UnderWay::hold(&writes.under_way, id, 0..9);
            let pull = spawn_local(async move {
                to_its_end(&held, async { kernel.await.map_err(io::Error::other) }).await
            });
            let held = UnderWay::hold(&writes.under_way, other, 0..9);
            let other_pull = spawn_local(async move { to_its_end(&held, pending::<io::Result<()>>()).await });
            yield_now().await;
            pull.abort();
            assert!(pull.await.unwrap_err().is_cancelled());
            let mut landed = Box::pin(writes.landed(id, 8..20));
            assert!((&mut landed).now_or_never().is_none(), "the kernel is not done with it");
            assert!(!done.is_closed(), "the write was given up with the pull");
            done.send(()).unwrap();
            landed.await;
            assert!(writes.landed(other, 0..1).now_or_never().is_none());
            assert!(writes.landed(other, 9..10).now_or_never().is_some());
            other_pull.abort();
        };
        LocalSet::new().run_until(all).await;
    }
}
