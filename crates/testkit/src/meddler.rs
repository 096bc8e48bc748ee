//! An HTTP proxy in the middle that changes what it passes on: the attack that
//! apt's signatures are there for.

use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Passes everything through, but flips a byte in each body whose URL it is told to change.
#[derive(Debug)]
pub struct Meddler {
    pub address: SocketAddr,
    ending: Arc<AtomicBool>,
    changed: Arc<AtomicU64>,
}

impl Meddler {
    /// Changes the bodies of URLs for which `target` is true.
    pub fn start(target: fn(&str) -> bool) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for the proxy")?;
        let address = listener.local_addr().context("a listener without an address")?;
        let (ending, changed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end, count) = (Arc::clone(&ending), Arc::clone(&changed));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let count = Arc::clone(&count);
                std::thread::spawn(move || pass(&client, target, &count));
            }
        });
        Ok(Self { address, ending, changed })
    }

    /// How many bodies it has changed.
    pub fn changed(&self) -> u64 {
        self.changed.load(Ordering::Relaxed)
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        let _woken = TcpStream::connect(self.address);
    }
}

/// One request of a client; the connection ends after it, which HTTP allows.
fn pass(client: &TcpStream, target: fn(&str) -> bool, changed: &AtomicU64) -> Result<()> {
    let mut reader = BufReader::new(client);
    let mut request = String::new();
    reader.read_line(&mut request).context("no request")?;
    let mut words = request.split_whitespace();
    let (method, url) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
    let Some((host, path)) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')) else {
        bail!("not a request to a proxy: {request}");
    };
    let mut head = format!("{method} /{path} HTTP/1.1\r\nConnection: close\r\n");
    let mut line = String::new();
    while reader.read_line(&mut line).context("the head broke off")? > 2 {
        if !line.to_ascii_lowercase().starts_with("connection:") {
            head.push_str(&line);
        }
        line.clear();
    }
    head.push_str("\r\n");
    let upstream = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut server = TcpStream::connect(upstream).context("the archive does not answer")?;
    server.set_read_timeout(Some(Duration::from_secs(60))).context("cannot set a timeout")?;
    server.write_all(head.as_bytes()).context("cannot ask the archive")?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).context("the archive broke off")?;
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    if target(&url)
        && answer.starts_with(b"HTTP/1.1 200")
        && let Some(middle) = body.map(|at| at + answer.len().saturating_sub(at) / 2)
        && let Some(byte) = answer.get_mut(middle)
    {
        *byte ^= 0x20;
        changed.fetch_add(1, Ordering::Relaxed);
    }
    let mut client = client;
    client.write_all(&answer).context("the client left")
}
