//! What this process uses: `container_cpu_usage_percent` and `container_memory_usage_bytes`.
//!
//! Read from the process's own cgroup when it has one, else from `/proc/self`. A cgroup is its own when it holds no
//! other process than this one and its parent (the shim that keeps one replica): a session's cgroup would count
//! everything else that runs in it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// Two scrapers must not shorten each other's window to nothing.
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);

/// Where the figures come from; decided once, because the two count from different zeros.
#[derive(Debug)]
enum Origin {
    Cgroup(PathBuf),
    Process,
}

#[derive(Debug)]
struct Sample {
    at: Instant,
    used: Duration,
    percent: f64,
}

/// The collector behind both gauges.
#[derive(Debug)]
pub(super) struct Usage {
    origin: Origin,
    last: Mutex<Sample>,
}

impl Usage {
    pub(super) fn of_this_process() -> Self {
        let origin = own_cgroup().map_or(Origin::Process, Origin::Cgroup);
        let used = origin.cpu_time().unwrap_or_default();
        Self { origin, last: Mutex::new(Sample { at: Instant::now(), used, percent: 0.0 }) }
    }

    /// Percent of the CPU limit, or of one core where there is none, since the scrape before.
    fn cpu_percent(&self, now: Instant) -> f64 {
        let mut last = self.last.lock();
        let window = now.saturating_duration_since(last.at);
        if window < SHORTEST_WINDOW {
            return last.percent;
        }
        let Some(used) = self.origin.cpu_time() else { return last.percent };
        let spent = used.saturating_sub(last.used).as_secs_f64();
        let percent = 100.0 * spent / window.as_secs_f64() / self.origin.cpu_limit().unwrap_or(1.0);
        *last = Sample { at: now, used, percent };
        percent
    }
}

impl Collector for Usage {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let cpu = ConstGauge::new(self.cpu_percent(Instant::now()));
        let help = "CPU used since the last scrape, percent of the limit or of one core without a limit";
        cpu.encode(encoder.encode_descriptor(
            "container_cpu_usage_percent",
            help,
            None,
            MetricType::Gauge,
        )?)?;
        let memory = ConstGauge::new(self.origin.memory().unwrap_or(0));
        let help = "Memory in use that cannot be given back, in bytes";
        memory.encode(encoder.encode_descriptor(
            "container_memory_usage_bytes",
            help,
            None,
            MetricType::Gauge,
        )?)
    }
}

impl Origin {
    fn cpu_time(&self) -> Option<Duration> {
        match self {
            Self::Cgroup(folder) => {
                field(&read(&folder.join("cpu.stat"))?, "usage_usec").map(Duration::from_micros)
            }
            Self::Process => {
                use nix::sys::time::TimeValLike;
                let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok()?;
                let spent = usage.user_time() + usage.system_time();
                u64::try_from(spent.num_microseconds()).ok().map(Duration::from_micros)
            }
        }
    }

    /// Cores that the limit allows.
    fn cpu_limit(&self) -> Option<f64> {
        let Self::Cgroup(folder) = self else { return None };
        parse_cpu_max(&read(&folder.join("cpu.max"))?)
    }

    fn memory(&self) -> Option<i64> {
        let bytes = match self {
            Self::Cgroup(folder) => {
                let used: u64 = read(&folder.join("memory.current"))?.trim().parse().ok()?;
                // File cache that the kernel drops under pressure is no use of ours (the working set's rule).
                let cache = read(&folder.join("memory.stat"))
                    .and_then(|text| field(&text, "inactive_file"))
                    .unwrap_or(0);
                used.saturating_sub(cache)
            }
            Self::Process => resident(&read(Path::new("/proc/self/status"))?)?,
        };
        i64::try_from(bytes).ok()
    }
}

fn own_cgroup() -> Option<PathBuf> {
    let name = read(Path::new("/proc/self/cgroup"))?
        .lines()
        .find_map(|line| line.strip_prefix("0::").map(str::to_owned))?;
    let folder = Path::new("/sys/fs/cgroup").join(name.trim_start_matches('/'));
    let members = read(&folder.join("cgroup.procs"))?;
    let measured = folder.join("memory.current").exists() && folder.join("cpu.stat").exists();
    let alone = only_these(&members, &[std::process::id(), std::os::unix::process::parent_id()]);
    (measured && alone).then_some(folder)
}

fn only_these(members: &str, allowed: &[u32]) -> bool {
    let mut lines = members.lines().peekable();
    lines.peek().is_some() && lines.all(|line| line.parse().is_ok_and(|pid: u32| allowed.contains(&pid)))
}

/// `cpu.max` is `QUOTA PERIOD` in microseconds, or `max PERIOD`.
fn parse_cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// `VmRSS:     1234 kB` of `/proc/self/status`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_files_are_read() {
        assert_eq!(parse_cpu_max("50000 100000\n"), Some(0.5));
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(field("usage_usec 42\nuser_usec 40\n", "usage_usec"), Some(42));
        assert_eq!(field("usage_usec 42\n", "usage"), None);
        assert_eq!(resident("VmPeak: 9 kB\nVmRSS:\t    1234 kB\n"), Some(1234 * 1024));
    }

    #[test]
    fn a_shared_cgroup_is_not_ours() {
        assert!(only_these("7\n8\n", &[7, 8]));
        assert!(only_these("7\n", &[7, 8]));
        assert!(!only_these("7\n9\n", &[7, 8]));
        // A cgroup of another namespace lists nothing.
        assert!(!only_these("", &[7, 8]));
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let usage = Usage {
            origin: Origin::Process,
            last: Mutex::new(Sample { at: Instant::now(), used: Duration::ZERO, percent: 0.0 }),
        };
        assert!(usage.origin.memory().unwrap() > 1 << 20);
        let later = Instant::now() + Duration::from_secs(2);
        let percent = usage.cpu_percent(later);
        assert!(percent > 0.0);
        // Asked again at once, the window is too short: the same answer.
        assert_eq!(usage.cpu_percent(later), percent);
    }
}
