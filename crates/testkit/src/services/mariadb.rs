//! `MariaDB` 10.11: sysbench read-write, and a check of every table afterwards.

use super::meter::{Clients, Meter};
use super::{Live, Service, Subject};
use crate::debian::Root;
use crate::running::Running;
use anyhow::{Context as _, Result, ensure};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(super) struct Mariadb;

const SUBJECTS: [Subject; 3] = [
    Subject { title: "mariadbd", packages: &["mariadb-server-core", "mariadb-server"], own: true },
    Subject { title: "libssl and libcrypto under it", packages: &["libssl3"], own: false },
    Subject { title: "liblzma under it", packages: &["liblzma5"], own: false },
];
const SOCKET: &str = "/run/mysqld/mysqld.sock";

impl Service for Mariadb {
    fn name(&self) -> &'static str {
        "mariadb"
    }

    fn load(&self) -> &'static str {
        "sysbench read-write in runs of 3 s, each of which is a request here; counters that are compared; mariadb-check"
    }

    fn subjects(&self) -> &'static [Subject] {
        &SUBJECTS
    }

    fn old_as_well(&self) -> &'static [&'static str] {
        &["mariadb-client", "mariadb-client-core", "mariadb-common", "libmariadb3"]
    }

    fn also(&self) -> &'static [&'static str] {
        &["sysbench"]
    }

    fn start(&self, root: &Root) -> Result<Box<dyn Live>> {
        root.must_run(&["install", "-d", "-o", "mysql", "-g", "mysql", "/run/mysqld"])?;
        let words = ["mariadbd", "--user=mysql", "--skip-networking", "--innodb-buffer-pool-size=64M"];
        let mut server = root.start(&words, "/var/log/mariadbd")?;
        let socket = root.path(SOCKET);
        server.wait_for("mariadbd to listen", |_| UnixStream::connect(&socket).is_ok().then_some(()))?;
        root.must_run(&[
            "mariadb",
            "-e",
            "create database sbtest; create table sbtest.counters (id int primary key, n int)",
        ])?;
        root.must_run(&sysbench("prepare"))?;
        Ok(Box::new(Alive { server, transactions: Arc::default(), counted: Arc::default() }))
    }
}

fn sysbench(what: &'static str) -> Vec<&'static str> {
    let mut words = vec!["sysbench", "oltp_read_write", "--mysql-socket=/run/mysqld/mysqld.sock", "--mysql-user=root"];
    words.extend(["--tables=2", "--table-size=5000", "--threads=4", "--time=3", "--mysql-ignore-errors=1213", what]);
    words
}

struct Alive {
    server: Running,
    transactions: Arc<AtomicU64>,
    counted: Arc<AtomicU64>,
}

impl Live for Alive {
    fn clients(&mut self, root: &Root, meter: &Arc<Meter>) -> Result<Clients> {
        let mut clients = Clients::default();
        let run = root.caller(&sysbench("run"));
        let (goes_on, transactions) = (Arc::clone(meter), Arc::clone(&self.transactions));
        clients.add("sysbench", move || {
            while goes_on.goes_on() {
                let done = run().output().context("cannot run sysbench")?;
                let said = String::from_utf8_lossy(&done.stdout).into_owned();
                ensure!(done.status.success(), "sysbench: {said} {}", String::from_utf8_lossy(&done.stderr));
                let number = |what: &str| -> Option<u64> {
                    let rest = said.split_once(what)?.1.trim_start();
                    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
                };
                ensure!(number("reconnects:") == Some(0), "sysbench: {said}");
                transactions.fetch_add(number("transactions:").context("sysbench counts nothing")?, Ordering::SeqCst);
            }
            Ok(())
        });
        // Each is a session of its own, which says what it wrote.
        let program = ["mariadb", "-N", "sbtest", "-e"];
        let query =
            "insert into counters values (1, 1) on duplicate key update n = n + 1; select n from counters where id = 1";
        let ask = root.caller(&[program.as_slice(), &[query]].concat());
        let (meter, counted) = (Arc::clone(meter), Arc::clone(&self.counted));
        clients.add("sessions", move || {
            while meter.goes_on() {
                let since = Instant::now();
                let next = counted.load(Ordering::SeqCst) + 1;
                let outcome = ask().output().context("cannot run mariadb").and_then(|done| {
                    let said = String::from_utf8_lossy(&done.stdout).trim().to_owned();
                    ensure!(
                        said == next.to_string(),
                        "{said:?} instead of {next}: {}",
                        String::from_utf8_lossy(&done.stderr)
                    );
                    Ok(())
                });
                let right = outcome.is_ok();
                meter.note(since.elapsed(), outcome);
                ensure!(right, "the counter stopped at {}", next - 1);
                counted.store(next, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        Ok(clients)
    }

    fn must_run(&mut self, _root: &Root) -> Result<()> {
        self.server.must_run()
    }

    fn afterwards(&mut self, root: &Root, _meter: &Meter) -> Result<Vec<String>> {
        let checked = root.must_run(&["mariadb-check", "--extended", "sbtest"])?.stdout;
        let bad: Vec<&str> = checked.lines().filter(|line| !line.trim_end().ends_with("OK")).collect();
        ensure!(bad.is_empty(), "mariadb-check: {bad:?}");
        let transactions = self.transactions.load(Ordering::SeqCst);
        Ok(vec![
            format!("sysbench: {transactions} transactions, no connection lost"),
            "mariadb-check --extended finds every table OK".into(),
        ])
    }
}
