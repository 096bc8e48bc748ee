//! `PostgreSQL` 15: pgbench read-write with eight clients, and new sessions meanwhile.
//!
//! pgbench moves the same amount in an account, a teller and a branch, and
//! writes it into the history: at the end all four sums are the same, and there
//! are as many rows of history as transactions were answered. Further clients
//! count rows up, over one session and over fresh ones, and know what comes back.

use super::meter::{Clients, Meter, Pace};
use super::{Live, Service, Subject};
use crate::debian::Root;
use crate::haproxy::{free_port, listens};
use crate::nginx::wait_for;
use crate::observe::{self, Identity};
use crate::running::PATIENCE;
use anyhow::{Context as _, Result, bail, ensure};
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(super) struct Postgres;

const SUBJECTS: [Subject; 4] = [
    Subject { title: "postgres", packages: &["postgresql-15"], own: true },
    Subject { title: "libssl and libcrypto under it", packages: &["libssl3"], own: false },
    Subject { title: "libxml2 under it", packages: &["libxml2"], own: false },
    Subject { title: "liblzma under it", packages: &["liblzma5"], own: false },
];
/// Checking clients of each kind.
const CLIENTS: usize = 2;
const BIN: &str = "/usr/lib/postgresql/15/bin";

impl Service for Postgres {
    fn name(&self) -> &'static str {
        "postgresql"
    }

    fn load(&self) -> &'static str {
        "pgbench read-write with 8 clients, a new session for each of further transactions; sums, pg_amcheck"
    }

    fn subjects(&self) -> &'static [Subject] {
        &SUBJECTS
    }

    fn old_as_well(&self) -> &'static [&'static str] {
        &["postgresql-client-15", "libpq5"]
    }

    fn start(&self, root: &Root) -> Result<Box<dyn Live>> {
        let at = free_port()?;
        let port = at.port().to_string();
        // Its scripts make a cluster only where a locale is set.
        root.run(&["pg_createcluster", "15", "main", "--locale", "C.UTF-8"])?;
        root.must_run(&["pg_conftool", "15", "main", "set", "port", &port])?;
        let hba = root.path("/etc/postgresql/15/main/pg_hba.conf");
        let shipped = std::fs::read_to_string(&hba).context("no pg_hba.conf")?;
        std::fs::write(&hba, format!("host bench postgres 127.0.0.1/32 trust\n{shipped}"))
            .context("cannot write it")?;
        root.must_run(&[
            "sh",
            "-c",
            "pg_ctlcluster 15 main start >/var/log/ctl 2>&1 || { cat /var/log/ctl >&2; exit 1; }",
        ])?;
        wait_for("PostgreSQL to listen", || Ok(listens(at)))?;
        let pid =
            std::fs::read_to_string(root.path("/var/lib/postgresql/15/main/postmaster.pid")).context("no pid file")?;
        let postmaster = observe::identity(root.outside(pid.lines().next().unwrap_or_default())?)?;
        let alive = Alive { postmaster, at, done_by_pgbench: Arc::default() };
        alive.as_postgres(root, &["createdb", "bench"])?;
        alive.as_postgres(root, &["pgbench", "-q", "-i", "-s", "5", "bench"])?;
        let rows = format!(
            "create extension amcheck; create table counters as select id, 0 as n from generate_series(0, {}) id",
            2 * CLIENTS - 1
        );
        alive.as_postgres(root, &["psql", "-qc", &rows, "bench"])?;
        Ok(Box::new(alive))
    }
}

struct Alive {
    postmaster: Identity,
    at: SocketAddr,
    done_by_pgbench: Arc<AtomicU64>,
}

impl Alive {
    fn words<'a>(&'a self, words: &[&'a str]) -> Vec<String> {
        let mut all: Vec<String> =
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "env"].map(str::to_owned).to_vec();
        all.extend([
            format!("PGPORT={}", self.at.port()),
            "HOME=/var/lib/postgresql".into(),
            format!("PATH={BIN}:/usr/bin:/bin"),
        ]);
        all.extend(words.iter().map(|&word| word.to_owned()));
        all
    }

    fn as_postgres(&self, root: &Root, words: &[&str]) -> Result<String> {
        Ok(root.must_run(&self.words(words))?.stdout)
    }
}

impl Live for Alive {
    fn clients(&mut self, root: &Root, meter: &Arc<Meter>) -> Result<Clients> {
        let mut clients = Clients::default();
        let at = self.at;
        for index in 0..CLIENTS {
            let of_kept = Arc::clone(meter);
            clients.add(format!("kept session {index}"), move || {
                let mut session = Session::open(at)?;
                count(&of_kept, index, |query| session.ask(query))
            });
            let of_fresh = Arc::clone(meter);
            clients.add(format!("fresh sessions {index}"), move || {
                count(&of_fresh, CLIENTS + index, |query| Session::open(at)?.ask(query))
            });
        }
        // Runs of a few seconds, one after the other: each tells what it did only at its end.
        let mut words = vec!["pgbench", "-n", "-c", "8", "-j", "2", "-T", "4"];
        if meter.pace() == Pace::Gentle {
            words.push("--rate=20");
        }
        words.push("bench");
        let pgbench = root.caller(&self.words(&words));
        let (meter, done) = (Arc::clone(meter), Arc::clone(&self.done_by_pgbench));
        clients.add("pgbench", move || {
            while meter.goes_on() {
                let run = pgbench().output().context("cannot run pgbench")?;
                let said = String::from_utf8_lossy(&run.stdout).into_owned();
                ensure!(run.status.success(), "pgbench: {}", String::from_utf8_lossy(&run.stderr));
                let number = |start: &str| {
                    said.lines()
                        .find_map(|line| line.strip_prefix(start)?.trim().split(' ').next()?.parse::<u64>().ok())
                };
                ensure!(number("number of failed transactions:") == Some(0), "pgbench: {said}");
                let count = number("number of transactions actually processed:").context("pgbench counts nothing")?;
                done.fetch_add(count, Ordering::SeqCst);
            }
            Ok(())
        });
        Ok(clients)
    }

