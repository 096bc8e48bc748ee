//! bind9 with a signed zone, and unbound in front of it that validates every answer.

use super::meter::{Clients, Meter};
use super::{Live, Service, Subject};
use crate::debian::Root;
use crate::haproxy::{free_port, listens};
use crate::running::{PATIENCE, Running};
use anyhow::{Context as _, Result, ensure};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) struct Dns;

const SUBJECTS: [Subject; 3] = [
    Subject { title: "named and its libraries", packages: &["bind9", "bind9-libs"], own: true },
    Subject { title: "unbound", packages: &["unbound"], own: true },
    Subject { title: "libcrypto under both", packages: &["libssl3"], own: false },
];
const NAMED_CONF: &str = "/etc/bind/e2e.conf";

impl Service for Dns {
    fn name(&self) -> &'static str {
        "dns"
    }

    fn load(&self) -> &'static str {
        "names of a zone that bind9 signs, asked of bind9 and through an unbound that validates; every address checked"
    }

    fn subjects(&self) -> &'static [Subject] {
        &SUBJECTS
    }

    fn old_as_well(&self) -> &'static [&'static str] {
        &["bind9-utils", "bind9-host", "bind9-dnsutils"]
    }

    fn start(&self, root: &Root) -> Result<Box<dyn Live>> {
        let (named_at, unbound_at) = (free_port()?, free_port()?);
        std::fs::write(root.path(NAMED_CONF), named_conf(named_at)).context("cannot write a configuration")?;
        let zone =
            "$TTL 1\n@ SOA ns admin 1 3600 600 86400 1\n@ NS ns\nns A 127.0.0.1\n$GENERATE 0-255 h$ A 10.0.0.$\n";
        std::fs::write(root.path("/var/cache/bind/zone"), zone).context("cannot write a zone")?;
        root.must_run(&["sh", "-c", "mkdir -p /run/named && chown -R bind:bind /run/named /var/cache/bind"])?;
        let mut named = root.start(&["named", "-f", "-u", "bind", "-c", NAMED_CONF], "/var/log/named")?;
        named.wait_for("named to listen", |_| listens(named_at).then_some(()))?;
        let key = signing_key(named_at, root)?;
        std::fs::write(root.path("/etc/unbound/e2e.conf"), unbound_conf(unbound_at, named_at, &key))
            .context("cannot write")?;
        let mut unbound = root.start(&["unbound", "-d", "-c", "/etc/unbound/e2e.conf"], "/var/log/unbound")?;
        unbound.wait_for("unbound to listen", |_| listens(unbound_at).then_some(()))?;
        let since = Instant::now();
        while let Err(error) = Asker::new(unbound_at, true)?.ask(1) {
            ensure!(since.elapsed() < PATIENCE, "unbound validates nothing: {error:#}; it said {}", unbound.output()?);
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(Box::new(Alive { daemons: vec![named, unbound], named_at, unbound_at }))
    }
}

fn named_conf(at: SocketAddr) -> String {
    let port = at.port();
    format!(
        "options {{ directory \"/var/cache/bind\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; \
         recursion no; pid-file \"/run/named/pid\"; session-keyfile \"/run/named/key\"; notify no; }};\n\
         controls {{ }};\n\
         zone \"e2e.test\" {{ type primary; file \"zone\"; dnssec-policy default; inline-signing yes; }};\n"
    )
}

fn unbound_conf(at: SocketAddr, named: SocketAddr, key: &str) -> String {
    format!(
        "server:\n interface: 127.0.0.1@{}\n do-not-query-localhost: no\n chroot: \"\"\n username: unbound\n \
         num-threads: 2\n use-syslog: no\n logfile: \"\"\n val-log-level: 2\n local-zone: \"test.\" nodefault\n domain-insecure: \"test\"\n trust-anchor: \"{key}\"\n \
         pidfile: \"\"\n cache-max-ttl: 1\nstub-zone:\n name: \"e2e.test\"\n stub-addr: 127.0.0.1@{}\n",
        at.port(),
        named.port()
    )
}

