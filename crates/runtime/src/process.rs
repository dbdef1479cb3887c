//! What this process may use of the machine, and what it uses.
//!
//! The memory limit is the smallest of the cgroups' that this process lies in (v2 or v1) and the machine's
//! memory. Read from `/proc` and `/sys`; what cannot be read does not limit.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Memory that this process may use, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryTotal {
    /// In bytes.
    pub bytes: u64,
    /// Who sets it.
    pub source: MemorySource,
}

/// Who sets the memory limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemorySource {
    /// A control group (a container, a systemd unit).
    Cgroup,
    /// The machine's memory.
    Machine,
}

/// Returns the memory that this process may use; none when `/proc` is not there.
pub fn memory_total() -> Option<MemoryTotal> {
    total_below(Path::new("/"))
}

/// Returns the bytes of this process that lie in memory; none when `/proc` is not there.
pub fn resident_bytes() -> Option<u64> {
    // The second number is the resident pages. 0.3 µs a call.
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Returns the processor time that this process has used, in user and kernel mode.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Returns how many files and sockets this process has open; none when `/proc` is not there.
pub fn open_files() -> Option<usize> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count())
}

/// Returns how many files and sockets this process may have open; none when that is not limited.
pub fn open_files_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// Lets this process open as many files and sockets as its hard limit allows; the soft one is often 1024.
pub fn raise_open_files_max() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Without the right to it the limit stays as it is, which the metrics show.
    let _refused = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err();
}

/// Returns the machine's name, for URLs that others are to use.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn total_below(root: &Path) -> Option<MemoryTotal> {
    let machine = machine_bytes(root).map(|bytes| MemoryTotal { bytes, source: MemorySource::Machine });
    let cgroup = cgroup_bytes(root).map(|bytes| MemoryTotal { bytes, source: MemorySource::Cgroup });
    // A limit above the machine's memory ("no limit" is about 2^63 in v1) limits nothing.
    [machine, cgroup].into_iter().flatten().min_by_key(|total| total.bytes)
}

fn machine_bytes(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn cgroup_bytes(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mut smallest: Option<u64> = None;
    for line in groups.lines() {
        // "0::/path" in v2, "4:memory:/path" in v1.
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            "memory" => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // Every group above limits too. In a container the path may be the host's, which is not
        // mounted; the mount's root is then the container's own group, and it is always looked at.
        let mount = root.join(mount);
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let limit = fs::read_to_string(mount.join(group).join(file)).ok();
            // "max" is no number and no limit.
            if let Some(limit) = limit.and_then(|limit| limit.trim().parse().ok()) {
                smallest = Some(smallest.map_or(limit, |smallest| smallest.min(limit)));
            }
        }
    }
    smallest
}

#[cfg(test)]
mod tests {
    use super::*;
    use MemorySource::{Cgroup, Machine};

    fn check(files: &[(&str, &str)], expected: Option<(u64, MemorySource)>) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let expected = expected.map(|(bytes, source)| MemoryTotal { bytes, source });
        assert_eq!(total_below(root.path()), expected, "{files:?}");
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let machine = ("proc/meminfo", "MemFree: 1 kB\nMemTotal:       1000 kB\n");
        let v2 = ("proc/self/cgroup", "0::/a/b\n");
        check(&[], None);
        check(&[machine], Some((1_024_000, Machine)));
        check(&[machine, v2, ("sys/fs/cgroup/a/b/memory.max", "max\n")], Some((1_024_000, Machine)));
        check(
            &[machine, v2, ("sys/fs/cgroup/a/b/memory.max", "500000\n"), ("sys/fs/cgroup/a/memory.max", "4096\n")],
            Some((4096, Cgroup)),
        );
        // A container that sees only its own group, at the mount's root.
        check(&[machine, v2, ("sys/fs/cgroup/memory.max", "8192\n")], Some((8192, Cgroup)));
        let v1 = ("proc/self/cgroup", "3:cpu:/x\n4:memory:/x\n");
        let file = "sys/fs/cgroup/memory/x/memory.limit_in_bytes";
        check(&[machine, v1, (file, "9223372036854771712\n")], Some((1_024_000, Machine)));
        check(&[machine, v1, (file, "2048\n")], Some((2048, Cgroup)));
    }

    #[test]
    fn this_process_has_memory_and_uses_some() {
        let total = memory_total().unwrap().bytes;
        let resident = resident_bytes().unwrap();
        assert!(resident > 100_000 && resident < total, "{resident} of {total}");
    }

    #[test]
    fn what_is_used_is_within_what_may_be_used() {
        assert!(cpu_time() > Duration::ZERO);
        let open = open_files().unwrap();
        assert!(open > 0 && open_files_max().is_none_or(|max| open as u64 <= max));
        assert!(!host_name().is_empty());
    }
}
