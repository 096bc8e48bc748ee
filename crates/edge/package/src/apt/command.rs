//! Running apt with a time limit, and telling its failures apart.

use super::AptError;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How apt is run.
#[derive(Clone, Debug)]
pub struct Apt {
    /// For a question about the lists that are there.
    pub query_limit: Duration,
    /// For a download.
    pub download_limit: Duration,
    /// A package.
    pub max_package_bytes: u64,
    /// Further configuration (`-o`), for roots other than the machine's own.
    /// It comes before what this crate insists on, and cannot undo it.
    pub options: Vec<String>,
}

impl Default for Apt {
    fn default() -> Self {
        Self {
            query_limit: Duration::from_secs(60),
            download_limit: Duration::from_secs(600),
            max_package_bytes: 2 << 30,
            options: Vec::new(),
        }
    }
}

/// A whole archive's records are some hundred megabytes; installed packages' are not.
const MAX_OUTPUT_BYTES: u64 = 256 << 20;
const MAX_MESSAGE_BYTES: u64 = 64 << 10;

/// What has to hold whatever the machine's configuration says: nothing is taken
/// without a signature that apt has verified.
const INSIST: [&str; 8] = [
    "APT::Get::AllowUnauthenticated=false",
    "Acquire::AllowInsecureRepositories=false",
    "Acquire::AllowWeakRepositories=false",
    "Acquire::AllowDowngradeToInsecureRepositories=false",
    "Acquire::Retries=1",
    "Acquire::http::Timeout=30",
    "Acquire::https::Timeout=30",
    "quiet=2",
];

impl Apt {
    /// Standard output of `apt-cache`.
    pub(super) fn cache(&self, args: &[&str]) -> Result<String, AptError> {
        self.run("apt-cache", args, Path::new("/"), self.query_limit)
    }

    /// Standard output of `apt-get`, run in `dir`.
    pub(super) fn get(&self, args: &[&str], dir: &Path) -> Result<String, AptError> {
        self.run("apt-get", args, dir, self.download_limit)
    }

    fn run(&self, program: &'static str, args: &[&str], dir: &Path, limit: Duration) -> Result<String, AptError> {
        let mut command = Command::new(program);
        for option in self.options.iter().map(String::as_str).chain(INSIST) {
            command.args(["-o", option]);
        }
        command.args(args).current_dir(dir).process_group(0);
        // Nothing of the caller's environment steers apt; a proxy is said in apt's configuration.
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => AptError::NotInstalled { program },
            _other => AptError::Run { program, source },
        };
        let mut child = command.spawn().map_err(failed)?;
        let output = child.stdout.take().map(|pipe| collect(pipe, MAX_OUTPUT_BYTES));
        let messages = child.stderr.take().map(|pipe| collect(pipe, MAX_MESSAGE_BYTES));
        let status = wait(&mut child, limit).map_err(failed)?.ok_or(AptError::TimedOut { program, limit })?;
        let (output, overrun) = join(output).map_err(failed)?;
        let (messages, _) = join(messages).map_err(failed)?;
        if !status.success() {
            return Err(explain(program, &String::from_utf8_lossy(&messages), status));
        }
        if overrun {
            return Err(AptError::TooMuchOutput { program, limit: MAX_OUTPUT_BYTES });
        }
        Ok(String::from_utf8_lossy(&output).into_owned())
    }
}

/// What was kept, and whether something was dropped.
type Reader = thread::JoinHandle<io::Result<(Vec<u8>, bool)>>;

/// Reads to the end, keeping no more than `limit`: a full pipe would stop the child.
fn collect(mut pipe: impl Read + Send + 'static, limit: u64) -> Reader {
    thread::spawn(move || {
        let mut kept = Vec::new();
        (&mut pipe).take(limit).read_to_end(&mut kept)?;
        let dropped = io::copy(&mut pipe, &mut io::sink())?;
        Ok((kept, dropped > 0))
    })
}

fn join(reader: Option<Reader>) -> io::Result<(Vec<u8>, bool)> {
    match reader.map(thread::JoinHandle::join) {
        None => Ok((Vec::new(), false)),
        Some(Ok(read)) => read,
        Some(Err(_)) => Err(io::Error::other("a thread that reads output panicked")),
    }
}

/// `None` when the time is up: then apt and the helpers in its group are ended.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begun.elapsed() >= limit {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                // It may have ended meanwhile; it is not reaped, so the number is still its own.
                let _ = kill_process_group(group, Signal::KILL);
            }
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = pause.saturating_mul(2).min(Duration::from_millis(50));
    }
}

/// apt says what failed in words only; the locale is fixed, so the words are too.
fn explain(program: &'static str, messages: &str, status: ExitStatus) -> AptError {
    let lines = |prefix: &str| -> Vec<&str> { messages.lines().filter_map(|line| line.strip_prefix(prefix)).collect() };
    let said = lines("E: ");
    let said = if said.is_empty() { lines("W: ") } else { said };
    let message = if said.is_empty() { format!("{status}") } else { said.join("; ") };
    let any = |words: &[&str]| words.iter().any(|word| messages.contains(word));
    if any(&["Could not get lock", "Unable to acquire", "is another process using it", "Unable to lock"]) {
        AptError::Locked { message }
    } else if any(&["could not be authenticated", "cannot be authenticated", "is not signed", "NO_PUBKEY"]) {
        AptError::Unauthenticated { message }
    } else if any(&["Could not resolve", "Could not connect", "Temporary failure", "Failed to fetch", "Connection"]) {
        AptError::Unreachable { message }
    } else {
        AptError::Failed { program, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    fn explained(messages: &str) -> AptError {
        explain("apt-get", messages, ExitStatus::from_raw(100 << 8))
    }

    #[test]
    fn apts_words_are_kept_and_told_apart() {
        let error =
            explained("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1 (apt)\nE: Unable");
        assert!(
            matches!(&error, AptError::Locked { message } if message.contains("process 1 (apt); Unable")),
            "{error}"
        );
        let error = explained("W: GPG\nE: Some packages could not be authenticated\n");
        assert!(matches!(error, AptError::Unauthenticated { .. }), "{error}");
        let error = explained("E: Failed to fetch http://x/y  Could not resolve 'x'\n");
        assert!(matches!(error, AptError::Unreachable { .. }), "{error}");
        let error = explained("");
        assert!(matches!(&error, AptError::Failed { message, .. } if message.contains("100")), "{error}");
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() -> io::Result<()> {
        let mut child = Command::new("sleep").arg("600").process_group(0).spawn()?;
        assert_eq!(wait(&mut child, Duration::from_millis(30))?, None);
        Ok(())
    }
}
