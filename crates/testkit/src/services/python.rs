//! Worker processes of python3.11 behind one socket: JSON, XML, regular expressions and digests.

use super::meter::{Clients, Meter};
use super::php::hex;
use super::{Live, Service, Subject};
use crate::debian::Root;
use crate::haproxy::{free_port, listens};
use crate::load::Connection;
use crate::observe::{self, Identity};
use crate::running::Running;
use crate::tools;
use anyhow::{Context as _, Result, ensure};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Python;

const SUBJECTS: [Subject; 3] = [
    Subject { title: "python3.11", packages: &["python3.11-minimal", "libpython3.11-stdlib"], own: true },
    Subject { title: "libexpat under it", packages: &["libexpat1"], own: false },
    Subject { title: "libssl and libcrypto under it", packages: &["libssl3"], own: false },
];
/// As the script makes them.
const WORKERS: usize = 3;
/// Workers accept on the one socket that they inherit, as a pre-forking server does.
const SCRIPT: &str = "\
import hashlib, http.server, json, os, re, socket, ssl, sys, xml.etree.ElementTree as tree
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        text = tree.fromstring('<a><b>%s</b></a>' % self.path[1:]).find('b').text
        text = json.loads(json.dumps({'q': text}))['q']
        digits = re.sub('[^0-9]', '', text)
        body = ('%s %s' % (hashlib.sha256(text.encode()).hexdigest(), digits)).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler)
for _ in range(3):
    if os.fork() == 0: break
server.serve_forever()
";

impl Service for Python {
    fn name(&self) -> &'static str {
        "python"
    }

    fn load(&self) -> &'static str {
        "HTTP requests to pre-forked workers that parse, match and hash; every answer computed by the client too"
    }

    fn subjects(&self) -> &'static [Subject] {
        &SUBJECTS
    }

    fn old_as_well(&self) -> &'static [&'static str] {
        &["python3.11", "libpython3.11-minimal"]
    }

    fn start(&self, root: &Root) -> Result<Box<dyn Live>> {
        let at = free_port()?;
        std::fs::write(root.path("/var/server.py"), SCRIPT).context("cannot write a script")?;
        let mut master = root.start(&["python3.11", "/var/server.py", &at.port().to_string()], "/var/log/python")?;
        master.wait_for("the workers to listen", |_| listens(at).then_some(()))?;
        // Who starts it in its root may stay as its parent.
        let started = master.pid();
        let parent = master.wait_for("all workers", |_| {
            let mut parents = [Some(started), observe::only_child(started)].into_iter().flatten();
            parents.find(|parent| observe::children(*parent) == WORKERS)
        })?;
        let workers = observe::children_of(parent)?;
        Ok(Box::new(Alive { master, parent, workers, at }))
    }
}

struct Alive {
    master: Running,
    parent: u32,
    workers: Vec<Identity>,
    at: SocketAddr,
}

impl Live for Alive {
    fn clients(&mut self, _root: &Root, meter: &Arc<Meter>) -> Result<Clients> {
        let mut clients = Clients::default();
        for index in 0..3 {
            let (meter, at) = (Arc::clone(meter), self.at);
            clients.add(format!("request {index}"), move || {
                let mut turn = 0_u64;
                while meter.goes_on() {
                    turn += 1;
                    let question = format!("client{index}turn{turn}");
                    let digits: String = question.chars().filter(char::is_ascii_digit).collect();
                    let answer = format!("{} {digits}", hex(&tools::sha256(question.as_bytes())));
                    meter.time(|| Connection::open(at)?.fetch(&format!("/{question}"), answer.as_bytes()).map(drop));
                    std::thread::sleep(Duration::from_millis(2));
                }
                Ok(())
            });
        }
        Ok(clients)
    }

    fn must_run(&mut self, _root: &Root) -> Result<()> {
        self.master.must_run()
    }

    fn afterwards(&mut self, _root: &Root, _meter: &Meter) -> Result<Vec<String>> {
        let now = observe::children_of(self.parent)?;
        ensure!(now == self.workers, "its workers are others: {now:?}, at the beginning {:?}", self.workers);
        Ok(vec![format!("the master and its {WORKERS} workers are those that were started")])
    }
}
