//! How the box is, as the kernel tells in /proc: CPU, memory, network, disks. What cannot be read is left out.

use std::time::Instant;

use millrace_proto::control::report::Machine;

/// Bytes of a sector of /proc/diskstats, whatever the disk has.
const SECTOR_BYTES: u64 = 512;

/// Measures from one look to the next.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    before: Option<(Instant, Counters)>,
}

/// What only grows.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Counters {
    cpu: Option<Cpu>,
    network: Option<Flow>,
    disks: Option<Vec<Disk>>,
}

/// Ticks of all cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cpu {
    idle: u64,
    all: u64,
}

/// Bytes in and out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    received: u64,
    sent: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Disk {
    name: String,
    read_bytes: u64,
    written_bytes: u64,
    busy_ms: u64,
}

impl Meter {
    /// How the box is now.
    pub(crate) fn look(&mut self) -> Machine {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{name}")).ok();
        let counters = Counters {
            cpu: read("stat").as_deref().and_then(cpu),
            network: read("net/dev").as_deref().map(network),
            disks: read("diskstats").as_deref().map(|text| disks(text, is_whole)),
        };
        let memory = read("meminfo").unwrap_or_default();
        let mut machine = Machine {
            cores: std::thread::available_parallelism()
                .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1)),
            load_1m: read("loadavg").and_then(|text| text.split(' ').next()?.parse().ok()),
            memory_bytes: kibibytes(&memory, "MemTotal"),
            memory_available_bytes: kibibytes(&memory, "MemAvailable"),
            ..Machine::default()
        };
        let now = Instant::now();
        if let Some((at, before)) = self.before.replace((now, counters.clone())) {
            compare(&mut machine, &before, &counters, now.duration_since(at).as_secs_f64());
        }
        machine
    }
}

/// Fills in what two looks tell.
fn compare(machine: &mut Machine, before: &Counters, now: &Counters, seconds: f64) {
    if let (Some(before), Some(now)) = (before.cpu, now.cpu) {
        let all = now.all.saturating_sub(before.all);
        machine.cpu_busy = part(all.saturating_sub(now.idle.saturating_sub(before.idle)), all);
    }
    let rate = |before: u64, now: u64| per_second(now.saturating_sub(before), seconds);
    if let (Some(before), Some(now)) = (before.network, now.network) {
        machine.received_rate = Some(rate(before.received, now.received));
        machine.sent_rate = Some(rate(before.sent, now.sent));
    }
    if let (Some(before), Some(now)) = (&before.disks, &now.disks) {
        let sum = |disks: &[Disk], of: fn(&Disk) -> u64| disks.iter().map(of).fold(0, u64::wrapping_add);
        machine.disk_read_rate =
            Some(rate(sum(before, |disk| disk.read_bytes), sum(now, |disk| disk.read_bytes)));
        machine.disk_write_rate =
            Some(rate(sum(before, |disk| disk.written_bytes), sum(now, |disk| disk.written_bytes)));
        let busy = now.iter().filter_map(|disk| {
            let before = before.iter().find(|before| before.name == disk.name)?;
            // Milliseconds of a few seconds fit.
            let busy_ms = u32::try_from(disk.busy_ms.saturating_sub(before.busy_ms)).ok()?;
            Some((f64::from(busy_ms) / 1_000.0 / seconds).clamp(0.0, 1.0))
        });
        machine.disk_busy = busy.filter(|busy| busy.is_finite()).reduce(f64::max);
    }
}

fn part(some: u64, all: u64) -> Option<f64> {
    let thousandths = u32::try_from(some.checked_mul(1_000)?.checked_div(all)?).ok()?;
    Some(f64::from(thousandths.min(1_000)) / 1_000.0)
}

