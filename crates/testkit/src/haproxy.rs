//! The real HAProxy, unpacked from its package and run in the foreground, and
//! the request whose answer tells the old version from the new one.
//!
//! The request states a chunk whose size line (a chunk extension, RFC 9112
//! §7.1.1) is longer than the buffer it is parsed in. The old code waits for
//! the rest of a line that can never fit, until its own time limit, and then
//! answers 408; the new code answers 400 at once.

use crate::corpus::{self, Side};
use crate::needs::{self, Need};
use crate::running::Running;
use anyhow::{Context as _, Result, bail};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Threads that serve traffic.
pub const THREADS: u32 = 4;
/// How long the old code waits before it gives up on the request.
pub const OLD_PATIENCE: Duration = Duration::from_millis(1500);

/// A running HAProxy and the directory it was unpacked into.
#[derive(Debug)]
pub struct Haproxy {
    process: Running,
    directory: TempDir,
    /// Forwards to the backend.
    pub service: SocketAddr,
    /// Answers by itself; takes the request that tells old from new.
    pub probe: SocketAddr,
}

impl Haproxy {
    /// Unpacks one side of the pair and starts it in front of `backend`.
    pub fn start(side: Side, backend: SocketAddr) -> Result<Self> {
        Self::start_by(side, backend, |program| Command::new(program))
    }

    /// The same with a command that starts the program.
    pub fn start_by(side: Side, backend: SocketAddr, launch: impl Fn(&Path) -> Command) -> Result<Self> {
        needs::ensure(&[Need::HaproxyLibraries])?;
        let directory = corpus::pair("haproxy")?.extract(side)?;
        let program = program(directory.path());
        let mut attempt = 0;
        loop {
            attempt += 1;
            // Another process may take a port between finding and using it.
            let (service, probe) = (free_port()?, free_port()?);
            let config = directory.path().join("haproxy.cfg");
            std::fs::write(&config, configuration(service, probe, backend)).context("cannot write haproxy.cfg")?;
            let log = directory.path().join("haproxy.log");
            let mut process = Running::start(launch(&program).arg("-db").arg("-f").arg(&config), log)?;
            let listens = |_: &Running| (listens(service) && listens(probe)).then_some(());
            match process.wait_for("HAProxy to listen", listens) {
                Ok(()) => return Ok(Self { process, directory, service, probe }),
                Err(error) if attempt == 3 => return Err(error),
                Err(_) => {}
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The program file that it runs.
    pub fn program(&self) -> PathBuf {
        program(self.directory.path())
    }

    pub fn must_run(&mut self) -> Result<()> {
        self.process.must_run()
    }

    /// Sends the request and says whose behaviour the answer is.
    pub fn behaviour(&self) -> Result<Behaviour> {
        behaviour_at(self.probe)
    }

    /// An ordinary request with a short chunk-size line, which both versions take.
    pub fn ordinary_request_works(&self) -> Result<()> {
        let (status, _) = send(self.probe, &request(8))?;
        if status == 200 { Ok(()) } else { bail!("an ordinary chunked request was answered with {status}") }
    }
}

fn program(tree: &Path) -> PathBuf {
    corpus::below(tree, Path::new("/usr/sbin/haproxy"))
}

/// Whose code answered, and after how long.
#[derive(Clone, Copy, Debug)]
pub enum Behaviour {
    /// Silence until the time limit, then 408.
    Old { after: Duration },
    /// 400.
    New { after: Duration },
}

impl Behaviour {
    pub const fn is_old(self) -> bool {
        matches!(self, Self::Old { .. })
    }

    pub const fn is_new(self) -> bool {
        matches!(self, Self::New { .. })
    }
}

impl std::fmt::Display for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Old { after } => write!(f, "silence for {} ms, then 408 (the old code)", after.as_millis()),
            Self::New { after } => write!(f, "400 after {} ms (the new code)", after.as_millis()),
        }
    }
}

/// Sends the request to the probe's frontend of any HAProxy with [`configuration`].
pub fn behaviour_at(probe: SocketAddr) -> Result<Behaviour> {
    // Longer than `tune.bufsize` below, so it can never be buffered whole.
    let (status, after) = send(probe, &request(3000))?;
    match status {
        408 => Ok(Behaviour::Old { after }),
        400 => Ok(Behaviour::New { after }),
        other => bail!("status {other} is neither the old behaviour nor the new one"),
    }
}

fn request(extension_bytes: usize) -> Vec<u8> {
    let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    format!("{head}5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(extension_bytes)).into_bytes()
}

fn send(server: SocketAddr, request: &[u8]) -> Result<(u16, Duration)> {
    let mut stream = TcpStream::connect(server).context("cannot connect to the probe's port")?;
    stream.set_read_timeout(Some(crate::running::PATIENCE)).context("cannot set a timeout")?;
    let since = Instant::now();
    stream.write_all(request).context("cannot send the probe")?;
    let mut answer = Vec::new();
    // The peer may reset the connection after its answer, since it did not read all.
    let end = stream.read_to_end(&mut answer);
    let after = since.elapsed();
    let text = String::from_utf8_lossy(&answer);
    let Some(status) = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)) else {
        bail!("no answer to the probe: {end:?} after {} bytes", answer.len());
    };
    Ok((status.parse().with_context(|| format!("status {status:?}"))?, after))
}

/// Two frontends: one forwards to `backend`, one answers by itself.
pub fn configuration(service: SocketAddr, probe: SocketAddr, backend: SocketAddr) -> String {
    let patience = OLD_PATIENCE.as_millis();
    format!(
        "global
    nbthread {THREADS}
    maxconn 1000
    tune.bufsize 2048
defaults
    mode http
    timeout connect 10s
    timeout client 2m
    timeout server 2m
    timeout http-keep-alive 2m
frontend service
    bind {service}
    default_backend application
backend application
    server one {backend}
frontend probe
    bind {probe}
    timeout client {patience}ms
    timeout http-request {patience}ms
    option http-buffer-request
    http-request return status 200
"
    )
}

/// A port that nobody uses at this moment.
pub fn free_port() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    listener.local_addr().context("a listener without an address")
}

/// Whether something accepts connections there.
pub fn listens(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}
