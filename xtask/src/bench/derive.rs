//! Time and memory of a derivation, beside reading and hashing the same files.

use super::instructions;
use super::table::{Table, Unit};
use anyhow::{Context as _, Result, bail};
use salve_testkit::corpus::{self, Side};
use salve_testkit::salve::Salve;
use salve_testkit::{tools, tree};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

pub(crate) fn measure(table: &mut Table, runs: u32, libssl: &[PathBuf], dir: Option<&Path>) -> Result<()> {
    let scratch = tree::scratch("bench")?;
    let measure = tools::compile("measure.c", scratch.path())?;
    noise(table, runs);
    let haproxy = corpus::pair("haproxy")?;
    let haproxy = Pair { name: "haproxy", old: haproxy.deb(Side::Old), new: haproxy.deb(Side::New) };
    haproxy.measure(table, runs, &measure, scratch.path(), "≤ 1000 ms")?;
    instructions::count(table, "haproxy", [&haproxy.old, &haproxy.new], "haproxy", scratch.path())?;
    match libssl_pair(libssl, scratch.path()) {
        Ok((old, new)) => {
            instructions::count(table, "libssl3", [&old, &new], "libcrypto.so.3", scratch.path())?;
            let pair = Pair { name: "libssl3", old, new };
            pair.measure(table, runs, &measure, scratch.path(), "≤ 2000 ms")?;
        }
        Err(error) => table.note(format!("libcrypto is not measured: {error:#}; name two packages with --libssl")),
    }
    for pair in dir.map(corpus::pairs_in).transpose()?.unwrap_or_default() {
        let Some((_, file)) = LARGE.iter().find(|(package, _)| pair.package == *package) else { continue };
        let name = format!("{} {}", pair.package, pair.new);
        instructions::count(table, &name, [&pair.deb(Side::Old), &pair.deb(Side::New)], file, scratch.path())?;
    }
    Ok(())
}

/// Packages whose analysis has a target of its own, and the image that takes longest.
const LARGE: [(&str, &str); 3] =
    [("libssl3", "libcrypto.so.3"), ("qemu-system-x86", "qemu-system-x86_64"), ("mariadb-server-core", "mariadbd")];

/// The same calculation every time: what differs is the machine.
fn noise(table: &mut Table, runs: u32) {
    let bytes = vec![0x5a_u8; 32 << 20];
    let took = (0..runs).map(|_| {
        let since = Instant::now();
        let digest = salve_testkit::tools::sha256(&bytes);
        std::hint::black_box(digest);
        since.elapsed().as_secs_f64() * 1e3
    });
    let took = took.collect();
    table.add("noise: SHA-256 of the same 32 MiB", Unit::Milliseconds, took);
}

struct Pair {
    name: &'static str,
    old: PathBuf,
    new: PathBuf,
}

impl Pair {
    fn measure(&self, table: &mut Table, runs: u32, tool: &Path, scratch: &Path, target: &'static str) -> Result<()> {
        let name = self.name;
        let (mut floor, mut took, mut peak, mut images) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let salve = Salve::built()?;
        for turn in 0..runs {
            let since = Instant::now();
            images = self.unpack_and_hash(&scratch.join(format!("{name}-{turn}")))?;
            floor.push(since.elapsed().as_secs_f64() * 1e3);
            let patch = scratch.join(format!("{name}-{turn}.salve"));
            let mut command = Command::new(tool);
            command
                .arg(salve.program())
                .arg("derive")
                .args([&self.old, &self.new])
                .arg("-o")
                .arg(&patch)
                .arg("--quiet");
            let output = command.output().context("cannot run the measuring tool")?;
            let (ms, mib, code) = parse(&String::from_utf8_lossy(&output.stderr))?;
            if code != 0 && code != 3 {
                table.note(format!("{name}: salve derive ended with {code}"));
                break;
            }
            took.push(ms);
            peak.push(mib);
        }
        let floor = table.add(format!("{name}: floor, dpkg-deb -x and SHA-256 of both"), Unit::Milliseconds, floor);
        let row = table.add(format!("{name}: salve derive, two packages"), Unit::Milliseconds, took);
        table.against(row, floor, Some(target));
        let mib = |bytes: u64| f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)) / 1024.0;
        let bound = table.add(
            format!("{name}: bound, 4 × the two largest images + 64 MiB"),
            Unit::Mebibytes,
            vec![4.0 * mib(images) + 64.0],
        );
        let row = table.add(format!("{name}: largest resident set while deriving"), Unit::Mebibytes, peak);
        table.against(row, bound, Some("≤ 1 × bound"));
        Ok(())
    }

    /// Gives the size of the largest ELF file of each side, added up.
    fn unpack_and_hash(&self, into: &Path) -> Result<u64> {
        let mut largest = 0;
        for (side, deb) in [("old", &self.old), ("new", &self.new)] {
            let tree = into.join(side);
            std::fs::create_dir_all(&tree).context("cannot make a directory")?;
            corpus::extract(deb, &tree)?;
            let mut here = 0;
            for file in corpus::files(&tree)? {
                let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
                std::hint::black_box(salve_testkit::tools::sha256(&bytes));
                if bytes.starts_with(b"\x7fELF") {
                    here = here.max(bytes.len() as u64);
                }
            }
            largest += here;
        }
        Ok(largest)
    }
}

/// `measured NANOSECONDS KIB CODE`, the tool's last line.
fn parse(stderr: &str) -> Result<(f64, f64, i32)> {
    let line = stderr.lines().rev().find_map(|line| line.strip_prefix("measured "));
    let mut words = line.context("the measuring tool said nothing")?.split(' ');
    let mut number = || words.next().and_then(|word| word.parse::<f64>().ok()).context("no number");
    let (ns, kib) = (number()?, number()?);
    let code = words.next().and_then(|word| word.parse().ok()).context("no exit code")?;
    Ok((ns / 1e6, kib / 1024.0, code))
}

/// libssl3 in the two versions that the target names.
fn libssl_pair(given: &[PathBuf], scratch: &Path) -> Result<(PathBuf, PathBuf)> {
    if let [old, new] = given {
        return Ok((old.clone(), new.clone()));
    }
    let versions = ["3.0.20-1~deb12u2", "3.0.22-1~deb12u2"];
    let mut found = Vec::new();
    for version in versions {
        let directory = scratch.join(format!("libssl3-{version}"));
        std::fs::create_dir_all(&directory).context("cannot make a directory")?;
        let output = Command::new("apt-get")
            .current_dir(&directory)
            .args(["download", "-qq", "-o", "APT::Sandbox::User=root", &format!("libssl3={version}")])
            .output()
            .context("cannot run apt-get")?;
        let Some(deb) = corpus::files(&directory)?.pop().filter(|_| output.status.success()) else {
            bail!("the archive has no libssl3 {version} (any more)");
        };
        found.push(deb);
    }
    match found.as_slice() {
        [old, new] => Ok((old.clone(), new.clone())),
        _ => bail!("not two packages"),
    }
}
