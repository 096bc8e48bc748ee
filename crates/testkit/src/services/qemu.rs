//! QEMU 7.2 with a guest under its own translator (TCG): the guest measures.
//!
//! The guest looks at its clock, writes a block to a qcow2 disk through virtio,
//! reads it back, and says on its serial line how long each took and whether it
//! was right ([`super::guest`]). A request here is one such beat; how long it
//! took is the longer of the jump of the guest's clock and its disk I/O: what a
//! stop of QEMU is to whoever works in the guest. QEMU is confined as libvirt
//! confines it (`-sandbox on`), and asked over QMP for its own view.

use super::guest::Guest;
use super::meter::{Clients, Meter};
use super::{Live, Service, Subject};
use crate::debian::Root;
use crate::nginx::wait_for;
use crate::running::{PATIENCE, Running};
use anyhow::{Context as _, Result, bail, ensure};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) struct Qemu;

const SUBJECTS: [Subject; 4] = [
    Subject { title: "qemu-system-x86_64", packages: &["qemu-system-x86"], own: true },
    Subject { title: "glib under it", packages: &["libglib2.0-0"], own: false },
    Subject { title: "libpng under it", packages: &["libpng16-16"], own: false },
    Subject { title: "liblzma under it", packages: &["liblzma5"], own: false },
];
const QMP: &str = "/run/qmp";
const SERIAL: &str = "/var/log/serial";
const DISK: &str = "/var/lib/disk.qcow2";
/// A look at what the guest printed since the last one.
const LOOK: Duration = Duration::from_millis(5);

impl Service for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn load(&self) -> &'static str {
        "a guest under TCG that watches its clock and checks every block it writes to a qcow2 disk; QMP"
    }

    fn subjects(&self) -> &'static [Subject] {
        &SUBJECTS
    }

    fn old_as_well(&self) -> &'static [&'static str] {
        &["qemu-system-common", "qemu-system-data", "qemu-utils"]
    }

    fn also(&self) -> &'static [&'static str] {
        &["seabios"]
    }

    fn start(&self, root: &Root) -> Result<Box<dyn Live>> {
        let Guest { kernel, initial } = Guest::make(root)?;
        root.must_run(&["qemu-img", "create", "-q", "-f", "qcow2", DISK, "16M"])?;
        let drive = format!("file={DISK},format=qcow2,if=virtio");
        let (serial, qmp) = (format!("file:{SERIAL}"), format!("unix:{QMP},server=on,wait=off"));
        let mut words = vec!["qemu-system-x86_64", "-accel", "tcg", "-m", "192", "-nodefaults", "-no-user-config"];
        words.extend(["-display", "none", "-serial", &serial, "-qmp", &qmp, "-drive", &drive]);
        words.extend(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
        words.extend(["-kernel", &kernel, "-initrd", &initial, "-append", "console=ttyS0 quiet panic=-1"]);
        let mut machine = root.start(&words, "/var/log/qemu")?;
        let serial = root.path(SERIAL);
        let said = || std::fs::read_to_string(&serial).unwrap_or_default();
        machine
            .wait_for("the guest's first beat", |_| said().contains("beat ").then_some(()))
            .with_context(|| format!("the guest said {:?}", said()))?;
        Ok(Box::new(Alive { machine: Some(machine), serial, qmp: root.path(QMP) }))
    }
}

struct Alive {
    machine: Option<Running>,
    serial: PathBuf,
    qmp: PathBuf,
}

impl Live for Alive {
    fn clients(&mut self, _root: &Root, meter: &Arc<Meter>) -> Result<Clients> {
        let mut clients = Clients::default();
        let (of_guest, serial) = (Arc::clone(meter), self.serial.clone());
        clients.add("guest", move || listen(&of_guest, &serial));
        Ok(clients)
    }

    fn must_run(&mut self, _root: &Root) -> Result<()> {
        self.machine.as_mut().context("QEMU was ended")?.must_run()?;
        let status = Monitor::open(&self.qmp)?.ask("query-status")?;
        ensure!(status.contains("\"status\": \"running\""), "QEMU says of its guest: {status}");
        Ok(())
    }

    fn afterwards(&mut self, root: &Root, meter: &Meter) -> Result<Vec<String>> {
        self.must_run(root)?;
        Monitor::open(&self.qmp)?.ask("quit")?;
        let mut machine = self.machine.take().context("QEMU was ended")?;
        wait_for("QEMU to quit", || Ok(machine.ended()?.is_some()))?;
        ensure!(machine.ended()?.is_some_and(|status| status.success()), "QEMU ended badly: {}", machine.output()?);
        let checked = root.must_run(&["qemu-img", "check", DISK])?.stdout;
        ensure!(checked.contains("No errors were found"), "qemu-img check: {checked}");
        Ok(vec![
            format!("{} beats of the guest, none missing, every block read back as it was written", meter.requests()),
            "QEMU quit when asked; qemu-img check finds no errors in the disk".into(),
        ])
    }
}

/// Every beat is the next one. The guest goes on by itself, so nobody's pace counts here.
fn listen(meter: &Meter, serial: &Path) -> Result<()> {
    let mut file = std::fs::File::open(serial).context("no serial line")?;
    let (mut text, mut last, mut since) = (String::new(), None, Instant::now());
    while meter.goes_on() {
        std::thread::sleep(LOOK);
        file.read_to_string(&mut text).context("cannot read the serial line")?;
        while let Some((line, rest)) = text.split_once('\n') {
            let (line, rest) = (line.trim_end().to_owned(), rest.to_owned());
            text = rest;
            let Some(beat) = line.strip_prefix("beat ") else {
                ensure!(!line.contains("Kernel panic") && !line.starts_with("guest: "), "the guest says {line}");
                continue;
            };
            let fields: Vec<u64> = beat.split(' ').filter_map(|field| field.parse().ok()).collect();
            let &[number, gap, io, wrong] = fields.as_slice() else { bail!("the guest says {line}") };
            let right = wrong == 0 && last.is_none_or(|last| number == last + 1);
            let outcome = if right { Ok(()) } else { Err(anyhow::anyhow!("after beat {last:?} came {line}")) };
            meter.note(Duration::from_micros(gap.max(io)), outcome);
            (last, since) = (Some(number), Instant::now());
        }
        ensure!(since.elapsed() < PATIENCE, "the guest is silent since beat {last:?}");
    }
    Ok(())
}

/// QEMU's monitor (QMP): a greeting, then one answer in a line for each command, and events between.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn open(at: &Path) -> Result<Self> {
        let stream = UnixStream::connect(at).context("cannot connect to QEMU's monitor")?;
        stream.set_read_timeout(Some(PATIENCE)).context("cannot set a timeout")?;
        let mut monitor = Self(BufReader::new(stream));
        let mut greeting = String::new();
        monitor.0.read_line(&mut greeting).context("QEMU's monitor does not greet")?;
        monitor.ask("qmp_capabilities")?;
        Ok(monitor)
    }

    fn ask(&mut self, command: &str) -> Result<String> {
        let request = format!("{{\"execute\":\"{command}\"}}\n");
        self.0.get_mut().write_all(request.as_bytes()).context("cannot send to QEMU's monitor")?;
        loop {
            let mut line = String::new();
            ensure!(self.0.read_line(&mut line).context("QEMU's monitor is silent")? > 0, "QEMU's monitor closed");
            if line.contains("\"return\"") || line.contains("\"error\"") {
                ensure!(!line.contains("\"error\""), "{command}: {line}");
                return Ok(line);
            }
        }
    }
}