/// The key that signs the zone's keys, once named has made it.
fn signing_key(at: SocketAddr, root: &Root) -> Result<String> {
    let since = Instant::now();
    loop {
        let port = at.port().to_string();
        let ask = |kind: &str, name: &str| -> Result<String> {
            let words = ["dig", "@127.0.0.1", "-p", &port, "+short", "+dnssec", "+tcp", kind, name];
            Ok(root.must_run(&words)?.stdout)
        };
        let told = ask("DNSKEY", "e2e.test")?;
        // The keys are there before what they sign is signed.
        let signed = |told: &str, kind: &str| told.lines().any(|line| line.starts_with(kind));
        if let Some(key) = told.lines().find(|line| line.starts_with("257 "))
            && signed(&told, "DNSKEY ")
            && signed(&ask("A", "h255.e2e.test")?, "A ")
        {
            return Ok(format!("e2e.test. IN DNSKEY {key}"));
        }
        ensure!(since.elapsed() < PATIENCE, "named does not sign the zone: {told}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

struct Alive {
    daemons: Vec<Running>,
    named_at: SocketAddr,
    unbound_at: SocketAddr,
}

impl Live for Alive {
    fn clients(&mut self, _root: &Root, meter: &Arc<Meter>) -> Result<Clients> {
        let mut clients = Clients::default();
        for (name, at, validated) in [("named", self.named_at, false), ("unbound", self.unbound_at, true)] {
            for index in 0..2_u32 {
                let (meter, mut asker) = (Arc::clone(meter), Asker::new(at, validated)?);
                clients.add(format!("{name} {index}"), move || {
                    let mut turn = index * 100;
                    while meter.goes_on() {
                        turn = turn.wrapping_add(1);
                        meter.time(|| asker.ask(turn));
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Ok(())
                });
            }
        }
        Ok(clients)
    }

    fn must_run(&mut self, _root: &Root) -> Result<()> {
        self.daemons.iter_mut().try_for_each(Running::must_run)
    }

    fn afterwards(&mut self, root: &Root, _meter: &Meter) -> Result<Vec<String>> {
        self.must_run(root)?;
        Ok(vec!["every answer of unbound was marked as validated (AD)".into()])
    }
}

/// Asks one server over UDP, without asking twice.
struct Asker {
    socket: UdpSocket,
    validated: bool,
}

impl Asker {
    fn new(server: SocketAddr, validated: bool) -> Result<Self> {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).context("no socket")?;
        socket.connect(server).context("cannot connect")?;
        socket.set_read_timeout(Some(Duration::from_secs(10))).context("cannot set a timeout")?;
        Ok(Self { socket, validated })
    }

    /// The address of `h<turn mod 256>` (RFC 1035 §4).
    fn ask(&mut self, turn: u32) -> Result<()> {
        let [_, _, high, low] = turn.to_be_bytes();
        let host = format!("h{low}");
        // Recursion desired; with AD set the answer says whether it was validated (RFC 6840 §5.7).
        let mut query = vec![high, low, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in [host.as_str(), "e2e", "test"] {
            query.push(u8::try_from(label.len()).context("a long label")?);
            query.extend(label.as_bytes());
        }
        query.extend([0, 0, 1, 0, 1]);
        self.socket.send(&query).context("cannot send")?;
        let mut answer = [0; 2048];
        loop {
            let length = self.socket.recv(&mut answer).with_context(|| format!("no answer for {host}"))?;
            let answer = answer.get(..length).unwrap_or_default();
            let [id_high, id_low, _, flags, _, _, _, answers, ..] = answer else { continue };
            if [*id_high, *id_low] != [high, low] {
                // Late, for a question that was given up and counted as failed.
                continue;
            }
            let code = flags & 0x0f;
            ensure!(code == 0, "{host} was answered with code {code}");
            ensure!(!self.validated || flags & 0x20 != 0, "{host} was not validated");
            let wanted = [10, 0, 0, low];
            let there = answer.get(query.len()..).unwrap_or_default().windows(4).any(|window| window == wanted);
            ensure!(*answers > 0 && there, "{host} was answered with another address");
            return Ok(());
        }
    }
}
