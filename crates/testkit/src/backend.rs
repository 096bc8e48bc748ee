//! A tiny HTTP/1.1 server behind the program under test.
//!
//! It answers every `GET` with a body that can be told from any other: the
//! path it was asked for, repeated to a length that the path states
//! (`/512/anything` → 512 bytes). Connections are kept until the peer closes.

use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Runs until dropped.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ending: AtomicBool,
    answered: AtomicU64,
    /// Connections that are being served, by a number of their own.
    open: Mutex<BTreeMap<u64, TcpStream>>,
}

impl Backend {
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for the backend")?;
        let address = listener.local_addr().context("a listener without an address")?;
        let shared = Arc::new(Shared::default());
        let for_acceptor = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, &for_acceptor));
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that are open at this moment.
    pub fn connections(&self) -> usize {
        self.shared.open().len()
    }

    /// Requests answered so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        // A connection of our own wakes the acceptor.
        let _woken = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ended = acceptor.join();
        }
        for stream in self.shared.open().values() {
            let _closed_already = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (number, stream) in (0..).zip(listener.incoming()) {
        if shared.ending.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        if let Ok(copy) = stream.try_clone() {
            shared.open().insert(number, copy);
        }
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // A peer that goes away ends its connection and nothing else.
            let _peer_gone = serve(&stream, &shared.answered);
            // The copy would keep its descriptor; a proxy that opens a connection
            // for each request soon leaves thousands of them.
            shared.open().remove(&number);
        });
    }
}

fn serve(stream: &TcpStream, answered: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while reader.read_line(&mut header)? != 0 && header.trim() != "" {
            header.clear();
        }
        let path = request.split_whitespace().nth(1).unwrap_or("/").to_owned();
        let body = body_of(&path);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        // Before the answer leaves: whoever has it must find it counted.
        answered.fetch_add(1, Ordering::Relaxed);
        writer.write_all(&[head.as_bytes(), &body].concat())?;
    }
}

/// The body that belongs to a path: `/LENGTH/rest` gives LENGTH bytes of the path, repeated.
pub fn body_of(path: &str) -> Vec<u8> {
    let length = path.split('/').nth(1).and_then(|length| length.parse().ok()).unwrap_or(16).min(1 << 20);
    path.bytes().cycle().take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_its_peer_closed_is_held_no_longer() -> Result<()> {
        let backend = Backend::start()?;
        for _ in 0..50 {
            let mut stream = TcpStream::connect(backend.address())?;
            stream.write_all(b"GET /1/x HTTP/1.0\r\n\r\n")?;
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line)?;
            assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        }
        let since = std::time::Instant::now();
        while backend.connections() > 0 {
            assert!(since.elapsed() < crate::running::PATIENCE, "{} are still held", backend.connections());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(())
    }

    #[test]
    fn a_body_is_as_long_as_its_path_says_and_tells_paths_apart() {
        assert_eq!(body_of("/20/a").len(), 20);
        assert_ne!(body_of("/20/a"), body_of("/20/b"));
        assert_eq!(body_of("/").len(), 16);
    }
}
