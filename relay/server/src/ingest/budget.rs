//! What the origins may be charged: requests at a time, bytes a second, and how many bytes there have been.
//!
//! One budget for all pulls. The cap on connections and the cap on bandwidth change while pulls run, without a disconnect.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// No cap on bandwidth.
const UNLIMITED: u64 = u64::MAX;

/// The caps on origins, and the count.
#[derive(Debug)]
pub struct OriginBudget {
    connections: Arc<Semaphore>,
    /// The cap on requests at a time, and how many permits are still to be taken back because it fell.
    granted: Mutex<usize>,
    /// Bytes a second.
    bandwidth: AtomicU64,
    /// When the bytes received so far will have been paid for.
    paid_at: Mutex<Instant>,
    bytes_total: AtomicU64,
}

impl OriginBudget {
    /// A budget of this many requests at a time (at least one) and bytes a second (`None` is unlimited).
    #[must_use]
    pub fn new(connections: usize, bandwidth: Option<u64>) -> Self {
        let connections = connections.max(1);
        OriginBudget {
            connections: Arc::new(Semaphore::new(connections)),
            granted: Mutex::new(connections),
            bandwidth: AtomicU64::new(bandwidth.unwrap_or(UNLIMITED)),
            paid_at: Mutex::new(Instant::now()),
            bytes_total: AtomicU64::new(0),
        }
    }

    /// Changes the cap on requests at a time, at least one. Those under way finish.
    pub fn set_connections(&self, connections: usize) {
        let connections = connections.max(1);
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        if connections > *granted {
            self.connections.add_permits(connections - *granted);
        } else if connections < *granted {
            // Permits in use cannot be forgotten now: a waiter takes them as they come back.
            let excess = *granted - connections;
            let now = self.connections.forget_permits(excess);
            let later = u32::try_from(excess - now).unwrap_or(u32::MAX);
            if later > 0 && tokio::runtime::Handle::try_current().is_ok() {
                let semaphore = Arc::clone(&self.connections);
                tokio::spawn(async move {
                    if let Ok(permits) = semaphore.acquire_many_owned(later).await {
                        permits.forget();
                    }
                });
            }
        }
        *granted = connections;
    }

    /// Changes the cap on bandwidth; `Some(0)` pauses.
    pub fn set_bandwidth(&self, bandwidth: Option<u64>) {
        self.bandwidth.store(bandwidth.unwrap_or(UNLIMITED), Ordering::Relaxed);
    }

    /// Bytes of bodies received from all origins.
    #[must_use]
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total.load(Ordering::Relaxed)
    }

    /// The right to have a request under way, if there is one now.
    pub fn try_request(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }

    /// Waits until another request may be made, without taking the right to it.
    pub async fn wait_for_request(&self) {
        drop(self.connections.acquire().await);
    }

    /// Counts `bytes` that arrived, and waits until they are paid for: the reader that waits stops reading, and TCP tells the
    /// origin.
    pub async fn pay(&self, bytes: u64) {
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
        loop {
            match self.bandwidth.load(Ordering::Relaxed) {
                UNLIMITED => return,
                // Paused: look again now and then, since nobody tells us of a change.
                0 => tokio::time::sleep(Duration::from_millis(100)).await,
                rate => return self.sleep_for(bytes, rate).await,
            }
        }
    }

    async fn sleep_for(&self, bytes: u64, rate: u64) {
        let price = Duration::from_nanos(
            u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX),
        );
        let until = {
            let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
            *paid_at = (*paid_at).max(Instant::now()) + price;
            *paid_at
        };
        tokio::time::sleep_until(until.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_capped_and_the_cap_moves() {
        let budget = OriginBudget::new(2, None);
        let held: Vec<_> = (0..2).map(|_| budget.try_request().unwrap()).collect();
        assert!(budget.try_request().is_none());
        budget.set_connections(3);
        let third = budget.try_request().unwrap();
        budget.set_connections(1);
        drop((held, third));
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        let only = budget.try_request().unwrap();
        assert!(budget.try_request().is_none());
        drop(only);
        budget.pay(7).await;
        assert_eq!(budget.bytes_total(), 7);
    }
}
