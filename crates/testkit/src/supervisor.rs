//! Running a program under a supervisor that kills it at its k-th system call.
//!
//! Every thread of it is stopped at each call's entry; the call at which it is killed is
//! not made. Of calls that only wait, one after the other on one thread, the first is
//! counted: how many follow is chance.

use anyhow::{Context as _, Result, bail};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::process::{Command, Stdio};

/// `sched_yield`, `wait4`, `clock_nanosleep`, `nanosleep`, `clock_gettime`, `futex`, `poll`.
const WAITING: [u64; 7] = [24, 61, 230, 35, 228, 202, 7];
/// What `rax` holds at a call's entry (`-ENOSYS`).
const AT_ENTRY: u64 = (-38_i64).cast_unsigned();

/// How a supervised run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Killed at the call that was asked for.
    Killed,
    /// It came to its end before, with so many calls and this exit code.
    By { itself: Option<i32>, calls: u64 },
}

/// Runs `command` and kills it at its `at`-th counted call, from 1.
pub fn run(command: &Command, at: u64) -> Result<Ended> {
    // A thread of its own: only its children are waited for, not those of a test.
    std::thread::scope(|scope| {
        let ran = scope.spawn(|| supervise(command, at)).join();
        ran.unwrap_or_else(|_| bail!("the supervisor failed"))
    })
}

fn supervise(command: &Command, at: u64) -> Result<Ended> {
    // It stops itself, so that not one of its calls is missed.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = shell.spawn().context("cannot start a shell")?;
    let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id that is no process id")?);
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    match waitpid(pid, Some(flags | WaitPidFlag::WUNTRACED)).context("cannot wait for the shell")? {
        WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
        other => bail!("the shell did not stop: {other:?}"),
    }
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options).context("cannot trace the shell")?;
    kill(pid, Signal::SIGCONT).context("cannot continue the shell")?;
    let mut calls = 0;
    let mut waiting = BTreeSet::new();
    let mut executed = false;
    let mut killed = false;
    let mut code = None;
    loop {
        let status = match waitpid(Pid::from_raw(-1), Some(flags)) {
            Ok(status) => status,
            Err(nix::errno::Errno::ECHILD) => break,
            Err(nix::errno::Errno::EINTR) => continue,
            Err(errno) => return Err(errno).context("cannot wait for what is supervised"),
        };
        match status {
            WaitStatus::Exited(tid, status) if tid == pid => code = Some(status),
            WaitStatus::PtraceSyscall(tid) => {
                let counts = executed && !killed && enters_counted_call(tid, &mut waiting);
                calls += u64::from(counts);
                if counts && calls == at {
                    killed = true;
                    kill(pid, Signal::SIGKILL).context("cannot kill what is supervised")?;
                } else {
                    go_on(tid, None);
                }
            }
            WaitStatus::PtraceEvent(tid, _, event) => {
                executed |= event == nix::libc::PTRACE_EVENT_EXEC;
                go_on(tid, None);
            }
            WaitStatus::Stopped(tid, signal) => go_on(tid, Some(signal)),
            _ => {}
        }
    }
    Ok(if killed { Ended::Killed } else { Ended::By { itself: code, calls } })
}

fn enters_counted_call(tid: Pid, waiting: &mut BTreeSet<Pid>) -> bool {
    let Ok(registers) = ptrace::getregs(tid) else { return false };
    if registers.rax != AT_ENTRY {
        return false;
    }
    if WAITING.contains(&registers.orig_rax) {
        return waiting.insert(tid);
    }
    waiting.remove(&tid);
    true
}

/// To the next stop; one that is gone shows itself when it is waited for.
fn go_on(tid: Pid, signal: Option<Signal>) {
    let _gone = ptrace::syscall(tid, signal);
}
