//! What the kernel says of processes, and what is asked of it for a measurement.

use std::fs;
use std::io;

/// The memory of this process and of the page tables that map it, in bytes.
pub(crate) fn memory_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let kibibytes = |field: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|rest| rest.trim_end_matches("kB").trim().parse().ok());
        number.unwrap_or_else(|| panic!("/proc/self/status has no `{field}`"))
    };
    1024 * (kibibytes("VmRSS:") + kibibytes("VmPTE:"))
}

/// The time that the threads of a process have been on a CPU, in nanoseconds. Exact, unlike the
/// ticks of `/proc/PID/stat`.
pub(crate) fn cpu_nanos(pid: u32) -> io::Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
        total += schedstat.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap();
    }
    Ok(total)
}

/// How many CPUs this process may use.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get())
}

/// Keeps the calling thread, and the threads it will make, on one CPU. On a machine with a single
/// one, or where that CPU is not ours, nothing changes.
pub(crate) fn pin(cpu: usize) {
    // SAFETY: a cpu_set_t is an array of bits, for which zero is a value; `sched_setaffinity`
    // reads as many bytes of it as it is told.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// Raises the number of fds this process may have to the hard limit, and returns it.
pub(crate) fn raise_fd_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls are given a pointer to a live rlimit.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

/// Ends this process when its parent ends, so that a bench that was interrupted leaves none.
pub(crate) fn die_with_parent() {
    // SAFETY: PR_SET_PDEATHSIG takes a signal's number.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Asks a process to end.
pub(crate) fn terminate(pid: u32) {
    // SAFETY: `kill` takes numbers. The caller has started the process and not yet waited for it.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) };
}
