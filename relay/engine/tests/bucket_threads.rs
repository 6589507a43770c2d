//! One bucket, several threads.

use millrace_engine::ids::Now;
use millrace_engine::ledger::bucket::Bucket;

#[test]
fn threads_share_it_without_losing_or_making_any() {
    const RATE: u64 = 10_000_000;
    let at = |us: u64| Now { monotonic_ns: 5_000_000_000 + us * 1_000, unix_s: 0 };
    let bucket = Bucket::new(RATE);
    assert!(!bucket.take(at(0), 1));
    let taken: u64 = std::thread::scope(|scope| {
        let shard = || (0..20_000).map(|step| u64::from(bucket.take(at(step * 50), 500)) * 500).sum::<u64>();
        let shards = [scope.spawn(shard), scope.spawn(shard), scope.spawn(shard)];
        shards.into_iter().map(|shard| shard.join().unwrap()).sum()
    });
    assert!(taken <= RATE + RATE / 100 && taken > RATE / 10 * 9, "{taken}");
}
