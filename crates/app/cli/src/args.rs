//! What was typed. Nothing here is resolved: paths are not opened, packages
//! and processes not looked up; that is each command's first step.

use crate::exit;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The words of a verdict, as `derive`, `inspect` and `heal` explain them.
pub(crate) const VERDICTS: &str = "\
What the verdicts mean:
  unchanged  This update changes no code here. It does not say \"not affected\".
  safe       Every reference is proven, and none of the known signals of state
             that two files cannot show is present (code that runs once or at
             start-up, changed initialisers, acquire/release pairs that moved, a
             new callback or an address that may escape into old data, a layout
             or signature that shifted, constants of a dependency baked in at
             compile time that do not match the libraries mapped in the process).
             It is not a proof that the two programs mean the same.
  review     Every reference is proven, but such a signal is present, and a
             person has to judge it; --accept REASON-CODE says that one did.
  refused    No livepatch can be made that Salve could prove. Nothing accepts it.
";

/// Over the options that every command has.
const EVERYWHERE: &str = "Options of every command";

const ABOUT: &str = "Brings running programs up to date without restarting them";

const LONG_ABOUT: &str = "\
Brings running programs up to date without restarting them.

Salve derives a live patch from the old and the new binary as the distributor \
ships them, judges it, proves it, and applies it to the processes that run the \
old code; or it refuses and says why.";

#[derive(Debug, Parser)]
#[command(name = "salve", version, about = ABOUT, long_about = LONG_ABOUT, after_help = exit::help_table())]
#[command(propagate_version = true, disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Report as one JSON document on standard output (docs/guide/json.md)
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) json: bool,
    /// Say only what went wrong
    #[arg(long, short, global = true, conflicts_with = "verbose", help_heading = EVERYWHERE)]
    pub(crate) quiet: bool,
    /// Say more: evidence, noise, what was looked at and found current
    #[arg(long, short, global = true, help_heading = EVERYWHERE)]
    pub(crate) verbose: bool,
    /// Append events to FILE instead of the usual log (docs/events.md)
    #[arg(long, global = true, value_name = "FILE", help_heading = EVERYWHERE)]
    pub(crate) events: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Derive a patch file from an old and a new package, program or tree
    #[command(after_long_help = VERDICTS)]
    Derive(Derive),
    /// Show what a patch file would do, with the verdict and its evidence
    #[command(after_long_help = VERDICTS)]
    Inspect(Inspect),
    /// Patch every process whose code is older than the disk, the archive or a package file
    #[command(after_long_help = VERDICTS)]
    Heal(Heal),
    /// Apply a patch file to processes by hand
    Apply(Apply),
    /// Take livepatches out of processes again
    Revert(Revert),
    /// Show which processes run code that is older than the disk, and which carry livepatches
    Status(Status),
    /// Print gdb's commands to see through the livepatches of a process
    Debug(Debug),
    /// Start a program already patched, before the first instruction of its `main`
    Run(Run),
    /// Switch Salve off on this host: nothing is changed any more until `salve on`
    Off(Off),
    /// Switch Salve on again
    On,
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print the manual page, or write all of them into a directory
    Man(Man),
}