    fn must_run(&mut self, _root: &Root) -> Result<()> {
        let now = observe::identity(self.postmaster.pid).ok();
        ensure!(now == Some(self.postmaster), "the postmaster is not the one that was started");
        Ok(())
    }

    fn afterwards(&mut self, root: &Root, _meter: &Meter) -> Result<Vec<String>> {
        let done = self.done_by_pgbench.load(Ordering::SeqCst);
        let sums = "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers), \
                    (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history), \
                    (select count(*) from pgbench_history)";
        let row = self.as_postgres(root, &["psql", "-XAtc", sums, "bench"])?;
        let fields: Vec<&str> = row.trim().split('|').collect();
        let (sums, rows) = fields.split_at_checked(4).context("too few sums")?;
        ensure!(sums.iter().all(|sum| Some(sum) == sums.first()), "the sums differ: {row}");
        ensure!(rows.first().and_then(|n| n.parse().ok()) == Some(done), "{row} after {done} transactions");
        self.as_postgres(root, &["pg_amcheck", "--heapallindexed", "bench"])?;
        let log = std::fs::read_to_string(root.path("/var/log/postgresql/postgresql-15-main.log"))
            .context("it left no log")?;
        let grave =
            log.lines().find(|line| ["PANIC", "FATAL", "was terminated"].iter().any(|word| line.contains(word)));
        ensure!(grave.is_none(), "its log says {grave:?}");
        Ok(vec![
            format!(
                "pgbench: {done} transactions with 8 clients, none failed; as many rows of history, and all four sums agree"
            ),
            "pg_amcheck --heapallindexed finds nothing".into(),
        ])
    }
}

/// Counts a row up and knows what has to come back, until the meter ends.
fn count(meter: &Meter, row: usize, mut ask: impl FnMut(&str) -> Result<String>) -> Result<()> {
    let mut reached = 0_u64;
    while meter.goes_on() {
        let right = meter.time(|| {
            let got = ask(&format!("update counters set n = n + 1 where id = {row} returning n"))?;
            ensure!(got == (reached + 1).to_string(), "{got} came back instead of {}", reached + 1);
            Ok(())
        });
        ensure!(right, "row {row} stopped at {reached}");
        reached += 1;
        meter.pause(Duration::from_millis(2));
    }
    Ok(())
}

/// One session (frontend/backend protocol 3.0, "simple query").
struct Session(BufReader<TcpStream>);

impl Session {
    fn open(at: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&at, PATIENCE).context("cannot connect")?;
        stream.set_read_timeout(Some(PATIENCE)).context("cannot set a timeout")?;
        stream.set_nodelay(true).context("cannot set no-delay")?;
        let mut session = Self(BufReader::new(stream));
        let body = b"\x00\x03\x00\x00user\0postgres\0database\0bench\0\0";
        session.0.get_mut().write_all(&framed(body)?).context("cannot send")?;
        session.until_ready().map(|_| session)
    }

    /// The first field of the last row.
    fn ask(&mut self, query: &str) -> Result<String> {
        let mut message = vec![b'Q'];
        message.extend(framed(format!("{query}\0").as_bytes())?);
        self.0.get_mut().write_all(&message).context("cannot send")?;
        self.until_ready()?.context("no row came back")
    }

    fn until_ready(&mut self) -> Result<Option<String>> {
        let mut field = None;
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head).context("the session is closed")?;
            let [kind, length @ ..] = head;
            let length = usize::try_from(u32::from_be_bytes(length)).context("a long message")?;
            let mut body = vec![0; length.checked_sub(4).context("a message without a length")?];
            self.0.read_exact(&mut body).context("answered in part")?;
            match kind {
                b'Z' => return Ok(field),
                b'E' => bail!("{}", String::from_utf8_lossy(&body).replace('\0', " ")),
                // Count of fields (2 bytes), length of the first (4), the first.
                b'D' => field = Some(String::from_utf8_lossy(body.get(6..).unwrap_or_default()).into_owned()),
                b'R' if body != [0; 4] => bail!("it asks for a password"),
                _ => {}
            }
        }
    }
}

fn framed(body: &[u8]) -> Result<Vec<u8>> {
    let mut framed = u32::try_from(body.len() + 4).context("a long message")?.to_be_bytes().to_vec();
    framed.extend(body);
    Ok(framed)
}
