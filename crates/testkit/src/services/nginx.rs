//! nginx as its package configures it, with a site of ours: a master and a worker for each processor.

use super::meter::{Clients, Meter};
use super::web::{self, Reloads, Wrk};
use super::{Live, Service, Subject};
use crate::backend::Backend;
use crate::debian::Root;
use crate::haproxy::{free_port, listens};
use crate::nginx::wait_for;
use crate::observe::{self, Identity};
use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::net::SocketAddr;
use std::sync::Arc;

pub(super) struct Nginx;

const SUBJECTS: [Subject; 3] = [
    Subject { title: "nginx", packages: &["nginx"], own: true },
    Subject { title: "libssl and libcrypto under it", packages: &["libssl3"], own: false },
    Subject { title: "libpcre2 under it", packages: &["libpcre2-8-0"], own: false },
];
const WRK_LOG: &str = "/var/log/wrk";
const PID_FILE: &str = "/run/nginx.pid";
const OLD_PID_FILE: &str = "/run/nginx.pid.oldbin";

impl Service for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn load(&self) -> &'static str {
        "proxied requests over kept, fresh and TLS connections, wrk over TLS; a reload and a binary upgrade meanwhile"
    }

    fn subjects(&self) -> &'static [Subject] {
        &SUBJECTS
    }

    fn old_as_well(&self) -> &'static [&'static str] {
        &["nginx-common"]
    }

    fn also(&self) -> &'static [&'static str] {
        &["openssl", "curl", "wrk"]
    }

    fn start(&self, root: &Root) -> Result<Box<dyn Live>> {
        let backend = Backend::start()?;
        let (plain, tls) = (free_port()?, free_port()?);
        web::certificate(root, "/etc/nginx")?;
        // The site of the package listens on all addresses.
        std::fs::remove_file(root.path("/etc/nginx/sites-enabled/default")).context("no default site")?;
        let backend_at = backend.address();
        let site = format!(
            "server {{
    listen {plain};
    listen {tls} ssl;
    ssl_certificate /etc/nginx/cert.pem;
    ssl_certificate_key /etc/nginx/key.pem;
    keepalive_timeout 10m;
    keepalive_requests 100000000;
    access_log off;
    location ~ ^/(\\d+)/ {{ proxy_pass http://{backend_at}; proxy_buffering off; }}
}}
"
        );
        std::fs::write(root.path("/etc/nginx/conf.d/e2e.conf"), site).context("cannot write a site")?;
        // By its whole path, as its unit does: a binary upgrade executes what is in argv[0].
        root.must_run(&["/usr/sbin/nginx"])?;
        wait_for("nginx to listen", || Ok(listens(plain) && listens(tls)))?;
        let master = master_of(root, PID_FILE)?;
        let reloads = Reloads::default();
        Ok(Box::new(Alive { master, upgrades: 0, plain, tls, reloads, wrk: None, _backend: backend }))
    }
}

/// The master that a pid file names.
fn master_of(root: &Root, pid_file: &str) -> Result<Identity> {
    let pid = std::fs::read_to_string(root.path(pid_file)).with_context(|| format!("no {pid_file}"))?;
    observe::identity(root.outside(&pid)?)
}

struct Alive {
    master: Identity,
    upgrades: u32,
    plain: SocketAddr,
    tls: SocketAddr,
    reloads: Reloads,
    wrk: Option<Wrk>,
    _backend: Backend,
}

impl Alive {
    /// Another master and its workers take over the listening sockets ("Upgrading Executable on the Fly").
    fn upgrade(&mut self, root: &Root) -> Result<()> {
        let tell = |signal: Signal, master: Identity| -> Result<()> {
            let pid = i32::try_from(master.pid).ok().and_then(Pid::from_raw).context("no process id")?;
            kill_process(pid, signal).context("cannot signal the master")
        };
        let old = self.master;
        tell(Signal::USR2, old)?;
        let taken_over =
            || Ok(root.path(OLD_PID_FILE).exists() && master_of(root, PID_FILE).is_ok_and(|new| new != old));
        wait_for("a second master", taken_over)?;
        self.master = master_of(root, PID_FILE)?;
        wait_for("its workers", || Ok(observe::children(self.master.pid) > 0))?;
        // Both serve now; then the old workers end what they have, and the old master goes.
        std::thread::sleep(std::time::Duration::from_millis(300));
        tell(Signal::WINCH, old)?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        tell(Signal::QUIT, old)?;
        wait_for("the old master to go", || Ok(!root.path(OLD_PID_FILE).exists()))?;
        self.upgrades += 1;
        Ok(())
    }
}

impl Live for Alive {
    fn clients(&mut self, root: &Root, meter: &Arc<Meter>) -> Result<Clients> {
        let mut clients = Clients::default();
        web::plain(&mut clients, meter, self.plain, &self.reloads, str::to_owned);
        web::tls(&mut clients, root, meter, self.tls.port(), "/etc/nginx/cert.pem");
        self.wrk = Wrk::start(root, meter, &format!("https://{}/1500/wrk", self.tls), WRK_LOG)?;
        Ok(clients)
    }

    fn must_run(&mut self, _root: &Root) -> Result<()> {
        ensure!(
            observe::identity(self.master.pid).ok() == Some(self.master),
            "the master is not the one that was started"
        );
        Ok(())
    }

    fn meanwhile(&mut self, root: &Root, round: u32) -> Result<()> {
        match round {
            1 => self.reloads.during(|| {
                root.must_run(&["nginx", "-s", "reload"])?;
                std::thread::sleep(std::time::Duration::from_millis(500));
                Ok(())
            }),
            2 => self.reloads.clone().during(|| self.upgrade(root)),
            _ => Ok(()),
        }
    }

    fn afterwards(&mut self, root: &Root, _meter: &Meter) -> Result<Vec<String>> {
        let reloads = self.reloads.count();
        let wrk = self.wrk.take().map(|wrk| wrk.end(root, WRK_LOG, reloads)).transpose()?;
        let errors = std::fs::read_to_string(root.path("/var/log/nginx/error.log")).context("it left no log")?;
        let grave = errors.lines().find(|line| ["[alert]", "[crit]", "[emerg]"].iter().any(|word| line.contains(word)));
        ensure!(grave.is_none(), "its error log says {grave:?}");
        let reloads = format!(
            "{reloads} reloads meanwhile, {} of which were binary upgrades (USR2, WINCH, QUIT); nothing grave in the error log",
            self.upgrades
        );
        Ok(wrk.into_iter().chain([reloads]).collect())
    }
}