fn per_second(count: u64, seconds: f64) -> u64 {
    let milliseconds = std::time::Duration::try_from_secs_f64(seconds).map_or(0, |time| time.as_millis());
    let rate = u128::from(count) * 1_000 / milliseconds.max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// The first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
fn cpu(text: &str) -> Option<Cpu> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).filter_map(|ticks| ticks.parse().ok()).collect();
    let idle = ticks.get(3)?.saturating_add(*ticks.get(4)?);
    Some(Cpu { idle, all: ticks.iter().fold(0, |sum, ticks| sum.saturating_add(*ticks)) })
}

/// /proc/net/dev, without loopback.
fn network(text: &str) -> Flow {
    let mut flow = Flow { received: 0, sent: 0 };
    for (name, counts) in text.lines().filter_map(|line| line.split_once(':')) {
        let counts: Vec<u64> = counts.split_whitespace().filter_map(|count| count.parse().ok()).collect();
        if let (false, Some(received), Some(sent)) = (name.trim() == "lo", counts.first(), counts.get(8)) {
            flow.received = flow.received.wrapping_add(*received);
            flow.sent = flow.sent.wrapping_add(*sent);
        }
    }
    flow
}

/// /proc/diskstats, of the disks that are `counted`.
fn disks(text: &str, counted: impl Fn(&str) -> bool) -> Vec<Disk> {
    let disk = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| words.get(index)?.parse::<u64>().ok();
        let name = (*words.get(2)?).to_owned();
        let (read, written, busy_ms) = (number(5)?, number(9)?, number(12)?);
        counted(&name).then(|| Disk {
            name,
            read_bytes: read.wrapping_mul(SECTOR_BYTES),
            written_bytes: written.wrapping_mul(SECTOR_BYTES),
            busy_ms,
        })
    };
    text.lines().filter_map(disk).collect()
}

/// Whether it is a disk of its own: no partition, and nothing that stands on other disks.
fn is_whole(name: &str) -> bool {
    let device = std::path::Path::new("/sys/block").join(name).join("device");
    device.exists()
}

fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let stat = "cpu  10 0 10 70 10 0 0 0 5 5\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(cpu(stat), Some(Cpu { idle: 80, all: 100 }));
        let dev = "Inter-| Receive |\n face |bytes |\n    lo: 9 0 0 0 0 0 0 0 9 0\n  eth0: 100 1 0 0 0 0 0 0 200 2 0 0 0 0 0 0\n";
        assert_eq!(network(dev), Flow { received: 100, sent: 200 });
        let diskstats =
            "   8       0 sda 5 0 16 7 3 0 8 9 0 40 16 0 0\n   8       1 sda1 5 0 16 7 3 0 8 9 0 40 16\n";
        let found = disks(diskstats, |name| name == "sda");
        let sda = Disk { name: "sda".to_owned(), read_bytes: 8192, written_bytes: 4096, busy_ms: 40 };
        assert_eq!(found, [sda]);
        assert_eq!(kibibytes("MemTotal:  2 kB\nMemFree: 1 kB\n", "MemTotal"), Some(2048));
    }

    #[test]
    fn two_looks_make_rates() {
        let counters = |factor: u64| Counters {
            cpu: Some(Cpu { idle: 30 * factor, all: 40 * factor }),
            network: Some(Flow { received: 1_000 * factor, sent: 2_000 * factor }),
            disks: Some(vec![Disk {
                name: "sda".to_owned(),
                read_bytes: 10 * factor,
                written_bytes: 20 * factor,
                busy_ms: 500 * factor,
            }]),
        };
        let mut machine = Machine::default();
        compare(&mut machine, &counters(1), &counters(3), 2.0);
        assert_eq!((machine.cpu_busy, machine.disk_busy), (Some(0.25), Some(0.5)));
        assert_eq!((machine.received_rate, machine.sent_rate), (Some(1_000), Some(2_000)));
        assert_eq!((machine.disk_read_rate, machine.disk_write_rate), (Some(10), Some(20)));
        // A counter that began anew is no flood.
        compare(&mut machine, &counters(3), &counters(1), 2.0);
        assert_eq!(machine.received_rate, Some(0));
        let mut meter = Meter::default();
        assert!(meter.look().cores > 0);
    }
}
