//! Clients of HTTP servers: over kept and fresh connections, over TLS, and `wrk`.

use super::meter::{Clients, Meter, Pace};
use crate::backend::body_of;
use crate::debian::Root;
use crate::load::Connection;
use crate::running::Running;
use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Pause of a client between two requests.
const PAUSE: Duration = Duration::from_millis(2);
/// The same for a client that starts a program and makes a TLS session for each request.
const TLS_PAUSE: Duration = Duration::from_millis(20);
/// Connections of `wrk`.
const WRK_CONNECTIONS: u64 = 4;

/// How often a server was reloaded, which ends connections that are kept. Odd while it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Reloads(Arc<AtomicU64>);

impl Reloads {
    pub(super) fn during<T>(&self, reload: impl FnOnce() -> Result<T>) -> Result<T> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let result = reload();
        self.0.fetch_add(1, Ordering::SeqCst);
        result
    }

    pub(super) fn count(&self) -> u64 {
        self.now().div_ceil(2)
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Whether one that was opened then may have been ended by a reload.
    fn may_have_ended(&self, opened_at: u64) -> bool {
        let now = self.now();
        now != opened_at || now % 2 == 1
    }
}

/// Clients that ask for `target(path)` and have to get what `path` stands for.
pub(super) fn plain(
    clients: &mut Clients,
    meter: &Arc<Meter>,
    server: SocketAddr,
    reloads: &Reloads,
    target: impl Fn(&str) -> String + Copy + Send + 'static,
) {
    for index in 0..2 {
        let of_kept = (Arc::clone(meter), reloads.clone());
        clients.add(format!("kept {index}"), move || kept(&of_kept.0, server, &of_kept.1, index, target));
        let meter = Arc::clone(meter);
        clients.add(format!("fresh {index}"), move || {
            let mut turn = 0_u64;
            while meter.goes_on() {
                turn += 1;
                let path = path("fresh", index, turn);
                meter.time(|| Connection::open(server)?.fetch(&target(&path), &body_of(&path)).map(drop));
                meter.pause(PAUSE);
            }
            Ok(())
        });
    }
}

/// One connection for all requests. That it is closed is an error, unless the server was reloaded meanwhile.
fn kept(
    meter: &Meter,
    server: SocketAddr,
    reloads: &Reloads,
    index: usize,
    target: impl Fn(&str) -> String,
) -> Result<()> {
    let mut turn = 0_u64;
    while meter.goes_on() {
        let opened_at = reloads.now();
        let mut connection = Connection::open(server)?;
        while meter.goes_on() {
            turn += 1;
            let path = path("kept", index, turn);
            let since = std::time::Instant::now();
            let outcome = connection.fetch(&target(&path), &body_of(&path)).map(drop);
            let lost = outcome.is_err();
            if lost && reloads.may_have_ended(opened_at) {
                break;
            }
            meter.note(since.elapsed(), outcome);
            ensure!(!lost, "the kept connection was lost");
            meter.pause(PAUSE);
        }
    }
    Ok(())
}

/// New TLS connections, verified against the server's certificate, by `curl` inside.
pub(super) fn tls(clients: &mut Clients, root: &Root, meter: &Arc<Meter>, port: u16, certificate: &'static str) {
    let words = ["curl", "-sS", "--max-time", "30", "--cacert", certificate];
    let curl = root.caller(&words);
    let meter = Arc::clone(meter);
    clients.add("curl over TLS", move || {
        let mut turn = 0_u64;
        while meter.goes_on() {
            turn += 1;
            let path = path("tls", 0, turn);
            meter.time(|| {
                let got = curl().arg(format!("https://localhost:{port}{path}")).output().context("cannot run curl")?;
                ensure!(got.status.success(), "curl: {}", String::from_utf8_lossy(&got.stderr));
                ensure!(got.stdout == body_of(&path), "{path} was answered with something else over TLS");
                Ok(())
            });
            meter.pause(TLS_PAUSE);
        }
        Ok(())
    });
}

/// Lengths from a few bytes to several of a proxy's buffers.
fn path(kind: &str, client: usize, turn: u64) -> String {
    let length = [1, 100, 1500, 5000, 20_000].get(usize::try_from(turn % 5).unwrap_or(0)).copied().unwrap_or(1);
    format!("/{length}/{kind}-{client}-{turn}")
}

/// A key and a certificate for `localhost`, made inside, in one file and in two.
pub(super) fn certificate(root: &Root, directory: &str) -> Result<()> {
    let script = "cd \"$0\" && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
                  -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem 2>/dev/null && cat cert.pem key.pem > both.pem";
    root.must_run(&["sh", "-c", script, directory]).map(drop)
}

/// `wrk`, which keeps its connections and counts what is not answered.
pub(super) struct Wrk(Running);

impl Wrk {
    /// None where the pace is gentle: it knows no pause.
    pub(super) fn start(root: &Root, meter: &Meter, url: &str, log: &str) -> Result<Option<Self>> {
        if meter.pace() == Pace::Gentle {
            return Ok(None);
        }
        let connections = WRK_CONNECTIONS.to_string();
        root.start(&["wrk", "-t", "1", "-c", &connections, "-d", "86400", url], log).map(Self).map(Some)
    }

    /// Ends it and reads what it counted. Each reload may cost each connection one read.
    pub(super) fn end(self, root: &Root, log: &str, reloads: u64) -> Result<String> {
        Root::signal_inside(self.0, Signal::INT)?;
        let text = std::fs::read_to_string(root.path(log)).context("wrk said nothing")?;
        let count = |words: &str| -> Option<u64> {
            let rest = text.split_once(words)?.1;
            rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let requests = text.lines().find_map(|line| line.split_once(" requests in ")).map(|(n, _)| n.trim().to_owned());
        let requests = requests.with_context(|| format!("wrk printed {text}"))?;
        if let Some(bad) = count("Non-2xx or 3xx responses:") {
            bail!("wrk got {bad} answers that are not 2xx");
        }
        let mut cut_off = 0;
        if text.contains("Socket errors") {
            let errors = ["connect", "read ", "write", "timeout"].map(|kind| count(kind).unwrap_or(0));
            let allowed = errors[1] <= reloads * WRK_CONNECTIONS && errors[0] + errors[2] + errors[3] == 0;
            ensure!(allowed, "wrk had socket errors: {text}");
            cut_off = errors[1];
        }
        Ok(format!(
            "wrk sent {requests} requests besides; none was answered wrongly, and {reloads} reloads cut off {cut_off}"
        ))
    }
}
