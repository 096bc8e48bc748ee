//! php8.2-fpm with the package's pool: requests whose answers are computed twice.

use super::meter::{Clients, Meter};
use super::{Live, Service, Subject};
use crate::debian::Root;
use crate::running::{PATIENCE, Running};
use crate::tools;
use anyhow::{Context as _, Result, bail, ensure};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Php;

const SUBJECTS: [Subject; 3] = [
    Subject {
        title: "php-fpm and its extensions",
        packages: &["php8.2-fpm", "php8.2-common", "php8.2-opcache", "php8.2-xml"],
        own: true,
    },
    Subject { title: "libxml2 under it", packages: &["libxml2"], own: false },
    Subject { title: "libssl and libcrypto under it", packages: &["libssl3"], own: false },
];
const SOCKET: &str = "/run/php/php8.2-fpm.sock";
const SCRIPT: &str = "<?php
$x = new DOMDocument(); $x->loadXML('<a><b>' . $_GET['q'] . '</b></a>');
$q = json_decode(json_encode(['q' => $x->getElementsByTagName('b')[0]->textContent]), true)['q'];
echo hash('sha256', $q), ' ', preg_replace('/[^0-9]/', '', $q), ' ', bin2hex(openssl_digest($q, 'sha256', true));
";

impl Service for Php {
    fn name(&self) -> &'static str {
        "php-fpm"
    }

    fn load(&self) -> &'static str {
        "a script that parses XML and JSON, matches and hashes with PHP and with OpenSSL; every answer computed by the client too"
    }

    fn subjects(&self) -> &'static [Subject] {
        &SUBJECTS
    }

    fn old_as_well(&self) -> &'static [&'static str] {
        &["php8.2-cli", "php8.2-readline"]
    }

    fn start(&self, root: &Root) -> Result<Box<dyn Live>> {
        std::fs::write(root.path("/var/www.php"), SCRIPT).context("cannot write a script")?;
        root.must_run(&["mkdir", "-p", "/run/php"])?;
        let mut master = root.start(&["php-fpm8.2", "-F"], "/var/log/php-fpm")?;
        let socket = root.path(SOCKET);
        master.wait_for("php-fpm to listen", |_| UnixStream::connect(&socket).is_ok().then_some(()))?;
        Ok(Box::new(Alive { master, socket }))
    }
}

struct Alive {
    master: Running,
    socket: PathBuf,
}

impl Live for Alive {
    fn clients(&mut self, _root: &Root, meter: &Arc<Meter>) -> Result<Clients> {
        let mut clients = Clients::default();
        for index in 0..3 {
            let (meter, socket) = (Arc::clone(meter), self.socket.clone());
            clients.add(format!("request {index}"), move || {
                let mut turn = 0_u64;
                while meter.goes_on() {
                    turn += 1;
                    meter.time(|| ask(&socket, &format!("client{index}turn{turn}")));
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

    fn afterwards(&mut self, root: &Root, _meter: &Meter) -> Result<Vec<String>> {
        let log = std::fs::read_to_string(root.path("/var/log/php8.2-fpm.log")).context("it left no log")?;
        let grave = log.lines().find(|line| line.contains("exited on signal") || line.contains("ERROR"));
        ensure!(grave.is_none(), "its log says {grave:?}");
        Ok(vec!["no worker ended by a signal".into()])
    }
}

/// One request (`FastCGI` 1.0), and what has to come back.
fn ask(socket: &Path, question: &str) -> Result<()> {
    let mut stream = UnixStream::connect(socket).context("cannot connect")?;
    stream.set_read_timeout(Some(PATIENCE)).context("cannot set a timeout")?;
    let query = format!("q={question}");
    let mut parameters = Vec::new();
    for (key, value) in [
        ("SCRIPT_FILENAME", "/var/www.php"),
        ("REQUEST_METHOD", "GET"),
        ("QUERY_STRING", &query),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
    ] {
        parameters.push(u8::try_from(key.len()).context("a long key")?);
        parameters.push(u8::try_from(value.len()).context("a long value")?);
        parameters.extend([key.as_bytes(), value.as_bytes()].concat());
    }
    // Begin (a responder, not kept), parameters, their end, no input.
    let mut request = record(1, &[0, 1, 0, 0, 0, 0, 0, 0])?;
    request.extend(record(4, &parameters)?);
    request.extend(record(4, &[])?);
    request.extend(record(5, &[])?);
    stream.write_all(&request).context("cannot send")?;
    let mut out = Vec::new();
    loop {
        let mut head = [0; 8];
        stream.read_exact(&mut head).context("closed instead of an answer")?;
        let [_, kind, _, _, high, low, padding, _] = head;
        let mut body = vec![0; usize::from(u16::from_be_bytes([high, low])) + usize::from(padding)];
        stream.read_exact(&mut body).context("answered in part")?;
        body.truncate(body.len() - usize::from(padding));
        match kind {
            3 => break,
            6 => out.extend(body),
            7 => bail!("the script complains: {}", String::from_utf8_lossy(&body)),
            _ => {}
        }
    }
    let out = String::from_utf8_lossy(&out);
    let body = out.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let digest = hex(&tools::sha256(question.as_bytes()));
    let digits: String = question.chars().filter(char::is_ascii_digit).collect();
    ensure!(body == format!("{digest} {digits} {digest}"), "{question} was answered with {body:?}");
    Ok(())
}

fn record(kind: u8, body: &[u8]) -> Result<Vec<u8>> {
    let [high, low] = u16::try_from(body.len()).context("a long record")?.to_be_bytes();
    let mut record = vec![1, kind, 0, 1, high, low, 0, 0];
    record.extend(body);
    Ok(record)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _never_fails_on_a_string = write!(text, "{byte:02x}");
        text
    })
}
