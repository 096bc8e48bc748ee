//! A process in a container: namespaces, a read-only root, no capabilities, another user,
//! no new privileges and a list of allowed calls, all at once.

use anyhow::{Context as _, Result, ensure};
use salve_testkit::behaviour::{Asked, Behaviour};
use salve_testkit::needs::{self, Need, on_path};
use salve_testkit::nginx::wait_for;
use salve_testkit::observe::Text;
use salve_testkit::salve::{Salve, exit};
use salve_testkit::{not_run, tree};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// What a small program needs to start, and a container's usual list allows as well.
const STARTS: [&str; 27] = [
    "access",
    "arch_prctl",
    "brk",
    "capget",
    "capset",
    "close",
    "execve",
    "exit",
    "exit_group",
    "fcntl",
    "fstat",
    "getrandom",
    "lseek",
    "mprotect",
    "munmap",
    "newfstatat",
    "openat",
    "prctl",
    "pread64",
    "prlimit64",
    "read",
    "restart_syscall",
    "rseq",
    "rt_sigreturn",
    "set_robust_list",
    "set_tid_address",
    "write",
];
/// What a container's usual list allows and Salve makes use of.
const USUAL: [&str; 14] = [
    "clone",
    "clone3",
    "futex",
    "ioctl",
    "memfd_create",
    "mmap",
    "mremap",
    "nanosleep",
    "poll",
    "recvmsg",
    "rt_sigaction",
    "rt_sigprocmask",
    "sendmsg",
    "socketpair",
];

fn configuration(allowed: &[&str]) -> Value {
    let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.0",
        "process": {
            "terminal": false,
            "user": { "uid": 1000, "gid": 1000 },
            "args": ["/bin/victim"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": { "bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": [] },
            "noNewPrivileges": true,
        },
        "root": { "path": "root", "readonly": true },
        "hostname": "contained",
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": {
            "namespaces": namespaces,
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{ "names": allowed, "action": "SCMP_ACT_ALLOW" }],
            },
        },
    })
}

/// A container of the victim, which is asked through its runtime.
fn contain(bundle: &Path, victim: &Path, allowed: &[&str]) -> Result<(Asked, u32)> {
    let root = bundle.join("root");
    for directory in ["bin", "dev", "proc", "lib64", "lib/x86_64-linux-gnu"] {
        std::fs::create_dir_all(root.join(directory))?;
    }
    std::fs::copy(victim, root.join("bin/victim"))?;
    for library in ["lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6"] {
        std::fs::copy(Path::new("/").join(library), root.join(library)).with_context(|| library.to_owned())?;
    }
    std::fs::write(bundle.join("config.json"), configuration(allowed).to_string())?;
    // Its groups are its own business; where the machine has the older kind it gets a view of
    // the newer one.
    let script = "mount --make-rprivate / && { umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; } \
                  && exec crun --root \"$1/state\" run --bundle \"$1\" --pid-file \"$1/pid\" \"$2\"";
    let name = format!("salve-{}", bundle.file_name().context("no name")?.to_string_lossy().replace('.', ""));
    let mut runtime = Command::new("unshare");
    runtime.args(["--mount", "sh", "-c", script, "sh"]).arg(bundle).arg(&name);
    let asked = Asked::start(&mut runtime)?;
    // The runtime writes it when it has started the victim, which may have said so before.
    let file = bundle.join("pid");
    let pid = || std::fs::read_to_string(&file).unwrap_or_default().trim().parse().ok();
    wait_for("the container's process id", || Ok(pid().is_some()))?;
    Ok((asked, pid().context("no process id")?))
}

#[test]
fn a_process_in_a_container_is_changed_by_hand_or_refused_for_what_its_filter_forbids() -> Result<()> {
    let what = "a process in a container of crun";
    if not_run::unless_root(what) {
        return Ok(());
    }
    let installed = needs::ensure(&[Need::Containers]);
    if !on_path("crun") {
        not_run::record(what, &format!("there is no crun: {installed:?}"));
        return Ok(());
    }
    let salve = Salve::built()?;
    let prepared = Behaviour::named("one_function")?.prepare(&salve)?;
    let file = prepared.derived.file.display().to_string();
    let apply = |pid: u32| {
        let pid = pid.to_string();
        salve.json(&["apply", "--wait", "30s", "--accept", "direction-unknown", "--pid", &pid, &file])
    };

    let bundle = tree::scratch("container")?;
    let (mut asked, pid) = contain(bundle.path(), &prepared.program(), &[&STARTS[..], &USUAL].concat())?;
    let inside = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    for line in ["Uid:\t1000\t", "NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"] {
        ensure!(inside.contains(line), "{line} is missing in {inside}");
    }
    let before = Text::of(pid)?;
    assert_eq!(asked.ask("3")?, "6");
    apply(pid)?.expect_code(exit::DONE)?;
    assert_eq!(asked.ask("3")?, "7");
    salve.json(&["revert", "--pid", &pid.to_string(), "--wait", "30s"])?.expect_code(exit::DONE)?;
    assert_eq!(asked.ask("3")?, "6");
    assert_eq!(Text::of(pid)?.changes_to(&before), Vec::<String>::new());
    asked.end()?;

    let bundle = tree::scratch("container")?;
    let (mut asked, pid) = contain(bundle.path(), &prepared.program(), &[&STARTS[..], &["mmap"]].concat())?;
    let before = Text::of(pid)?;
    let run = apply(pid)?.expect_code(exit::REFUSED)?;
    assert_eq!(run.only_outcome()?, ("not-applied".to_owned(), Some("seccomp-forbids".to_owned())), "{}", run.stdout);
    assert_eq!(Text::of(pid)?.differences_from(&before), Vec::<String>::new());
    assert_eq!(asked.ask("3")?, "6");
    asked.end()
}
