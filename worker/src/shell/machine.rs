//! What the machine has: processors, memory, a name. Must not know: what it is for.

use quicsand::pages;

/// Threads that the machine runs at a time.
pub(crate) fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX))
}

/// Bytes of memory that this process may use: four fifths of the machine's, or of its control group's limit if that is smaller. Where
/// neither can be read, 4 GiB.
pub(crate) fn memory() -> u64 {
    let total = read_kib("/proc/meminfo", "MemTotal:").unwrap_or(5 << 30);
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit =
        limits.iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok()).min().unwrap_or(u64::MAX);
    total.min(limit) / 5 * 4
}

/// Bytes of memory that this process uses now, but for what it keeps for a moment; 0 where that cannot be read.
pub(crate) fn used_memory() -> u64 {
    read_kib("/proc/self/status", "VmRSS:").unwrap_or(0).saturating_sub(pages::idle_bytes())
}

/// `host:process`.
pub(crate) fn name() -> String {
    let read = |path| std::fs::read_to_string(path).ok().map(|name| name.trim().to_owned());
    let host = read("/proc/sys/kernel/hostname").or_else(|| std::env::var("HOSTNAME").ok()).filter(|name| !name.is_empty());
    format!("{}:{}", host.as_deref().unwrap_or("worker"), std::process::id())
}

fn read_kib(path: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_machine_has_something() {
        assert!(super::processors() > 0);
        assert!(super::memory() > 64 << 20);
        assert!(super::name().contains(':'));
        if cfg!(target_os = "linux") {
            assert!((1 << 20..1 << 40).contains(&super::used_memory()));
        }
    }
}
