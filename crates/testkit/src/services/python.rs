//! Worker processes of python3.11 behind one socket: JSON, XML, regular expressions and digests.

use super::meter::{Clients, Meter};
use super::php::hex;
use super::{Live, Service, Subject};
use crate::debian::Root;
use crate::haproxy::{free_port, listens};
use crate::load::Connection;
use crate::running::Running;
use crate::tools;
use anyhow::{Context as _, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Python;

const SUBJECTS: [Subject; 3] = [
    Subject { title: "python3.11", packages: &["python3.11-minimal", "libpython3.11-stdlib"], own: true },
    Subject { title: "libexpat under it", packages: &["libexpat1"], own: false },
    Subject { title: "libssl and libcrypto under it", packages: &["libssl3"], own: false },
];
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
        Ok(Box::new(Alive { master, at }))
    }
}

struct Alive {
    master: Running,
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
        Ok(vec!["the master and its workers are those that were started".into()])
    }
}
