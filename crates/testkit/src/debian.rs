//! A throw-away Debian 12 root with an apt that works against the archive.
//!
//! Its processes live in mount and PID namespaces of their own, so that inside
//! it everything is as on a machine of its own: `/proc` shows only what runs
//! there, and `salve`, run inside, sees a whole system. The network is the
//! machine's. All of it ends with the value.

use crate::needs::{self, Need};
use crate::running::Running;
use crate::salve::{self, Run};
use crate::{observe, tree};
use anyhow::{Context as _, Result, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const SOURCES: &str = "\
deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian-security bookworm-security main
";
/// A base that is older is made again.
const BASE_MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes one command again and again.
pub type Caller = Box<dyn Fn() -> Command + Send>;

/// Fields are dropped in order: first everything that runs inside, then the files.
#[derive(Debug)]
pub struct Root {
    init: Running,
    /// The first process inside, by the machine's numbering.
    init_pid: u32,
    directory: TempDir,
}

impl Root {
    /// A fresh one, with the built `salve` inside and the archive's lists of this moment.
    ///
    /// `Ok(Err(why))` when the archive does not answer: then nothing can be said.
    pub fn new() -> Result<Result<Self, String>> {
        needs::ensure(&[Need::RootMaker])?;
        let base = match base() {
            Ok(base) => base,
            Err(error) => return Ok(Err(format!("{error:#}"))),
        };
        let directory = tree::scratch("debian")?;
        done(Command::new("tar").arg("-xf").arg(&base).arg("-C").arg(directory.path()))?;
        prepare(directory.path())?;
        let (init, init_pid) = boot(directory.path())?;
        let root = Self { init, init_pid, directory };
        // Ends non-zero when only one source does not answer: the lists decide.
        let update = root.run(&["apt-get", "update", "-qq"])?;
        let lists = root.run(&["apt-cache", "policy", "haproxy"])?;
        if lists.stdout.contains("Candidate: ") && !lists.stdout.contains("Candidate: (none)") {
            return Ok(Ok(root));
        }
        Ok(Err(format!("the archive's lists cannot be had: {}", update.stderr.trim())))
    }

    /// Where a path inside lies on the machine.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.directory.path().join(inside.trim_start_matches('/'))
    }

    /// Runs a command inside, to its end.
    pub fn run<A: AsRef<OsStr>>(&self, words: &[A]) -> Result<Run> {
        Run::of(&mut self.command(words))
    }

    /// Runs a command inside that has to succeed.
    pub fn must_run<A: AsRef<OsStr>>(&self, words: &[A]) -> Result<Run> {
        self.run(words)?.expect_code(0)
    }

    /// Starts a command inside that runs until dropped.
    pub fn start<A: AsRef<OsStr>>(&self, words: &[A], log: &str) -> Result<Running> {
        Running::start(&mut self.command(words), self.path(log))
    }

    /// The process that [`Self::start`] started inside, by the machine's numbering.
    pub fn pid_of(running: &mut Running) -> Result<u32> {
        // nsenter(1) forks, since a process cannot change its own PID namespace.
        running.wait_for("the process inside", |nsenter| observe::only_child(nsenter.pid()))
    }

    /// Makes commands inside without holding the root, for threads that outlive a borrow of it.
    pub fn caller<A: AsRef<OsStr>>(&self, words: &[A]) -> Caller {
        let made = self.command(words);
        let all: Vec<std::ffi::OsString> =
            std::iter::once(made.get_program()).chain(made.get_args()).map(OsStr::to_owned).collect();
        Box::new(move || {
            let mut all = all.iter();
            let mut command = Command::new(all.next().map_or(OsStr::new("false"), |program| program));
            command.args(all).stdin(std::process::Stdio::null());
            command
        })
    }

    /// The id on the machine of a process that a file inside names by its id there.
    pub fn outside(&self, inside: &str) -> Result<u32> {
        let wanted: u32 = inside.trim().parse().with_context(|| format!("{inside:?} is no process id"))?;
        let found = self.processes()?.into_iter().find(|(_, inside)| *inside == wanted);
        found.map(|(outside, _)| outside).with_context(|| format!("no process {wanted} inside"))
    }

    /// Signals what [`Self::start`] started inside.
    pub fn signal(running: &mut Running, signal: rustix::process::Signal) -> Result<()> {
        let pid = i32::try_from(Self::pid_of(running)?).context("a process id that is none")?;
        let process = rustix::process::Pid::from_raw(pid).context("process 0")?;
        rustix::process::kill_process(process, signal).with_context(|| format!("cannot signal {pid}"))
    }

    /// The same, and waits until it ended.
    pub fn signal_inside(mut running: Running, signal: rustix::process::Signal) -> Result<()> {
        let pid = Self::pid_of(&mut running)?;
        Self::signal(&mut running, signal)?;
        let since = std::time::Instant::now();
        while running.ended()?.is_none() {
            if since.elapsed() > crate::running::PATIENCE {
                bail!("process {pid} does not end when asked");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The same process's id as processes inside see it.
    pub fn pid_inside(pid: u32) -> Result<u32> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("cannot read its status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).context("no NSpid")?;
        line.split_whitespace().last().context("an empty NSpid")?.parse().context("NSpid is no number")
    }

    /// Installs a package file with what it depends on; its service is not started.
    pub fn install_file(&self, deb: &Path) -> Result<()> {
        let name = deb.file_name().context("a package without a name")?;
        let inside = Path::new("/var/tmp").join(name);
        std::fs::copy(deb, self.path(&inside.display().to_string())).context("cannot copy the package inside")?;
        let inside = inside.display().to_string();
        self.must_run(&["apt-get", "install", "-qq", "-y", "--no-install-recommends", &inside]).map(drop)
    }

    /// The installed version of a package.
    pub fn installed(&self, package: &str) -> Result<String> {
        Ok(self.must_run(&["dpkg-query", "-W", "-f", "${Version}", package])?.stdout)
    }

    /// Every process inside: its id on the machine and its id inside.
    pub fn processes(&self) -> Result<Vec<(u32, u32)>> {
        let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid"));
        let ours = namespace(self.init_pid).context("the root is not up")?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").context("no /proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Who is gone by now is none of them.
            if namespace(pid).is_ok_and(|link| link == ours)
                && let Ok(inside) = Self::pid_inside(pid)
            {
                found.push((pid, inside));
            }
        }
        Ok(found)
    }

    /// A command inside, to be started by the caller.
    pub fn command<A: AsRef<OsStr>>(&self, words: &[A]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init_pid.to_string(), "--mount", "--pid", "--root", "--wd", "--"]);
        command.args(["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
        command.args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "HOME=/"]).args(words);
        command.stdin(std::process::Stdio::null());
        command
    }

    pub fn still_up(&mut self) -> Result<()> {
        self.init.must_run()
    }
}

