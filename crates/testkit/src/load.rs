//! Steady HTTP traffic, every answer of which is checked byte for byte.
//!
//! Three kinds of clients, because each breaks in its own way when a server is
//! disturbed: *fresh* ones open a connection for every request, *kept* ones
//! send all requests over one connection that must never close, and *quiet*
//! ones open a connection, use it once, stay silent for the whole run and then
//! use it again.

use crate::backend::body_of;
use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How much traffic.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub fresh: usize,
    pub kept: usize,
    pub quiet: usize,
    /// Pause of each client between two requests.
    pub pause: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self { fresh: 4, kept: 4, quiet: 8, pause: Duration::from_millis(2) }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub requests: u64,
    /// Requests over a connection of their own.
    pub fresh: u64,
    /// Requests over connections that stayed open all the time.
    pub kept: u64,
    pub failed: u64,
    /// The first few failures, in words.
    pub failures: Vec<String>,
    /// From the first byte sent to the last received.
    pub longest: Duration,
}

/// Longest silence that a client bears; then the request has failed.
const TIMEOUT: Duration = Duration::from_secs(10);
const FAILURES_KEPT: usize = 5;

/// Traffic that runs until it is ended.
#[derive(Debug)]
pub struct Load {
    ending: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Report>>,
}

impl Load {
    pub fn start(server: SocketAddr, plan: Plan) -> Result<Self> {
        let ending = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        // Opened here, so that whoever starts the load knows that they are there.
        let mut quiet = (0..plan.quiet).map(|_| Connection::open(server)).collect::<Result<Vec<_>>>()?;
        let mut opening = Report::default();
        for (index, connection) in quiet.iter_mut().enumerate() {
            opening.count(connection.get(&format!("/64/quiet-{index}")), false);
        }
        let mut clients = Vec::new();
        for index in 0..plan.fresh {
            let shared = (Arc::clone(&ending), Arc::clone(&sent));
            clients.push(std::thread::spawn(move || fresh(server, index, plan.pause, &shared)));
        }
        for index in 0..plan.kept {
            let shared = (Arc::clone(&ending), Arc::clone(&sent));
            clients.push(std::thread::spawn(move || kept(server, index, plan.pause, &shared)));
        }
        let until = Arc::clone(&ending);
        clients.push(std::thread::spawn(move || silent(quiet, opening, &until)));
        Ok(Self { ending, sent, clients })
    }

