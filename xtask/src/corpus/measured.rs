//! One command, bounded in time, with what it took.

use anyhow::{Context as _, Result, anyhow};
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a command printed, and what it used up.
#[derive(Debug)]
pub(crate) struct Measured {
    pub stdout: String,
    pub stderr: String,
    pub took_ms: f64,
    /// Largest resident set of it or of any process that it started.
    pub peak_kib: u64,
    pub code: i32,
}

/// Runs `command` under the measuring tool; `None` if it was not done within `limit`
/// and was killed (what it started ends with it).
pub(crate) fn run(tool: &Path, command: &Command, limit: Duration) -> Result<Option<Measured>> {
    let mut whole = Command::new(tool);
    whole.arg(command.get_program()).args(command.get_args());
    whole.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = whole.spawn().with_context(|| format!("cannot run {}", tool.display()))?;
    // Both pipes are emptied while it runs, or it would wait for a reader for ever.
    let reader = |pipe: Option<Box<dyn std::io::Read + Send>>| {
        thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut pipe) = pipe {
                let _ = pipe.read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = reader(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let stderr = reader(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let deadline = Instant::now() + limit;
    while child.try_wait().context("cannot wait for a run")?.is_none() {
        if Instant::now() >= deadline {
            child.kill().context("cannot kill a run")?;
            child.wait().context("cannot wait for a run")?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(2));
    }
    let text = |handle: thread::JoinHandle<String>| handle.join().map_err(|_| anyhow!("a reader panicked"));
    let (stdout, stderr) = (text(stdout)?, text(stderr)?);
    let (took_ms, peak_kib, code) = last_line(&stderr)?;
    Ok(Some(Measured { stdout, stderr, took_ms, peak_kib, code }))
}

/// `measured NANOSECONDS KIB CODE`, the tool's last line.
fn last_line(stderr: &str) -> Result<(f64, u64, i32)> {
    let line = stderr.lines().rev().find_map(|line| line.strip_prefix("measured "));
    let words: Vec<&str> = line.context("the measuring tool said nothing")?.split(' ').collect();
    let [ns, kib, code] = words.as_slice() else { return Err(anyhow!("the measuring tool said {words:?}")) };
    Ok((
        ns.parse::<f64>().context("no time")? / 1e6,
        kib.parse().context("no memory")?,
        code.parse().context("no code")?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use salve_testkit::{tools, tree};

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_run_that_does_not_end_is_killed_and_one_that_ends_says_how() -> Result<()> {
        let scratch = tree::scratch("measured")?;
        let tool = tools::compile("measure.c", scratch.path())?;
        assert!(run(&tool, &sh("exec sleep 60"), Duration::from_millis(50))?.is_none());
        let ended =
            run(&tool, &sh("echo out; echo err >&2; exit 3"), Duration::from_secs(60))?.context("was killed")?;
        assert_eq!((ended.code, ended.stdout.as_str()), (3, "out\n"));
        assert!(ended.stderr.starts_with("err\n") && ended.peak_kib > 0, "{ended:?}");
        Ok(())
    }
}