impl Command {
    /// The name in JSON and in events.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Derive(_) => "derive",
            Self::Inspect(_) => "inspect",
            Self::Heal(_) => "heal",
            Self::Apply(_) => "apply",
            Self::Revert(_) => "revert",
            Self::Status(_) => "status",
            Self::Debug(_) => "debug",
            Self::Run(_) => "run",
            Self::Off(_) => "off",
            Self::On => "on",
            Self::Completions(_) => "completions",
            Self::Man(_) => "man",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Derive {
    /// The old side: a .deb, an ELF file or an unpacked tree
    pub(crate) old: PathBuf,
    /// The new side, of the same kind
    pub(crate) new: PathBuf,
    /// Where to write the patch file [default: named after the pair, in the current directory]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The patch file
    pub(crate) file: PathBuf,
    /// Show this function's new code, and the old one beside it where --old names it
    #[arg(long, value_name = "FUNCTION")]
    pub(crate) asm: Option<String>,
    /// What the patch file was derived from, for --asm: the old package, program or tree
    #[arg(long, value_name = "OLD", requires = "asm")]
    pub(crate) old: Option<PathBuf>,
    /// The new side too, for --asm: then functions that the patch does not carry can be shown
    #[arg(long, value_name = "NEW", requires_all = ["asm", "old"])]
    pub(crate) new: Option<PathBuf>,
    /// Only this image, by its path in the package
    #[arg(long, value_name = "PATH")]
    pub(crate) image: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Heal {
    /// Take the archive's signed candidate of the installed packages (or those named), without installing
    #[arg(long, value_name = "PACKAGE", num_args = 0.., conflicts_with = "from")]
    pub(crate) candidate: Option<Vec<String>>,
    /// Take these package files, without installing
    #[arg(long, value_name = "NEW.deb", num_args = 1..)]
    pub(crate) from: Vec<PathBuf>,
    /// The packages that run now, where the package database does not know: they prove the direction
    #[arg(long, value_name = "OLD.deb", num_args = 1.., requires = "from")]
    pub(crate) was: Vec<PathBuf>,
    /// Only these processes (may be repeated)
    #[arg(long = "pid", short = 'p', value_name = "PID", value_parser = clap::value_parser!(u32).range(1..=0x3f_ffff))]
    pub(crate) pids: Vec<u32>,
    /// Show the plan and change nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// What lets a livepatch in, and how long it is tried.
#[derive(Clone, Debug, Args)]
pub(crate) struct Consent {
    /// Take a `review` for this reason (may be repeated; every reason has to be taken)
    #[arg(long, value_name = "REASON-CODE", value_parser = reason_code)]
    pub(crate) accept: Vec<String>,
    /// How long to try while threads are inside functions that are replaced, e.g. 10s or 2m;
    /// without a duration as long as it takes, a day at most
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_value = "30s", default_missing_value = "24h", value_parser = duration)]
    pub(crate) wait: Duration,
    /// Go on although threads sleep in calls that a stop may cut short, such as a write to a full pipe
    #[arg(long)]
    pub(crate) cut_transfers: bool,
}

/// Which processes a command by hand is about.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Targets {
    /// This process (may be repeated)
    #[arg(long = "pid", short = 'p', value_name = "PID", value_parser = clap::value_parser!(u32).range(1..=0x3f_ffff))]
    pub(crate) pids: Vec<u32>,
    /// Every process it fits
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The patch file
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Show what would be done and change nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

#[derive(Debug, Args)]
pub(crate) struct Revert {
    /// Only this livepatch: its id as `status` shows it (a unique beginning will do), or its patch file
    pub(crate) patch: Option<String>,
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Show what would be reverted and change nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
    /// How long to try while threads are inside the livepatch, e.g. 10s or 2m; without a
    /// duration as long as it takes, a day at most
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_value = "30s", default_missing_value = "24h", value_parser = duration)]
    pub(crate) wait: Duration,
    /// Go on although threads sleep in calls that a stop may cut short, such as a write to a full pipe
    #[arg(long)]
    pub(crate) cut_transfers: bool,
    /// Revert although Salve is switched off (`salve off`)
    #[arg(long)]
    pub(crate) while_off: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The patch file
    #[arg(long, value_name = "FILE")]
    pub(crate) patch: PathBuf,
    /// Take a `review` for this reason (may be repeated; every reason has to be taken)
    #[arg(long, value_name = "REASON-CODE", value_parser = reason_code)]
    pub(crate) accept: Vec<String>,
    /// Patch the programs that COMMAND starts as well, and those that they start
    #[arg(long)]
    pub(crate) children: bool,
    /// Start it although it cannot be patched, with a warning
    #[arg(long)]
    pub(crate) unpatched_ok: bool,
    /// The program, found as a shell finds it, and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Off {
    /// Why, for whoever finds it off
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) process: OneProcess,
    /// Write a page for a browser as well: what is exposed and healed now, and what the log of events tells
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pid", "named"])]
    pub(crate) html: Option<PathBuf>,
    /// Say it as needrestart does: what still needs a restart, in its batch format, or what needs none any more
    #[arg(long, value_name = "WHAT", num_args = 0..=1, default_missing_value = "batch", conflicts_with_all = ["pid", "named", "html"])]
    pub(crate) needrestart: Option<NeedRestart>,
}

