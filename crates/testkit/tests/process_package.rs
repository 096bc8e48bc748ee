//! Salve's own packages: installed, upgraded, removed and purged in a Debian 12
//! system, and what needrestart says of a service that was healed there.

use anyhow::{Context as _, Result, ensure};
use salve_testkit::booted::Booted;
use salve_testkit::deb::{self, Packages};
use salve_testkit::debian::Root;
use salve_testkit::salve::Run;
use salve_testkit::services::packages::{self, Versions};
use salve_testkit::{not_run, tree};
use std::path::Path;

/// A version before the one of the workspace.
fn before() -> String {
    format!("{}~before", deb::VERSION)
}

/// Places both packages inside; gives their paths there.
fn placed(root: &Root, Packages { salve, derive }: &Packages) -> Result<Vec<String>> {
    [salve, derive]
        .into_iter()
        .map(|file| {
            let name = file.file_name().context("a package without a name")?.to_string_lossy().into_owned();
            std::fs::copy(file, root.path("/var/tmp").join(&name)).context("cannot place a package")?;
            Ok(format!("/var/tmp/{name}"))
        })
        .collect()
}

fn install_words(files: &[String]) -> Vec<String> {
    let words = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "--allow-downgrades"];
    words.map(str::to_owned).into_iter().chain(files.iter().cloned()).collect()
}

/// The programs that the harness places would be found first.
fn without_the_harness_programs(root: &Root) -> Result<()> {
    ["salve", "salve-derive"].iter().try_for_each(|name| {
        std::fs::remove_file(root.path("/usr/local/bin").join(name)).context("no program of the harness")
    })
}

/// Every path of the system, but for what apt and dpkg keep for themselves.
fn paths(root: &Root) -> Result<Vec<String>> {
    let kept = ["/var/lib/dpkg/*", "/var/lib/apt/*", "/var/cache/*", "/var/log/*", "/var/tmp/*", "/tmp/*", "/run/*"];
    let mut words: Vec<&str> = vec!["find", "/", "-xdev"];
    for pattern in kept {
        words.extend(["-not", "-path", pattern]);
    }
    Ok(root.must_run(&words)?.stdout.lines().map(str::to_owned).collect())
}

fn differences(before: &[String], after: &[String]) -> Vec<String> {
    let one = |sign: &str, these: &[String], others: &[String]| -> Vec<String> {
        these.iter().filter(|path| !others.contains(path)).map(|path| format!("{sign} {path}")).collect()
    };
    [one("gone", before, after), one("left", after, before)].concat()
}

