//! Threads on logical CPUs of their own, which may be two threads of one core: the row without a layer tells.
//!
//! Threads that wake each other begin on one core, and the system may take some milliseconds to part them:
//! half of a short measurement, in which each gets half of a core.
//!
//! And CPUs that do not halt: to wake a virtual one that did is a call of the hypervisor, some microseconds
//! of whoever sends to it.

/// Keeps this thread on the `number`-th of the CPUs that the process may use.
#[cfg(target_os = "linux")]
pub(crate) fn stay_on_core(number: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    use std::sync::OnceLock;

    /// Asked for before any thread is bound: one that is hands its bond on to those it starts.
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

/// Elsewhere the system decides.
#[cfg(not(target_os = "linux"))]
pub(crate) fn stay_on_core(_number: usize) {}

/// Asks that no CPU halts for as long as the file is open, where the system lets this process ask: root, as a
/// rule (Documentation/power/pm_qos_interface.rst in Linux' sources). One without a driver for idle CPUs takes
/// no notice.
#[allow(
    dead_code,
    reason = "not every bench has threads that wait for each other"
)]
pub(crate) fn keep_awake() -> Option<std::fs::File> {
    use std::{fs::OpenOptions, io::Write};

    /// In microseconds: nobody may take any time to wake up.
    const LONGEST_WAKE_UP: i32 = 0;

    let mut latency = OpenOptions::new()
        .write(true)
        .open("/dev/cpu_dma_latency")
        .ok()?;
    latency.write_all(&LONGEST_WAKE_UP.to_ne_bytes()).ok()?;
    Some(latency)
}
