//! `salve heal --candidate` and plain `salve heal` on a whole system: a
//! throw-away Debian root whose package database, apt and archive are real.

use anyhow::{Context as _, Result, ensure};
use salve_testkit::backend::Backend;
use salve_testkit::corpus::{self, Side};
use salve_testkit::debian::Root;
use salve_testkit::haproxy::{self, Behaviour};
use salve_testkit::meddler::Meddler;
use salve_testkit::observe::{self, Text};
use salve_testkit::running::Running;
use salve_testkit::salve::exit;
use salve_testkit::{events, not_run, tree};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

const TEST: &str = "heal --candidate in a throw-away Debian root";
const EVENTS: &str = "/var/tmp/events.jsonl";

/// The old HAProxy, really installed in a root of its own, and running there.
struct Installed {
    running: Running,
    pid: u32,
    pid_inside: String,
    probe: SocketAddr,
    old_version: String,
    _backend: Backend,
    root: Root,
}

impl Installed {
    fn start() -> Result<Option<Self>> {
        if not_run::unless_root(TEST) {
            return Ok(None);
        }
        let root = match Root::new()? {
            Ok(root) => root,
            Err(why) => {
                not_run::record(TEST, &why);
                return Ok(None);
            }
        };
        let pair = corpus::pair("haproxy")?;
        root.install_file(&pair.deb(Side::Old))?;
        assert_eq!(root.installed("haproxy")?, pair.old);
        let backend = Backend::start()?;
        let (service, probe) = (haproxy::free_port()?, haproxy::free_port()?);
        std::fs::write(root.path("/etc/haproxy.cfg"), haproxy::configuration(service, probe, backend.address()))?;
        let mut running = root.start(&["haproxy", "-db", "-f", "/etc/haproxy.cfg"], "/var/log/haproxy.log")?;
        running.wait_for("HAProxy to listen", |_| haproxy::listens(probe).then_some(()))?;
        let pid = Root::pid_of(&mut running)?;
        let pid_inside = Root::pid_inside(pid)?.to_string();
        let old_version = pair.old;
        Ok(Some(Self { running, pid, pid_inside, probe, old_version, _backend: backend, root }))
    }

    fn behaviour(&mut self) -> Result<Behaviour> {
        self.running.must_run()?;
        haproxy::behaviour_at(self.probe)
    }

    fn candidate(&self) -> Result<String> {
        let policy = self.root.must_run(&["apt-cache", "policy", "haproxy"])?.stdout;
        let line = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: ")).context("no candidate")?;
        Ok(line.to_owned())
    }

    fn newer_candidate(&self) -> Result<bool> {
        let words = ["dpkg", "--compare-versions", &self.candidate()?, "gt", &self.old_version];
        Ok(self.root.run(&words)?.code == Some(0))
    }

    /// `salve heal --candidate haproxy` inside, for this process.
    fn heal_candidate(&self) -> Result<salve_testkit::salve::Run> {
        self.root.run(&[
            "salve",
            "heal",
            "--candidate",
            "haproxy",
            "--pid",
            &self.pid_inside,
            "--json",
            "--events",
            EVENTS,
        ])
    }

    fn events(&self) -> Result<Vec<serde_json::Value>> {
        events::read(&self.root.path(EVENTS))
    }

    /// Nothing was changed: not the text, not the behaviour, not the package.
    fn is_untouched(&mut self, before: &Text) -> Result<()> {
        assert_eq!(Text::of(self.pid)?.differences_from(before), Vec::<String>::new());
        assert_eq!(self.root.installed("haproxy")?, self.old_version);
        assert!(events::named(&self.events()?, "applied").is_empty());
        let behaviour = self.behaviour()?;
        ensure!(behaviour.is_old(), "{behaviour}");
        Ok(())
    }
}

