//! A throw-away Debian root that is booted: systemd is process 1, services are units.
//!
//! `systemd-nspawn` boots the files of a [`Root`] in which systemd was installed.
//! What is run inside enters all its namespaces, so `systemctl` and `salve` see
//! one whole system. The network is the machine's.

use crate::debian::Root;
use crate::needs::{self, Need};
use crate::observe;
use crate::running::{PATIENCE, Running};
use crate::salve::Run;
use anyhow::{Context as _, Result, bail};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Fields are dropped in order: first everything that runs, then the files.
#[derive(Debug)]
pub struct Booted {
    nspawn: Running,
    leader: u32,
    root: Root,
}

impl Drop for Booted {
    /// Ends the system first: then systemd-nspawn ends by itself and clears up after itself.
    fn drop(&mut self) {
        let leader = i32::try_from(self.leader).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(leader) = leader {
            let _gone_already = rustix::process::kill_process(leader, rustix::process::Signal::KILL);
        }
        let since = Instant::now();
        while matches!(self.nspawn.ended(), Ok(None)) && since.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Booted {
    /// A system with these packages besides. `Ok(Err(why))` where this machine boots none.
    pub fn new(packages: &[&str]) -> Result<Result<Self, String>> {
        if let Err(error) = needs::ensure(&[Need::Booter]) {
            return Ok(Err(format!("{error:#}")));
        }
        let root = match Root::new()? {
            Ok(root) => root,
            Err(why) => return Ok(Err(why)),
        };
        let mut words = vec!["apt-get", "install", "-qq", "-y", "--no-install-recommends", "systemd-sysv", "dbus"];
        words.extend(packages);
        root.must_run(&words)?;
        // From here on packages start and restart their services, as on any machine.
        std::fs::remove_file(root.path("/usr/sbin/policy-rc.d")).context("no policy-rc.d")?;
        // In a process namespace of its own: what is booted ends with it, however this ends.
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "systemd-nspawn"]);
        command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        command.args(["--quiet", "--register=no", "--keep-unit", "--console=pipe", "--resolv-conf=off", "--boot"]);
        command.arg("--directory").arg(root.path("/"));
        let log = root.path("/var/log/throw-away-boot");
        let mut nspawn = Running::start(&mut command, log)?;
        let leader = nspawn.wait_for("systemd inside", |nspawn| {
            let pid = observe::only_child(observe::only_child(nspawn.pid())?)?;
            let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
            program.ends_with("systemd").then_some(pid)
        });
        let leader = match leader {
            Ok(leader) => leader,
            Err(error) => return Ok(Err(format!("systemd-nspawn boots no system here: {error:#}"))),
        };
        let booted = Self { nspawn, leader, root };
        booted.wait_until_up()?;
        Ok(Ok(booted))
    }

    /// `running`, or `degraded` where a unit has no place in a container.
    fn wait_until_up(&self) -> Result<()> {
        let since = Instant::now();
        loop {
            let state = self.run(&["systemctl", "is-system-running"])?.stdout;
            if matches!(state.trim(), "running" | "degraded") {
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                bail!("the system stays {:?}: {}", state.trim(), self.nspawn.output()?);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Where a path inside lies on the machine.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.path(inside)
    }

    /// The root before it was booted: for what only needs its files.
    pub fn root(&self) -> &Root {
        &self.root
    }

    pub fn run<A: AsRef<OsStr>>(&self, words: &[A]) -> Result<Run> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.leader.to_string(), "--all", "--"]);
        command.args(["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
        command.args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "HOME=/root"]).args(words);
        command.stdin(std::process::Stdio::null());
        Run::of(&mut command)
    }

    pub fn must_run<A: AsRef<OsStr>>(&self, words: &[A]) -> Result<Run> {
        self.run(words)?.expect_code(0)
    }
}