#[test]
fn the_packages_install_upgrade_and_leave_nothing_behind() -> Result<()> {
    let what = "Salve's packages in a throw-away Debian root";
    if not_run::unless_root(what) {
        return Ok(());
    }
    let root = match Root::new()? {
        Ok(root) => root,
        Err(why) => {
            not_run::record(what, &why);
            return Ok(());
        }
    };
    let directory = tree::scratch("packages")?;
    let older = placed(&root, &deb::build(&before(), directory.path())?)?;
    let newer = placed(&root, &deb::build(deb::VERSION, directory.path())?)?;
    without_the_harness_programs(&root)?;
    let at_first = paths(&root)?;

    root.must_run(&install_words(&older))?;
    let there = root.must_run(&["salve", "--version"])?.stdout;
    ensure!(there.trim() == format!("salve {}", deb::VERSION), "{there}");
    let of_it = root.must_run(&["dpkg", "--listfiles", "salve", "salve-derive"])?.stdout;
    for wanted in [
        "/usr/bin/salve",
        "/usr/lib/salve/salve-derive",
        "/usr/share/man/man1/salve.1.gz",
        "/usr/share/man/man1/salve-heal.1.gz",
        "/usr/share/bash-completion/completions/salve",
        "/usr/share/zsh/vendor-completions/_salve",
        "/usr/share/fish/vendor_completions.d/salve.fish",
        "/usr/share/doc/salve/docs/guide/daily-use.md",
        "/usr/share/doc/salve/copyright",
        "/etc/needrestart/conf.d/60-salve.conf",
    ] {
        ensure!(of_it.lines().any(|line| line == wanted), "{wanted} is not in it");
    }
    root.must_run(&[
        "sh",
        "-c",
        "gzip -t /usr/share/man/man1/salve*.gz && bash -n /usr/share/bash-completion/completions/salve",
    ])?;
    // The derivation finds its program and its sandbox where the package put them.
    let derived = root.run(&["salve", "derive", "/bin/true", "/bin/false", "-o", "/tmp/p"])?;
    ensure!(derived.code.is_some_and(|code| code != 1), "{} {}", derived.stdout, derived.stderr);
    // An operator's stop switch and the log of events, which an upgrade keeps.
    root.must_run(&["salve", "off", "--why", "a test"])?;

    root.must_run(&install_words(&newer))?;
    ensure!(
        root.installed("salve")? == deb::VERSION && root.installed("salve-derive")? == deb::VERSION,
        "not upgraded"
    );
    let altered = root.run(&["dpkg", "--verify", "salve", "salve-derive"])?;
    ensure!(altered.code == Some(0) && altered.stdout.is_empty(), "not as packed: {}", altered.stdout);
    ensure!(root.run(&["salve", "status"])?.stdout.contains("a test"), "the stop switch is gone after an upgrade");
    // The two go together: dpkg takes no older one beside a newer one.
    let half = root.run(&["dpkg", "--install", older.first().context("no package")?])?;
    ensure!(half.code != Some(0), "two versions that do not belong together: {}", half.stdout);
    ensure!(root.installed("salve")? == deb::VERSION, "the refused one is there");

    root.must_run(&["apt-get", "remove", "-qq", "-y", "salve", "salve-derive"])?;
    ensure!(root.path("/etc/salve/off").exists(), "the stop switch is the operator's until the purge");
    root.must_run(&["apt-get", "purge", "-qq", "-y", "salve", "salve-derive"])?;
    ensure!(!root.path("/var/log/salve").exists(), "the log stays after a purge");
    std::fs::remove_file(root.path("/tmp/p")).ok();
    let left = differences(&at_first, &paths(&root)?);
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

/// Services that needrestart, or Salve's answer in its format, would have restarted.
fn services(run: &Run) -> Vec<String> {
    run.stdout.lines().filter_map(|line| line.strip_prefix("NEEDRESTART-SVC: ")).map(str::to_owned).collect()
}

/// Everything in one system under systemd: a service runs code that is older than the disk, is healed,
/// and nobody asks for its restart any more; it is taken back, and both ask again.
#[test]
fn under_systemd_a_healed_service_needs_no_restart_until_it_is_reverted() -> Result<()> {
    let what = "Salve's packages under systemd (systemd-nspawn), with needrestart";
    if not_run::unless_root(what) {
        return Ok(());
    }
    let system = match Booted::new(&["needrestart"])? {
        Ok(system) => system,
        Err(why) => {
            not_run::record(what, &why);
            return Ok(());
        }
    };
    let directory = tree::scratch("packages")?;
    let older = placed(system.root(), &deb::build(&before(), directory.path())?)?;
    let newer = placed(system.root(), &deb::build(deb::VERSION, directory.path())?)?;
    without_the_harness_programs(system.root())?;
    system.must_run(&install_words(&older))?;

    let Versions { old, new, .. } = packages::versions(system.root(), "rsyslog")?;
    if old == new {
        not_run::record(what, "the archive has one version of rsyslog");
        return Ok(());
    }
    system.must_run(&install_words(&[format!("rsyslog={old}")]))?;
    let main = || Ok::<_, anyhow::Error>(system.must_run(&["systemctl", "show", "-P", "MainPID", "rsyslog"])?.stdout);
    let pid = main()?;
    // The update as an operator makes it who keeps services from being restarted.
    let policy = system.path("/usr/sbin/policy-rc.d");
    write_program(&policy, "#!/bin/sh\nexit 101\n")?;
    system.must_run(&install_words(&[format!("rsyslog={new}")]))?;
    std::fs::remove_file(&policy).context("no policy-rc.d")?;

    let salve = |words: &[&str]| system.run(&[&["salve"], words].concat());
    let of_salve = || Ok::<_, anyhow::Error>(services(&salve(&["status", "--needrestart"])?.expect_code(0)?));
    let of_needrestart = || Ok::<_, anyhow::Error>(services(&system.must_run(&["needrestart", "-b"])?));
    let asked = ["rsyslog.service".to_owned()];
    ensure!(of_needrestart()?.contains(&asked[0]), "needrestart does not see the update");
    assert_eq!(of_salve()?, asked);

    let healed = salve(&["heal"])?;
    if !healed.stdout.contains("patched") {
        // What the archive offers next is not ours to say.
        not_run::record(what, &format!("the archive's rsyslog is nothing to heal: {}", healed.stdout));
        return Ok(());
    }
    healed.expect_code(0)?;
    let status = salve(&["status"])?.expect_code(0)?.stdout;
    ensure!(status.starts_with("exposed: nothing"), "a healed process is shown as exposed: {status}");
    assert_eq!(of_salve()?, Vec::<String>::new());
    ensure!(!of_needrestart()?.contains(&asked[0]), "needrestart asks to restart what is healed");

    // An upgrade of Salve takes nothing out, and the new one knows what the old one did.
    system.must_run(&install_words(&newer))?;
    ensure!(salve(&["status"])?.stdout.contains("applied"), "the livepatch is gone after an upgrade of Salve");
    // Without the file needrestart would ask: it is the file that tells it.
    let told = system.path("/etc/needrestart/conf.d/60-salve.conf");
    let aside = system.path("/root/60-salve.conf");
    std::fs::rename(&told, &aside).context("no configuration for needrestart")?;
    ensure!(of_needrestart()?.contains(&asked[0]), "needrestart was silent for another reason");
    std::fs::rename(&aside, &told).context("cannot put it back")?;

    salve(&["revert", "--all"])?.expect_code(0)?;
    assert_eq!(of_salve()?, asked, "reverted, and nobody says so");
    ensure!(of_needrestart()?.contains(&asked[0]), "needrestart passes over what is reverted");
    // The service answers, and is the process it was.
    system.must_run(&["logger", "still here"])?;
    assert_eq!(main()?, pid);

    // Removed, the livepatches stay in, and needrestart judges by itself.
    salve(&["heal"])?.expect_code(0)?;
    system.must_run(&["apt-get", "purge", "-qq", "-y", "salve", "salve-derive"])?;
    ensure!(of_needrestart()?.contains(&asked[0]), "needrestart still passes over it");
    assert_eq!(main()?, pid, "the service did not outlive Salve's removal");
    Ok(())
}

fn write_program(file: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).context("cannot make it a program")
}