#[test]
fn a_really_installed_program_is_healed_from_the_archives_candidate_without_installing_it() -> Result<()> {
    let Some(mut installed) = Installed::start()? else { return Ok(()) };
    if !installed.newer_candidate()? {
        not_run::record(TEST, &format!("the archive's candidate is {}", installed.candidate()?));
        return Ok(());
    }
    let before = Text::of(installed.pid)?;
    let identity = observe::identity(installed.pid)?;
    installed.is_untouched(&before)?;

    installed.heal_candidate()?.expect_code(exit::DONE)?;
    let behaviour = installed.behaviour()?;
    ensure!(behaviour.is_new(), "{behaviour}");
    assert_eq!(observe::identity(installed.pid)?, identity);
    assert_eq!(installed.root.installed("haproxy")?, installed.old_version, "it was installed");
    let recorded = installed.events()?;
    assert_eq!(events::named(&recorded, "applied").len(), 1, "{recorded:?}");
    let falls_back = events::named(&recorded, "restart-falls-back");
    assert_eq!(falls_back.len(), 1, "that a restart brings the old code back is recorded: {recorded:?}");

    installed.root.must_run(&["salve", "revert", "--pid", &installed.pid_inside])?;
    assert_eq!(Text::of(installed.pid)?.changes_to(&before), Vec::<String>::new());
    let behaviour = installed.behaviour()?;
    ensure!(behaviour.is_old(), "{behaviour}");

    // The operator installs the package after all; the process runs on with the old code.
    installed.root.must_run(&["apt-get", "install", "-qq", "-y", "haproxy"])?;
    let behaviour = installed.behaviour()?;
    ensure!(behaviour.is_old(), "the upgrade restarted it: {behaviour}");
    installed.root.must_run(&["salve", "heal", "--pid", &installed.pid_inside, "--events", EVENTS])?;
    let behaviour = installed.behaviour()?;
    ensure!(behaviour.is_new(), "{behaviour}");
    assert_eq!(observe::identity(installed.pid)?, identity);
    installed.root.still_up()
}

#[test]
fn a_candidate_that_was_changed_on_its_way_is_refused() -> Result<()> {
    let Some(mut installed) = Installed::start()? else { return Ok(()) };
    let before = Text::of(installed.pid)?;
    let meddler =
        Meddler::start(|url| url.contains("/haproxy_") && Path::new(url).extension().is_some_and(|e| e == "deb"))?;
    let proxy = format!("Acquire::http::Proxy \"http://{}\";\n", meddler.address);
    std::fs::write(installed.root.path("/etc/apt/apt.conf.d/95proxy"), proxy)?;
    // Through the same proxy, everything that it leaves alone still verifies.
    installed.root.must_run(&["apt-get", "update", "-qq"])?;
    let run = installed.heal_candidate()?;
    ensure!(meddler.changed() > 0, "nothing went through the proxy: {} {}", run.stdout, run.stderr);
    ensure!(run.code == Some(exit::REFUSED) || run.code == Some(exit::FAILED), "{run:?}");
    installed.is_untouched(&before)
}

#[test]
fn a_candidate_from_a_repository_that_nobody_signed_is_refused() -> Result<()> {
    let Some(mut installed) = Installed::start()? else { return Ok(()) };
    let before = Text::of(installed.pid)?;
    let newest = format!("{}.999", installed.candidate()?);
    unsigned_repository(&installed.root, &newest)?;
    let line = "deb [allow-insecure=yes] file:/srv/unsigned ./\n";
    std::fs::write(installed.root.path("/etc/apt/sources.list.d/unsigned.list"), line)?;
    installed.root.run(&["apt-get", "update", "-qq"])?;
    assert_eq!(installed.candidate()?, newest, "apt itself does not offer it: the test would show nothing");
    let run = installed.heal_candidate()?;
    ensure!(run.code == Some(exit::REFUSED) || run.code == Some(exit::FAILED), "{run:?}");
    installed.is_untouched(&before)
}

