//! Binds threads to logical CPUs of their own. Two of these may share a core: the row without a layer shows
//! whether they do.
//!
//! Threads that wake each other start on one core, and the system may take some milliseconds to separate them:
//! that is half of a short measurement, during which each gets half of a core.
//!
//! Also keeps CPUs from halting: waking a halted virtual CPU takes a call to the hypervisor, which costs the
//! thread that sends to it some microseconds.

/// Keeps this thread on the `number`-th of the CPUs that the process may use.
#[cfg(target_os = "linux")]
pub(crate) fn stay_on_core(number: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    use std::sync::OnceLock;

    /// Read before any thread is bound: a bound thread passes its binding on to those it starts.
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();

    let cores = ALLOWED.get_or_init(|| {
        let allowed = sched_getaffinity(None).expect("the cores");
        (0..CpuSet::MAX_CPU)
            .filter(|core| allowed.is_set(*core))
            .collect()
    });
    let mut own = CpuSet::new();
    own.set(cores[number % cores.len()]);
    sched_setaffinity(None, &own).expect("a core of those allowed");
}

/// On other systems the scheduler decides.
#[cfg(not(target_os = "linux"))]
pub(crate) fn stay_on_core(_number: usize) {}

/// Asks that no CPU halts for as long as the file is open, if the system lets this process ask, which usually
/// takes root (Documentation/power/pm_qos_interface.rst in the Linux sources). A system without a driver for
/// idle CPUs ignores it.
#[allow(
    dead_code,
    reason = "not every bench has threads that wait for each other"
)]
pub(crate) fn keep_awake() -> Option<std::fs::File> {
    use std::{fs::OpenOptions, io::Write};

    /// In microseconds: waking up may take no time at all.
    const LONGEST_WAKE_UP: i32 = 0;

    let mut latency = OpenOptions::new()
        .write(true)
        .open("/dev/cpu_dma_latency")
        .ok()?;
    latency.write_all(&LONGEST_WAKE_UP.to_ne_bytes()).ok()?;
    Some(latency)
}
