//! sshd: open sessions with traffic, new logins meanwhile, and files copied with `scp`.

use super::meter::{Clients, Meter};
use super::{Live, Service, Subject};
use crate::debian::Root;
use crate::haproxy::{free_port, listens};
use crate::running::Running;
use anyhow::{Context as _, Result, ensure};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Sshd;

const SUBJECTS: [Subject; 2] = [
    Subject { title: "sshd", packages: &["openssh-server"], own: true },
    Subject { title: "libcrypto under it", packages: &["libssl3"], own: false },
];
const SESSIONS: usize = 3;
/// What `scp` carries, each time.
const FILE_BYTES: usize = 4 << 20;
const OPTIONS: [&str; 8] = [
    "-o",
    "StrictHostKeyChecking=no",
    "-o",
    "UserKnownHostsFile=/dev/null",
    "-o",
    "LogLevel=ERROR",
    "-i",
    "/root/.ssh/id",
];

impl Service for Sshd {
    fn name(&self) -> &'static str {
        "sshd"
    }

    fn load(&self) -> &'static str {
        "lines echoed through open sessions, new logins, files copied with scp and compared"
    }

    fn subjects(&self) -> &'static [Subject] {
        &SUBJECTS
    }

    fn note(&self) -> Option<&'static str> {
        Some(
            "sshd executes its program anew for every connection (`sshd -R`). A session that begins after a heal runs what \
             is on the disk: the old code for as long as the package is held back, until `salve heal` looks again; the new \
             code, without any heal, once the package is installed. The listener and the sessions that were open at the \
             time are what one heal reaches.",
        )
    }

    fn old_as_well(&self) -> &'static [&'static str] {
        &["openssh-client", "openssh-sftp-server"]
    }

    fn start(&self, root: &Root) -> Result<Box<dyn Live>> {
        let at = free_port()?;
        root.must_run(&["mkdir", "-p", "/run/sshd", "/root/.ssh"])?;
        root.must_run(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id"])?;
        root.must_run(&["cp", "/root/.ssh/id.pub", "/root/.ssh/authorized_keys"])?;
        let port = at.port().to_string();
        // `HOME` of whoever started it is not root's.
        let keys = "AuthorizedKeysFile=/root/.ssh/authorized_keys";
        let words = [
            "/usr/sbin/sshd",
            "-D",
            "-e",
            "-p",
            &port,
            "-o",
            "ListenAddress=127.0.0.1",
            "-o",
            keys,
            "-o",
            "MaxStartups=100",
        ];
        let mut daemon = root.start(&words, "/var/log/sshd")?;
        daemon.wait_for("sshd to listen", |_| listens(at).then_some(()))?;
        let data: Vec<u8> = (0..FILE_BYTES).map(|n| u8::try_from((n * 31 + n / 257) % 251).unwrap_or(0)).collect();
        std::fs::write(root.path("/var/tmp/data"), data).context("cannot write a file to copy")?;
        Ok(Box::new(Alive { daemon, port }))
    }
}

struct Alive {
    daemon: Running,
    port: String,
}

impl Live for Alive {
    fn clients(&mut self, root: &Root, meter: &Arc<Meter>) -> Result<Clients> {
        let mut clients = Clients::default();
        let with = |program: &'static str, port: &'static str, rest: &[&'static str]| {
            let mut words = vec![program, port, self.port.as_str()];
            words.extend(OPTIONS);
            words.extend(rest);
            root.caller(&words)
        };
        for index in 0..SESSIONS {
            let ssh = with("ssh", "-p", &["root@127.0.0.1", "cat"]);
            let meter = Arc::clone(meter);
            clients.add(format!("session {index}"), move || session(&meter, &mut ssh()));
        }
        let ssh = with("ssh", "-p", &["root@127.0.0.1", "echo", "in"]);
        let of_logins = Arc::clone(meter);
        clients.add("logins", move || {
            while of_logins.goes_on() {
                of_logins.time(|| {
                    let got = ssh().output().context("cannot run ssh")?;
                    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let (output, errors) = (said(&got.stdout), said(&got.stderr));
                    ensure!(output == "in\n", "a login said {output:?} and {errors:?}, and ended with {}", got.status);
                    Ok(())
                });
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        });
        let scp = with("scp", "-P", &["-q", "/var/tmp/data", "root@127.0.0.1:/var/tmp/copy"]);
        let (data, copy) = (root.path("/var/tmp/data"), root.path("/var/tmp/copy"));
        let meter = Arc::clone(meter);
        clients.add("scp", move || {
            let data = std::fs::read(data).context("no file to copy")?;
            while meter.goes_on() {
                meter.time(|| {
                    let done = scp().output().context("cannot run scp")?;
                    ensure!(done.status.success(), "scp: {}", String::from_utf8_lossy(&done.stderr));
                    ensure!(std::fs::read(&copy).context("no copy")? == data, "the copy differs");
                    std::fs::remove_file(&copy).context("cannot remove the copy")
                });
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        });
        Ok(clients)
    }

    fn must_run(&mut self, _root: &Root) -> Result<()> {
        self.daemon.must_run()
    }

    fn afterwards(&mut self, root: &Root, _meter: &Meter) -> Result<Vec<String>> {
        let log = std::fs::read_to_string(root.path("/var/log/sshd")).context("it left no log")?;
        let grave =
            log.lines().find(|line| ["fatal", "Corrupted", "padding error"].iter().any(|word| line.contains(word)));
        ensure!(grave.is_none(), "sshd said {grave:?}");
        Ok(vec![format!(
            "{SESSIONS} sessions stayed open from before the first heal to after the last revert; sshd's log has no fatal line"
        )])
    }
}

/// Lines through one session that stays open, each of which has to come back.
fn session(meter: &Meter, ssh: &mut std::process::Command) -> Result<()> {
    let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot run ssh")?;
    let (mut to, from) = (child.stdin.take().context("no input")?, child.stdout.take().context("no output")?);
    let mut from = BufReader::new(from);
    let mut count = 0_u64;
    while meter.goes_on() {
        count += 1;
        let line = format!("{count} {}\n", "y".repeat(500));
        let right = meter.time(|| {
            to.write_all(line.as_bytes()).context("the session is closed")?;
            let mut got = String::new();
            from.read_line(&mut got).context("the session is closed")?;
            ensure!(got == line, "line {count} came back as {got:?}");
            Ok(())
        });
        ensure!(right, "the session stopped at line {count}");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(to);
    let status = child.wait().context("ssh does not end")?;
    ensure!(status.success(), "ssh ended with {status}");
    Ok(())
}
