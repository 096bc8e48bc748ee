//! A host with three hundred processes of thirty programs, all of which map libc,
//! libcrypto and liblzma: one `salve heal` for all of them.
//!
//! The programs are our own, each compiled to another build, since thirty
//! services that ask for nothing else of the machine are not to be had. Every
//! answer takes code of all three libraries, and the client knows it beforehand.

use super::meter::{Clients, Meter};
use super::{Live, Service, Subject};
use crate::debian::Root;
use crate::running::{PATIENCE, Running};
use crate::tools;
use anyhow::{Context as _, Result, ensure};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Host;

const SUBJECTS: [Subject; 3] = [
    Subject { title: "liblzma under all of them", packages: &["liblzma5"], own: false },
    Subject { title: "libcrypto under all of them", packages: &["libssl3"], own: false },
    Subject { title: "libc under all of them", packages: &["libc6"], own: false },
];
const PROGRAMS: u32 = 30;
const OF_EACH: u32 = 10;
const CLIENTS: u32 = 3;
const LIBRARIES: [&str; 2] = ["/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "/lib/x86_64-linux-gnu/liblzma.so.5"];

impl Service for Host {
    fn name(&self) -> &'static str {
        "host"
    }

    fn load(&self) -> &'static str {
        "300 processes of 30 programs; each is asked in turn for what it packs, unpacks and hashes, and the answer is checked"
    }

    fn subjects(&self) -> &'static [Subject] {
        &SUBJECTS
    }

    fn start(&self, root: &Root) -> Result<Box<dyn Live>> {
        std::fs::create_dir_all(root.path("/run/h")).context("no place for sockets")?;
        let libraries: Vec<PathBuf> = LIBRARIES.iter().map(|library| root.path(library)).collect();
        for program in 0..PROGRAMS {
            let define = format!("-DPROGRAM={program}");
            let arguments =
                [define.as_ref(), "-pthread".as_ref()].into_iter().chain(libraries.iter().map(|l| l.as_os_str()));
            tools::compile_as("crowd.c", &root.path(&format!("/usr/local/bin/program-{program}")), arguments)?;
        }
        // One shell starts all and waits: as any supervisor, it has nothing else in common with them.
        let script = format!(
            "for p in $(seq 0 {}); do for i in $(seq 0 {}); do program-$p /run/h/$p-$i & done; done; wait",
            PROGRAMS - 1,
            OF_EACH - 1
        );
        let mut crowd = root.start(&["sh", "-c", &script], "/var/log/crowd")?;
        let sockets: Vec<(u32, PathBuf)> = (0..PROGRAMS)
            .flat_map(|p| (0..OF_EACH).map(move |i| (p, format!("/run/h/{p}-{i}"))))
            .map(|(p, s)| (p, root.path(&s)))
            .collect();
        crowd.wait_for("300 processes", |_| {
            sockets.iter().all(|(_, socket)| UnixStream::connect(socket).is_ok()).then_some(())
        })?;
        Ok(Box::new(Alive { crowd, sockets }))
    }
}

struct Alive {
    crowd: Running,
    /// By process: its program, and where it listens.
    sockets: Vec<(u32, PathBuf)>,
}

impl Live for Alive {
    fn clients(&mut self, _root: &Root, meter: &Arc<Meter>) -> Result<Clients> {
        let mut clients = Clients::default();
        for index in 0..CLIENTS {
            let (meter, sockets) = (Arc::clone(meter), self.sockets.clone());
            clients.add(format!("asks all in turn {index}"), move || {
                let mut number = index * 1_000_000;
                while meter.goes_on() {
                    for (program, socket) in &sockets {
                        number = number.wrapping_add(1);
                        meter.time(|| ask(*program, socket, number));
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                Ok(())
            });
        }
        Ok(clients)
    }

    fn must_run(&mut self, _root: &Root) -> Result<()> {
        self.crowd.must_run()
    }

    fn afterwards(&mut self, root: &Root, _meter: &Meter) -> Result<Vec<String>> {
        // None was started again: each is bound to its own socket.
        for (program, socket) in &self.sockets {
            ask(*program, socket, 7).with_context(|| format!("{} at the end", socket.display()))?;
        }
        let alive = root.processes()?.len();
        Ok(vec![format!("each of {} processes answers ({alive} processes in all)", self.sockets.len())])
    }
}

/// What a program answers, as its source says.
fn expected(program: u32, number: u32) -> [u8; 32] {
    let mut state = number.wrapping_mul(2_654_435_761).wrapping_add(program);
    let mut plain = [0; 512];
    for byte in &mut plain {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [high, ..] = state.to_be_bytes();
        *byte = high & 0x0f;
    }
    tools::sha256(&plain)
}

fn ask(program: u32, socket: &Path, number: u32) -> Result<()> {
    let mut stream = UnixStream::connect(socket).context("cannot connect")?;
    stream.set_read_timeout(Some(PATIENCE)).context("cannot set a timeout")?;
    stream.write_all(&number.to_be_bytes()).context("cannot send")?;
    let mut answer = [0; 32];
    stream.read_exact(&mut answer).context("no answer")?;
    ensure!(answer == expected(program, number), "program {program} answered {number} wrongly");
    Ok(())
}
