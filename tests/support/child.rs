//! A test in a process of its own: runs the test binary again, for that one test, which then takes the
//! other branch of its function.
//!
//! Knows processes. Does not know what a test says to its child, or hears from it.

use std::{
    env,
    ffi::OsStr,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Set in a process that a test started; its value is what that test says to it.
pub const CHILD: &str = "TOWER_SCOPED_AUTH_TEST_CHILD";

/// In a child: what the parent says.
pub fn told() -> Option<String> {
    env::var(CHILD).ok()
}

/// A command that runs this test (by its full name) in a process of its own, and says `tell` to it.
pub fn rerun(test: &str, tell: &str) -> Command {
    rerun_under(env::current_exe().unwrap(), &[], test, tell)
}

/// The same, through another program that runs the command in its last arguments.
pub fn rerun_under(
    program: impl AsRef<OsStr>,
    arguments: &[&OsStr],
    test: &str,
    tell: &str,
) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .arg("--include-ignored")
        .env(CHILD, tell)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Waits for the child to end, which it must do in time and successfully.
pub fn end(mut child: Child, limit: Duration) -> Output {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > limit {
            child.kill().unwrap();
        }
        thread::sleep(Duration::from_millis(1));
    }
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{} after {:?}\n{stdout}{stderr}",
        output.status,
        begun.elapsed()
    );
    assert!(stdout.contains("1 passed"), "no such test\n{stdout}");
    output
}