    /// Requests answered so far by the busy clients.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits for `more` further answers, so that a step is known to have had traffic.
    pub fn pass(&self, more: u64) -> Result<()> {
        let (since, goal) = (Instant::now(), self.sent() + more);
        while self.sent() < goal {
            if since.elapsed() > crate::running::PATIENCE {
                bail!("the traffic stands still at {} answers", self.sent());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Ends the traffic and adds it up.
    pub fn end(mut self) -> Report {
        self.ending.store(true, Ordering::Relaxed);
        let mut total = Report::default();
        for client in self.clients.drain(..) {
            match client.join() {
                Ok(part) => total.add(part),
                Err(_) => total.count(Err(anyhow::anyhow!("a client of the load generator broke")), false),
            }
        }
        total
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

impl Report {
    fn count(&mut self, outcome: Result<Duration>, fresh: bool) {
        self.requests += 1;
        *(if fresh { &mut self.fresh } else { &mut self.kept }) += 1;
        match outcome {
            Ok(took) => self.longest = self.longest.max(took),
            Err(error) => {
                self.failed += 1;
                if self.failures.len() < FAILURES_KEPT {
                    self.failures.push(format!("{error:#}"));
                }
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.fresh += other.fresh;
        self.kept += other.kept;
        self.failed += other.failed;
        self.longest = self.longest.max(other.longest);
        let room = FAILURES_KEPT.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.into_iter().take(room));
    }
}

type Shared = (Arc<AtomicBool>, Arc<AtomicU64>);

fn fresh(server: SocketAddr, client: usize, pause: Duration, (ending, sent): &Shared) -> Report {
    let mut report = Report::default();
    let mut turn = 0_u64;
    while !ending.load(Ordering::Relaxed) {
        turn += 1;
        let outcome = Connection::open(server).and_then(|mut c| c.get(&path("fresh", client, turn)));
        report.count(outcome, true);
        sent.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(pause);
    }
    report
}

fn kept(server: SocketAddr, client: usize, pause: Duration, (ending, sent): &Shared) -> Report {
    let mut report = Report::default();
    let mut connection = match Connection::open(server) {
        Ok(connection) => connection,
        Err(error) => {
            report.count(Err(error), false);
            return report;
        }
    };
    let mut turn = 0_u64;
    while !ending.load(Ordering::Relaxed) {
        turn += 1;
        let outcome = connection.get(&path("kept", client, turn));
        let lost = outcome.is_err();
        report.count(outcome, false);
        sent.fetch_add(1, Ordering::Relaxed);
        if lost {
            // A kept connection that broke is not opened again: that would hide it.
            return report;
        }
        std::thread::sleep(pause);
    }
    report
}

fn silent(mut connections: Vec<Connection>, opening: Report, ending: &AtomicBool) -> Report {
    let mut report = opening;
    while !ending.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
    for (index, connection) in connections.iter_mut().enumerate() {
        let outcome = connection.get(&format!("/64/quiet-again-{index}"));
        report.count(outcome.context("a connection that was silent all the time"), false);
    }
    report
}

/// Lengths from a few bytes to several of a proxy's buffers.
fn path(kind: &str, client: usize, turn: u64) -> String {
    let length = [1, 100, 1500, 5000, 20_000].get(usize::try_from(turn % 5).unwrap_or(0)).copied().unwrap_or(1);
    format!("/{length}/{kind}-{client}-{turn}")
}

/// One HTTP/1.1 connection.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server, TIMEOUT).context("cannot connect")?;
        stream.set_read_timeout(Some(TIMEOUT)).context("cannot set a timeout")?;
        stream.set_write_timeout(Some(TIMEOUT)).context("cannot set a timeout")?;
        stream.set_nodelay(true).context("cannot set no-delay")?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// One request and its whole answer, compared with what it has to be.
    fn get(&mut self, path: &str) -> Result<Duration> {
        self.fetch(path, &body_of(path))
    }

    /// The same for any target and body.
    pub(crate) fn fetch(&mut self, path: &str, expected: &[u8]) -> Result<Duration> {
        let since = Instant::now();
        let request = format!("GET {path} HTTP/1.1\r\nHost: load\r\n\r\n");
        self.reader.get_mut().write_all(request.as_bytes()).with_context(|| format!("cannot send {path}"))?;
        let mut status = String::new();
        if self.reader.read_line(&mut status).with_context(|| format!("no answer to {path}"))? == 0 {
            bail!("closed instead of an answer to {path}");
        }
        if !status.starts_with("HTTP/1.1 200") {
            bail!("{path} was answered with {}", status.trim());
        }
        let length = self.content_length().with_context(|| format!("in the answer to {path}"))?;
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).with_context(|| format!("{path} was answered in part"))?;
        if body != expected {
            bail!("{path} was answered with something else");
        }
        Ok(since.elapsed())
    }

    fn content_length(&mut self) -> Result<usize> {
        let mut length = None;
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).context("the head broke off")? == 0 {
                bail!("closed within the head");
            }
            let line = line.trim();
            if line.is_empty() {
                return length.context("no content length");
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse().context("a content length that is no number")?);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;
    use std::net::TcpListener;

    #[test]
    fn traffic_to_a_healthy_server_fails_nowhere() -> Result<()> {
        let backend = Backend::start()?;
        let load = Load::start(backend.address(), Plan::default())?;
        load.pass(200)?;
        let report = load.end();
        assert_eq!(report.failures, Vec::<String>::new());
        assert_eq!(report.failed, 0);
        assert!(report.fresh > 0 && report.kept > 16, "{report:?}");
        assert_eq!(report.requests, report.fresh + report.kept);
        assert_eq!(backend.answered(), report.requests);
        Ok(())
    }

    #[test]
    fn a_server_that_closes_or_lies_is_a_failure() -> Result<()> {
        for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n?", "HTTP/1.1 503 No\r\n\r\n"] {
            let listener = TcpListener::bind(("127.0.0.1", 0))?;
            let address = listener.local_addr()?;
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let Ok(mut stream) = stream else { return };
                    let mut request = [0; 512];
                    let _any = stream.read(&mut request);
                    let _sent = stream.write_all(answer.as_bytes());
                }
            });
            let plan = Plan { fresh: 1, kept: 1, quiet: 0, pause: Duration::from_millis(1) };
            let load = Load::start(address, plan)?;
            load.pass(3)?;
            let report = load.end();
            assert_eq!(report.failed, report.requests, "{answer:?} passed for an answer");
            assert!(!report.failures.is_empty());
        }
        Ok(())
    }
}
