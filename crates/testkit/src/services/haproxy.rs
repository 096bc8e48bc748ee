//! HAProxy as its package configures it: a master that starts workers, which give up root.

use super::meter::{Clients, Meter};
use super::web::{self, Reloads, Wrk};
use super::{Live, Service, Subject};
use crate::backend::Backend;
use crate::debian::Root;
use crate::haproxy::{free_port, listens};
use crate::running::Running;
use anyhow::{Context as _, Result};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::sync::Arc;

pub(super) struct Haproxy;

const SUBJECTS: [Subject; 3] = [
    Subject { title: "haproxy", packages: &["haproxy"], own: true },
    Subject { title: "libssl and libcrypto under it", packages: &["libssl3"], own: false },
    Subject { title: "libpcre2 under it", packages: &["libpcre2-8-0"], own: false },
];
const CONFIGURATION: &str = "/etc/haproxy/haproxy.cfg";
const WRK_LOG: &str = "/var/log/wrk";

impl Service for Haproxy {
    fn name(&self) -> &'static str {
        "haproxy"
    }

    fn load(&self) -> &'static str {
        "requests over kept, fresh and TLS connections, wrk over TLS; a reload while it is healed"
    }

    fn subjects(&self) -> &'static [Subject] {
        &SUBJECTS
    }

    fn also(&self) -> &'static [&'static str] {
        &["openssl", "curl", "wrk"]
    }

    fn start(&self, root: &Root) -> Result<Box<dyn Live>> {
        let backend = Backend::start()?;
        let (plain, tls) = (free_port()?, free_port()?);
        web::certificate(root, "/etc/haproxy")?;
        let shipped = std::fs::read_to_string(root.path(CONFIGURATION)).context("no haproxy.cfg")?;
        let ours = format!(
            "{shipped}
frontend plain
    bind {plain}
    default_backend application
frontend tls
    bind {tls} ssl crt /etc/haproxy/both.pem
    default_backend application
backend application
    server one {}
",
            backend.address()
        );
        std::fs::write(root.path(CONFIGURATION), ours).context("cannot write haproxy.cfg")?;
        root.must_run(&["mkdir", "-p", "/run/haproxy"])?;
        // As its unit starts it, but for systemd.
        let words = ["haproxy", "-Ws", "-f", CONFIGURATION, "-p", "/run/haproxy.pid", "-S", "/run/haproxy-master.sock"];
        let mut master = root.start(&words, "/var/log/haproxy.log")?;
        master.wait_for("HAProxy to listen", |_| (listens(plain) && listens(tls)).then_some(()))?;
        let reloads = Reloads::default();
        Ok(Box::new(Alive { master, plain, tls, reloads, wrk: None, _backend: backend }))
    }
}

struct Alive {
    master: Running,
    plain: SocketAddr,
    tls: SocketAddr,
    reloads: Reloads,
    wrk: Option<Wrk>,
    _backend: Backend,
}

impl Live for Alive {
    fn clients(&mut self, root: &Root, meter: &Arc<Meter>) -> Result<Clients> {
        let mut clients = Clients::default();
        web::plain(&mut clients, meter, self.plain, &self.reloads, str::to_owned);
        web::tls(&mut clients, root, meter, self.tls.port(), "/etc/haproxy/cert.pem");
        self.wrk = Wrk::start(root, meter, &format!("https://{}/1500/wrk", self.tls), WRK_LOG)?;
        Ok(clients)
    }

    fn must_run(&mut self, _root: &Root) -> Result<()> {
        self.master.must_run()
    }

    fn meanwhile(&mut self, _root: &Root, round: u32) -> Result<()> {
        if round == 1 {
            self.reloads.during(|| {
                Root::signal(&mut self.master, Signal::USR2)?;
                std::thread::sleep(std::time::Duration::from_millis(500));
                Ok(())
            })?;
        }
        Ok(())
    }

    fn afterwards(&mut self, root: &Root, _meter: &Meter) -> Result<Vec<String>> {
        let reloads = self.reloads.count();
        let wrk = self.wrk.take().map(|wrk| wrk.end(root, WRK_LOG, reloads)).transpose()?;
        let reloads = format!("{reloads} reloads of the master while it was healed");
        Ok(wrk.into_iter().chain([reloads]).collect())
    }
}
