//! squid: proxy traffic, over kept and fresh connections.

use super::meter::{Clients, Meter};
use super::web::{self, Reloads};
use super::{Live, Service, Subject};
use crate::backend::Backend;
use crate::debian::Root;
use crate::haproxy::{free_port, listens};
use crate::running::Running;
use anyhow::{Context as _, Result, ensure};
use std::net::SocketAddr;
use std::sync::Arc;

pub(super) struct Squid;

const SUBJECTS: [Subject; 1] = [Subject { title: "squid", packages: &["squid"], own: true }];

impl Service for Squid {
    fn name(&self) -> &'static str {
        "squid"
    }

    fn load(&self) -> &'static str {
        "requests of a forward proxy, over kept and fresh connections"
    }

    fn subjects(&self) -> &'static [Subject] {
        &SUBJECTS
    }

    fn old_as_well(&self) -> &'static [&'static str] {
        &["squid-common"]
    }

    fn start(&self, root: &Root) -> Result<Box<dyn Live>> {
        let backend = Backend::start()?;
        let at = free_port()?;
        let ours = format!(
            "http_port 127.0.0.1:{}\nacl all_ports port 1-65535\nhttp_access allow localhost\nhttp_access deny all\n\
             cache deny all\naccess_log none\npinger_enable off\nvisible_hostname localhost\nshutdown_lifetime 1 seconds\n\
             memory_pools on\nnetdb_filename none\n",
            at.port()
        );
        std::fs::write(root.path("/etc/squid/e2e.conf"), ours).context("cannot write a configuration")?;
        let mut squid =
            root.start(&["squid", "--foreground", "-YC", "-f", "/etc/squid/e2e.conf"], "/var/log/squid-e2e")?;
        squid.wait_for("squid to listen", |_| listens(at).then_some(()))?;
        Ok(Box::new(Alive { squid, at, backend }))
    }
}

struct Alive {
    squid: Running,
    at: SocketAddr,
    backend: Backend,
}

impl Live for Alive {
    fn clients(&mut self, _root: &Root, meter: &Arc<Meter>) -> Result<Clients> {
        let mut clients = Clients::default();
        let origin = self.backend.address();
        web::plain(&mut clients, meter, self.at, &Reloads::default(), move |path| format!("http://{origin}{path}"));
        Ok(clients)
    }

    fn must_run(&mut self, _root: &Root) -> Result<()> {
        self.squid.must_run()
    }

    fn afterwards(&mut self, root: &Root, _meter: &Meter) -> Result<Vec<String>> {
        let log = std::fs::read_to_string(root.path("/var/log/squid/cache.log")).context("it left no log")?;
        let grave = log.lines().find(|line| {
            line.contains("FATAL") || line.contains("assertion failed") || line.contains("exited due to signal")
        });
        ensure!(grave.is_none(), "cache.log says {grave:?}");
        Ok(vec!["cache.log has no fatal line".into()])
    }
}
