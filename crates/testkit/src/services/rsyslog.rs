//! rsyslog with the package's configuration: a stream of numbered lines, none of which may be lost.
//!
//! Lines come in over TCP and over the local socket, as programs send them, and
//! go into files. A line is answered when it stands in its file.

use super::meter::{Clients, Meter};
use super::{Live, Service, Subject};
use crate::debian::Root;
use crate::haproxy::{free_port, listens};
use crate::running::{PATIENCE, Running};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(super) struct Rsyslog;

const SUBJECTS: [Subject; 1] = [Subject { title: "rsyslogd and its modules", packages: &["rsyslog"], own: true }];
const CLIENTS: usize = 2;
const PAUSE: Duration = Duration::from_millis(1);
/// The local socket; `/dev` is the machine's.
const SOCKET: &str = "/var/tmp/log";

impl Service for Rsyslog {
    fn name(&self) -> &'static str {
        "rsyslog"
    }

    fn load(&self) -> &'static str {
        "numbered lines over TCP and the local socket; each has to stand in its file once, in order"
    }

    fn subjects(&self) -> &'static [Subject] {
        &SUBJECTS
    }

    fn start(&self, root: &Root) -> Result<Box<dyn Live>> {
        let tcp = free_port()?;
        let port = tcp.port();
        let ours = format!(
            "module(load=\"imtcp\" MaxSessions=\"50\")
input(type=\"imtcp\" port=\"{port}\" address=\"127.0.0.1\")
input(type=\"imuxsock\" Socket=\"{SOCKET}\" RateLimit.Interval=\"0\")
template(name=\"line\" type=\"string\" string=\"%msg%\\n\")
template(name=\"file\" type=\"string\" string=\"/var/log/%programname%\")
if $programname startswith 'e2e-' then {{ action(type=\"omfile\" dynaFile=\"file\" template=\"line\") stop }}
"
        );
        std::fs::write(root.path("/etc/rsyslog.d/10-e2e.conf"), ours).context("cannot write a configuration")?;
        // The kernel's messages and the machine's socket are not this root's.
        let whole = root.path("/etc/rsyslog.conf");
        let shipped = std::fs::read_to_string(&whole).context("no rsyslog.conf")?;
        let shipped = shipped
            .replace("module(load=\"imklog\")", "")
            .replace("module(load=\"imuxsock\")", "module(load=\"imuxsock\" SysSock.Use=\"off\")");
        std::fs::write(&whole, shipped).context("cannot write rsyslog.conf")?;
        let mut daemon = root.start(&["rsyslogd", "-n", "-iNONE"], "/var/log/rsyslogd")?;
        let socket = root.path(SOCKET);
        daemon.wait_for("rsyslogd to listen", |_| (listens(tcp) && socket.exists()).then_some(()))?;
        Ok(Box::new(Alive { daemon, tcp, sent: Arc::default() }))
    }
}

struct Alive {
    daemon: Running,
    tcp: SocketAddr,
    /// Client and how many lines it sent.
    sent: Arc<Mutex<Vec<(String, u64)>>>,
}

impl Live for Alive {
    fn clients(&mut self, root: &Root, meter: &Arc<Meter>) -> Result<Clients> {
        let mut clients = Clients::default();
        for index in 0..CLIENTS {
            let mut add = |kind: &str, send: Send| {
                let name = format!("{kind}-{index}");
                let file = root.path(&format!("/var/log/e2e-{name}"));
                let (meter, sent) = (Arc::clone(meter), Arc::clone(&self.sent));
                clients.add(name.clone(), move || {
                    let count = lines(&meter, &name, &file, send)?;
                    sent.lock().unwrap_or_else(PoisonError::into_inner).push((name, count));
                    Ok(())
                });
            };
            let mut stream = TcpStream::connect(self.tcp).context("cannot connect")?;
            stream.set_nodelay(true).context("cannot set no-delay")?;
            add("tcp", Box::new(move |line| stream.write_all(format!("{line}\n").as_bytes()).context("cannot send")));
            let local = UnixDatagram::unbound().context("no socket")?;
            local.connect(root.path(SOCKET)).context("cannot reach the local socket")?;
            add("local", Box::new(move |line| local.send(line.as_bytes()).map(drop).context("cannot send")));
        }
        Ok(clients)
    }

    fn must_run(&mut self, _root: &Root) -> Result<()> {
        self.daemon.must_run()
    }

    fn afterwards(&mut self, root: &Root, _meter: &Meter) -> Result<Vec<String>> {
        let sent = std::mem::take(&mut *self.sent.lock().unwrap_or_else(PoisonError::into_inner));
        ensure!(sent.len() == 2 * CLIENTS, "only {} clients ended well", sent.len());
        for (name, count) in &sent {
            let text = std::fs::read_to_string(root.path(&format!("/var/log/e2e-{name}"))).context("no file")?;
            let mut expected = 0_u64;
            for line in text.lines() {
                expected += 1;
                ensure!(number(line) == Some(expected), "{name}: {line:?} where line {expected} has to be");
            }
            ensure!(expected == *count, "{name}: {expected} of {count} lines are there");
        }
        let all: u64 = sent.iter().map(|(_, count)| count).sum();
        Ok(vec![format!("all {all} lines stand in their files, each once and in order")])
    }
}

type Send = Box<dyn FnMut(&str) -> Result<()> + std::marker::Send>;

/// Sends lines until the meter ends; gives how many.
fn lines(meter: &Meter, name: &str, file: &Path, mut send: Send) -> Result<u64> {
    let mut tail = Tail { path: file.to_path_buf(), file: None, rest: Vec::new() };
    let mut count = 0;
    while meter.goes_on() {
        count += 1;
        // RFC 3164: priority, time, host, tag, message; long enough to matter.
        let line = format!("<13>Jan  1 00:00:00 host e2e-{name}: {count} {}", "x".repeat(200));
        let line = if name.starts_with("local") { line.replace("host ", "") } else { line };
        let right = meter.time(|| {
            send(&line)?;
            let got = tail.next_line()?;
            ensure!(number(&got) == Some(count), "{name}: {got:?} came instead of line {count}");
            Ok(())
        });
        ensure!(right, "{name} stopped at line {count}");
        std::thread::sleep(PAUSE);
    }
    Ok(count)
}

fn number(line: &str) -> Option<u64> {
    line.split_whitespace().next()?.parse().ok()
}

/// Reads what is appended to a file.
struct Tail {
    path: PathBuf,
    file: Option<File>,
    rest: Vec<u8>,
}

impl Tail {
    fn next_line(&mut self) -> Result<String> {
        let since = Instant::now();
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.file.is_none() {
                self.file = File::open(&self.path).ok();
            }
            let more = match &mut self.file {
                Some(file) => file.read_to_end(&mut self.rest).context("cannot read the log")?,
                None => 0,
            };
            if more == 0 {
                if since.elapsed() > PATIENCE {
                    bail!("a line did not come within {} s", PATIENCE.as_secs());
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }
}