/// One process, named alone or as `apply` and `revert` name theirs.
#[derive(Debug, Args)]
pub(crate) struct OneProcess {
    /// The process
    #[arg(value_parser = clap::value_parser!(u32).range(1..=0x3f_ffff))]
    pid: Option<u32>,
    /// The same, as `apply` and `revert` name one
    #[arg(long = "pid", short = 'p', value_name = "PID", conflicts_with = "pid", value_parser = clap::value_parser!(u32).range(1..=0x3f_ffff))]
    named: Option<u32>,
}

impl OneProcess {
    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid.or(self.named)
    }
}

/// The two halves of the answer to needrestart's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NeedRestart {
    /// Services and sessions that still run something other than the disk has (`NEEDRESTART-…` lines)
    Batch,
    /// Files whose old code is healed wherever it runs, for needrestart to pass over
    Healed,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").args(["pid", "named"]).required(true)))]
pub(crate) struct Debug {
    #[command(flatten)]
    pub(crate) process: OneProcess,
    /// Keep what gdb needs in this directory, for a core dump or after a revert
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

impl Debug {
    /// One is always named; 0 is no process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid().unwrap_or(0)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    pub(crate) shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write a page for the program and one for each command into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// `30s`, `2m`, `1m 30s`; not negative, at most a day.
fn duration(text: &str) -> Result<Duration, String> {
    const MAX: Duration = Duration::from_secs(24 * 60 * 60);
    let parsed: jiff::SignedDuration =
        text.parse().map_err(|_| String::from("not a duration; write it like 10s, 2m or 1m30s"))?;
    let duration = Duration::try_from(parsed).map_err(|_| String::from("a duration cannot be negative"))?;
    if duration > MAX { Err(String::from("a day is the longest wait")) } else { Ok(duration) }
}

/// The shape of a reason code: lower-case words joined by hyphens.
fn reason_code(text: &str) -> Result<String, String> {
    let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if text.len() <= 64 && text.split('-').all(word) {
        Ok(text.to_owned())
    } else {
        Err(String::from("not a reason code; they look like struct-layout, and stand in brackets beside the reason"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn candidate_takes_any_number_of_packages_and_options_after_them() {
        let cli = Cli::try_parse_from(["salve", "heal", "--candidate", "haproxy", "nginx", "--dry-run"]);
        let Ok(Cli { command: Command::Heal(heal), .. }) = cli else { panic!("not parsed: {cli:?}") };
        assert_eq!(heal.candidate.as_deref(), Some(&["haproxy".to_owned(), "nginx".to_owned()][..]));
        assert!(heal.dry_run);
        let cli = Cli::try_parse_from(["salve", "heal", "--candidate"]);
        let Ok(Cli { command: Command::Heal(heal), .. }) = cli else { panic!("not parsed: {cli:?}") };
        assert_eq!(heal.candidate.as_deref(), Some(&[][..]));
    }

    #[test]
    fn wait_alone_means_as_long_as_it_takes() {
        let wait = |words: &[&str]| match Cli::try_parse_from(words) {
            Ok(Cli { command: Command::Heal(heal), .. }) => heal.consent.wait,
            Ok(Cli { command: Command::Apply(apply), .. }) => apply.consent.wait,
            other => panic!("not parsed: {other:?}"),
        };
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(wait(&["salve", "heal"]), Duration::from_secs(30));
        assert_eq!(wait(&["salve", "heal", "--wait"]), day);
        assert_eq!(wait(&["salve", "heal", "--wait", "--dry-run"]), day);
        assert_eq!(wait(&["salve", "heal", "--wait=2m"]), Duration::from_secs(120));
        assert_eq!(wait(&["salve", "apply", "x.salve", "--all", "--wait", "5s"]), Duration::from_secs(5));
    }

    #[test]
    fn durations_are_words_a_person_writes() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("-3s").is_err());
        assert!(duration("30").is_err());
        assert!(duration("25h").is_err());
    }

    #[test]
    fn reason_codes_have_one_shape() {
        assert!(reason_code("struct-layout").is_ok());
        for wrong in ["", "Struct", "a--b", "-a", "a_b", "a b", "../x"] {
            assert!(reason_code(wrong).is_err(), "{wrong}");
        }
    }
}
