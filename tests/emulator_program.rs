//! The emulator as a program: what it says, how it ends, and what it never prints.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used
)]

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

const TOKEN: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
const LONG: Duration = Duration::from_secs(30);

/// `cargo test` builds it, as it does all examples. `cargo test --test emulator_program` builds none: then
/// an existing one is used, or if there is none, it is built now.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // …/debug/deps/emulator_program-0123456789abcdef
        let this = env::current_exe().unwrap();
        let folder = this.parent().unwrap().parent().unwrap();
        let program = folder.join("examples/metadata_server");
        if !program.exists() {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--quiet", "--example", "metadata_server"]);
            if folder.ends_with("release") {
                cargo.arg("--release");
            }
            // The variables that cargo sets for a test would make build scripts run again.
            for (name, _) in env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_")) {
                cargo.env_remove(name);
            }
            cargo.env_remove("CARGO_MANIFEST_DIR");
            cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
            assert!(cargo.status().unwrap().success());
        }
        program
    })
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

/// Refused: exit code 2, one line on stderr, nothing on stdout.
fn refusal(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(output.stdout, b"");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("metadata_server: "), "{stderr}");
    stderr
}

/// A running program, killed if the test ends without having stopped it.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    host: String,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut running = Self {
            child,
            lines,
            host: String::new(),
        };
        let first = running.line();
        assert!(first.starts_with("metadata server on http://"), "{first}");
        let export = running.line();
        let both = export.strip_prefix("export GCE_METADATA_HOST=").unwrap();
        let (host, same) = both.split_once(" GCE_METADATA_IP=").unwrap();
        assert_eq!(host, same);
        running.host = host.to_owned();
        running
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(LONG).expect("a line")
    }

    /// Sends one request and returns the whole response.
    fn ask(&self, request_line: &str) -> String {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        let head = format!(
            "{request_line} HTTP/1.1\r\nHost: {}\r\nMetadata-Flavor: Google\r\n\
             Connection: close\r\n\r\n",
            self.host
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Sends a signal, and returns the exit code, how long the exit took, and all unread output.
    fn stop(mut self, signal: &str) -> (Option<i32>, Duration, String) {
        let begun = Instant::now();
        let kill = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
        let status = self.child.wait().unwrap();
        let took = begun.elapsed();
        let mut rest: String = self.lines.iter().collect();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut rest)
            .unwrap();
        (status.code(), took, rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Has no effect if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn access_token(answer: &str) -> &str {
    let (_, rest) = answer.split_once("\"access_token\":\"").unwrap();
    rest.split_once('"').unwrap().0
}

/// A folder with a `gcloud` that does what `script` says.
struct Gcloud(PathBuf);

impl Gcloud {
    fn new(name: &str, script: &str) -> Self {
        let folder = env::temp_dir().join(format!("gcloud-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let program = folder.join("gcloud");
        // Written under another name first: a file that is open for writing cannot be run.
        let unfinished = folder.join("unfinished");
        fs::write(&unfinished, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(unfinished, program).unwrap();
        Self(folder)
    }

    /// The program with this gcloud, or with none.
    fn command(path: &Path, args: &[&str]) -> Command {
        let mut command = command(args);
        command.env("PATH", format!("{}:/usr/bin:/bin", path.display()));
        command
    }
}

impl Drop for Gcloud {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const LOGGED_IN: &str = r#"case "$*" in
  *print-access-token*) echo ya29.the-developers-own-token ;;
  *print-identity-token*) echo no >&2; exit 1 ;;
  *get-value*project*) echo my-project ;;
  *get-value*account*) echo me@example.com ;;
  *) exit 1 ;;
esac"#;

#[test]
fn help_is_help() {
    for flag in ["--help", "-h"] {
        let output = run(&[flag]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{text}"
        );
        assert!(text.contains("Usage: metadata_server [OPTIONS]"), "{text}");
        for option in [
            "--port",
            "--bind",
            "--source",
            "--lifetime",
            "--quiet",
            "--danger-",
        ] {
            assert!(text.contains(option), "{option}");
        }
        assert!(
            text.lines().all(|line| line.len() <= 100),
            "fits a terminal"
        );
    }
}

#[test]
fn a_bad_argument_is_one_line_and_exit_code_2() {
    for (args, said) in [
        (&["--prot", "1"][..], "--prot"),
        (
            &["--port", "65536"],
            "--port \"65536\": expected 0 to 65535",
        ),
        (&["--port"], "--port"),
        (&["--bind", "localhost"], "expected an IP address"),
        (&["--source", "vault"], "expected fixed or gcloud"),
        (&["--lifetime", "1h"], "expected a number of seconds"),
        (&["--lifetime", "0"], "at least 1 s"),
        (&["--email", "nobody"], "expected an e-mail address"),
        (&["--impersonate", "a@b.c"], "--source gcloud"),
        (
            &["--danger-serve-my-tokens-to-the-network"],
            "--source gcloud",
        ),
        (
            &["--source", "gcloud", "--lifetime", "60"],
            "--source fixed",
        ),
        (&["extra"], "extra"),
    ] {
        let told = refusal(&run(args));
        assert!(told.contains(said), "{args:?}: {told}");
    }
}

#[test]
fn a_busy_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let told = refusal(&run(&["--port", &port]));
    assert!(
        told.contains(&format!("127.0.0.1:{port} is in use")),
        "{told}"
    );
    assert!(told.contains("--port"), "{told}");
}

#[test]
fn one_line_for_each_request_and_no_token_in_any() {
    let server = Running::start(command(&["--port", "0"]));
    let answer = server.ask(&format!("GET {TOKEN}"));
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let token = access_token(&answer).to_owned();
    assert_eq!(server.line(), format!("GET {TOKEN} 200"));

    let scoped = format!("GET {TOKEN}?scopes=a%2Cb&access_token={token}&{token}");
    server.ask(&scoped);
    assert_eq!(
        server.line(),
        format!("GET {TOKEN}?scopes=a%2Cb&...&... 200")
    );

    let detection = server.ask("GET /");
    assert!(
        detection.contains("\r\nMetadata-Flavor: Google\r\n"),
        "{detection}"
    );
    assert_eq!(server.line(), "GET / 200");
    server.ask("GET /nowhere");
    assert_eq!(server.line(), "GET /nowhere 404");

    let (_, _, rest) = server.stop("-INT");
    assert_eq!(rest, "", "nothing else was said");
}

#[test]
fn what_it_is_told_it_says() {
    let args = [
        "--port",
        "0",
        "--project",
        "mine",
        "--email",
        "me@example.com",
        "--scopes",
        "a,b",
        "--universe-domain",
        "example.goog",
        "--lifetime",
        "77",
    ];
    let server = Running::start(command(&args));
    for (path, body) in [
        ("project/project-id", "mine"),
        ("instance/service-accounts/default/email", "me@example.com"),
        ("instance/service-accounts/me@example.com/scopes", "a\nb\n"),
        ("universe/universe-domain", "example.goog"),
    ] {
        let answer = server.ask(&format!("GET /computeMetadata/v1/{path}"));
        let (_, found) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(found, body, "{path}");
    }
    let answer = server.ask(&format!("GET {TOKEN}"));
    assert!(answer.contains("\"expires_in\":77"), "{answer}");
}

#[test]
fn quiet_is_quiet() {
    let server = Running::start(command(&["--port", "0", "--quiet"]));
    server.ask(&format!("GET {TOKEN}"));
    let (_, _, rest) = server.stop("-INT");
    assert_eq!(rest, "");
}

#[test]
fn ctrl_c_and_a_request_to_terminate_end_it_at_once() {
    for signal in ["-INT", "-TERM"] {
        let server = Running::start(command(&["--port", "0"]));
        // A client that keeps its connection open does not keep the server running.
        let idle = TcpStream::connect(&server.host).unwrap();
        let (code, took, _) = server.stop(signal);
        assert_eq!(code, Some(0), "{signal}");
        assert!(took < Duration::from_secs(5), "{signal}: {took:?}");
        drop(idle);
    }
}

#[test]
fn with_gcloud_it_serves_the_developers_own_tokens_and_prints_none() {
    let gcloud = Gcloud::new("logged-in", LOGGED_IN);
    let args = ["--port", "0", "--source", "gcloud"];
    let server = Running::start(Gcloud::command(&gcloud.0, &args));
    let answer = server.ask(&format!("GET {TOKEN}"));
    assert_eq!(access_token(&answer), "ya29.the-developers-own-token");
    let (_, left) = answer.split_once("\"expires_in\":").unwrap();
    let left: u64 = left.split(',').next().unwrap().parse().unwrap();
    assert!((1..=240).contains(&left), "what is left of it: {left}");
    assert_eq!(server.line(), format!("GET {TOKEN} 200"));

    let project = server.ask("GET /computeMetadata/v1/project/project-id");
    assert!(project.ends_with("\r\n\r\nmy-project"), "{project}");
    let email = server.ask("GET /computeMetadata/v1/instance/service-accounts/default/email");
    assert!(email.ends_with("\r\n\r\nme@example.com"), "{email}");

    // From a web page whose host name was made to point here.
    let mut stream = TcpStream::connect(&server.host).unwrap();
    let head = format!(
        "GET {TOKEN} HTTP/1.1\r\nHost: evil.example\r\nMetadata-Flavor: Google\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");

    let (_, _, rest) = server.stop("-INT");
    assert!(!rest.contains("ya29."), "{rest}");
}

#[test]
fn without_gcloud_or_a_login_it_says_so() {
    let nowhere = Path::new("/nonexistent");
    let mut missing = command(&["--port", "0", "--source", "gcloud"]);
    missing.env("PATH", nowhere);
    let told = refusal(&missing.output().unwrap());
    assert!(told.contains("gcloud"), "{told}");

    let gcloud = Gcloud::new(
        "logged-out",
        "echo 'ERROR: (gcloud.auth) You are not logged in.' >&2; exit 1",
    );
    let args = ["--port", "0", "--source", "gcloud"];
    let told = refusal(&Gcloud::command(&gcloud.0, &args).output().unwrap());
    assert!(told.contains("You are not logged in."), "{told}");
}

#[test]
fn real_tokens_leave_loopback_only_if_somebody_says_so() {
    let gcloud = Gcloud::new("exposed", LOGGED_IN);
    let args = ["--port", "0", "--source", "gcloud", "--bind", "0.0.0.0"];
    let told = refusal(&Gcloud::command(&gcloud.0, &args).output().unwrap());
    assert!(
        told.contains("--danger-serve-my-tokens-to-the-network"),
        "{told}"
    );
}