/// A flat repository with one package in a version above all others, and no Release file.
fn unsigned_repository(root: &Root, version: &str) -> Result<()> {
    let work = tree::scratch("unsigned")?;
    let (tree, deb) = (work.path().join("tree"), work.path().join("haproxy.deb"));
    let run = |command: &mut Command| -> Result<String> {
        let output = command.output().context("cannot run dpkg-deb")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let pair = corpus::pair("haproxy")?;
    run(Command::new("dpkg-deb").arg("-R").arg(pair.deb(Side::New)).arg(&tree))?;
    let control = tree.join("DEBIAN/control");
    let text = std::fs::read_to_string(&control)?;
    let text = text.replace(&format!("\nVersion: {}\n", pair.new), &format!("\nVersion: {version}\n"));
    std::fs::write(&control, text)?;
    run(Command::new("dpkg-deb").args(["--root-owner-group", "-Zgzip", "-b"]).arg(&tree).arg(&deb))?;
    let fields = run(Command::new("dpkg-deb").arg("-f").arg(&deb))?;
    let sum = run(Command::new("sha256sum").arg(&deb))?;
    let sum = sum.split_whitespace().next().context("no sum")?;
    let size = std::fs::metadata(&deb)?.len();
    let directory = root.path("/srv/unsigned");
    std::fs::create_dir_all(&directory)?;
    std::fs::copy(&deb, directory.join("haproxy.deb"))?;
    let packages = format!("{}\nFilename: ./haproxy.deb\nSize: {size}\nSHA256: {sum}\n", fields.trim_end());
    std::fs::write(directory.join("Packages"), packages)?;
    Ok(())
}

/// What the archive has for what runs and is not installed, on hold and not, and with no lists at all.
#[test]
fn status_names_a_fix_that_apt_knows_of_and_that_is_not_installed() -> Result<()> {
    let Some(installed) = Installed::start()? else { return Ok(()) };
    let root = &installed.root;
    let policy = root.must_run(&["apt-cache", "policy", "haproxy"])?.stdout;
    let candidate = policy.lines().find_map(|line| line.strip_prefix("  Candidate: ")).context("apt says nothing")?;
    if candidate == installed.old_version {
        not_run::record(TEST, "the archive has no newer HAProxy than the corpus");
        return Ok(());
    }
    let told = || -> Result<serde_json::Value> {
        let status = root.run(&["salve", "status", "--json"])?.expect_code(exit::DONE)?.report()?;
        Ok(status.pointer("/result/not_installed").context("status does not say what is not installed")?.clone())
    };
    let haproxy = |told: &serde_json::Value| {
        let packages = told.get("packages").and_then(serde_json::Value::as_array);
        packages.into_iter().flatten().find(|one| one.get("package").is_some_and(|name| name == "haproxy")).cloned()
    };
    let one = haproxy(&told()?).context("haproxy is not named")?;
    let is = |one: &serde_json::Value, key: &str, value: serde_json::Value| one.get(key) == Some(&value);
    ensure!(is(&one, "candidate_version", candidate.into()) && is(&one, "held", false.into()), "{one}");
    ensure!(is(&one, "installed_version", installed.old_version.clone().into()), "{one}");
    let pids = one.get("processes").and_then(serde_json::Value::as_array).into_iter().flatten();
    let pids: Vec<String> = pids.filter_map(|one| Some(one.get("pid")?.to_string())).collect();
    ensure!(pids.contains(&installed.pid_inside), "{pids:?} has not {}", installed.pid_inside);

    root.must_run(&["apt-mark", "hold", "haproxy"])?;
    let one = haproxy(&told()?).context("haproxy is not named while it is on hold")?;
    ensure!(is(&one, "held", true.into()), "{one}");
    let people = root.run(&["salve", "status", "-v"])?.expect_code(exit::DONE)?.stdout;
    ensure!(people.contains(&format!("not installed: haproxy {} -> {candidate}", installed.old_version)), "{people}");

    root.must_run(&["sh", "-c", "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin"])?;
    let told = told()?;
    ensure!(haproxy(&told).is_none(), "without lists nothing is known: {told}");
    let why = told.get("unknown").and_then(serde_json::Value::as_str).unwrap_or_default();
    ensure!(why.contains("no package lists"), "{told}");
    Ok(())
}
