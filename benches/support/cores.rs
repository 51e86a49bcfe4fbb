//! Threads on logical CPUs of their own, which may be two threads of one core: the row without a layer tells.
//!
//! Threads that wake each other begin on one core, and the system may take some milliseconds to part them:
//! half of a short measurement, in which each gets half of a core.

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