/// The files of a minimal system, kept between runs.
fn base() -> Result<PathBuf> {
    let file = tree::target().join("debian-12-base.tar");
    let fresh = |file: &Path| {
        let modified = std::fs::metadata(file).and_then(|m| m.modified()).ok()?;
        Some(modified.elapsed().unwrap_or_default() < BASE_MAX_AGE)
    };
    if fresh(&file) == Some(true) {
        return Ok(file);
    }
    std::fs::create_dir_all(tree::target()).context("no target directory")?;
    // Beside it first: a run that is interrupted leaves no half a base.
    let partial = tempfile::Builder::new()
        .prefix("debian-12-base-")
        .suffix(".tar")
        .tempfile_in(tree::target())
        .context("no room in the target directory")?
        .into_temp_path();
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=apt", "bookworm"]).arg(&*partial);
    command.args(SOURCES.lines());
    done(&mut command)?;
    partial.persist(&file).context("cannot keep the base")?;
    Ok(file)
}

fn prepare(root: &Path) -> Result<()> {
    std::fs::write(root.join("etc/apt/sources.list"), SOURCES).context("cannot write sources.list")?;
    let quiet = "Acquire::Languages \"none\";\nAcquire::Retries \"2\";\nAPT::Sandbox::User \"_apt\";\n";
    std::fs::write(root.join("etc/apt/apt.conf.d/90throw-away"), quiet).context("cannot configure apt")?;
    let policy = root.join("usr/sbin/policy-rc.d");
    std::fs::write(&policy, "#!/bin/sh\nexit 101\n").context("cannot write policy-rc.d")?;
    executable(&policy)?;
    if std::fs::exists("/etc/resolv.conf")? {
        std::fs::copy("/etc/resolv.conf", root.join("etc/resolv.conf")).context("cannot copy resolv.conf")?;
    }
    for program in ["salve", "salve-derive"] {
        let inside = root.join("usr/local/bin").join(program);
        std::fs::copy(salve::directory()?.join(program), &inside).with_context(|| format!("cannot place {program}"))?;
        executable(&inside)?;
    }
    Ok(())
}

fn executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", file.display()))
}

/// Namespaces of its own, with a first process that does nothing.
fn boot(root: &Path) -> Result<(Running, u32)> {
    // In a chroot the root is no mount point, and has no propagation to change.
    let script = "{ mount --make-rprivate / 2>/dev/null || ! mountpoint -q /; } && mount --bind \"$0\" \"$0\" && mount -t proc proc \"$0/proc\" \
                  && mount --rbind /dev \"$0/dev\" && mount --rbind /sys \"$0/sys\" \
                  && exec chroot \"$0\" sleep infinity";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "unchanged", "--pid", "--fork", "--kill-child", "sh", "-c", script])
        .arg(root);
    let mut init = Running::start(&mut command, root.join("var/log/throw-away-init"))?;
    let pid = init.wait_for("the first process inside", |unshare| {
        let pid = observe::only_child(unshare.pid())?;
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        program.ends_with("sleep").then_some(pid)
    })?;
    Ok((init, pid))
}

fn done(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "{} ended with {}: {}",
        command.get_program().display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )
}
