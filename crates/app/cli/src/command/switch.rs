//! `salve off` and `salve on`: the stop switch, by hand.

use super::Context;
use crate::args::Off;
use crate::console::{Console, Report};
use crate::event::Event;
use crate::exit::Exit;
use crate::host::{self, Actor};
use crate::problem::{Problem, one_line};
use crate::switch::State;
use serde::Serialize;
use std::io::{self, Write};
use std::time::Duration;

/// A change of a process takes milliseconds, and two seconds where a thread is in the way.
const QUIET: Duration = Duration::from_secs(15);

#[derive(Serialize)]
pub(crate) struct SwitchReport {
    /// As it is now.
    switch: State,
    /// This run changed it.
    changed: bool,
    /// No other run is changing a process any more; null where it was switched on.
    quiet: Option<bool>,
}

pub(crate) fn off(args: &Off, context: &mut Context) -> Result<SwitchReport, Problem> {
    let switch = context.switch.clone();
    let why = args.why.as_deref().map(one_line);
    let changed = switch.off(&said(&context.actor, why.as_deref()))?;
    if changed {
        context.log.record(&Event::SwitchedOff { why });
    }
    let quiet = switch.quiet(QUIET);
    if !quiet {
        Console::warn("another run of Salve is still changing a process; it ends with that one");
    }
    Ok(SwitchReport { switch: switch.state(), changed, quiet: Some(quiet) })
}

pub(crate) fn on(context: &mut Context) -> Result<SwitchReport, Problem> {
    let switch = context.switch.clone();
    let was = switch.on()?;
    let changed = was.is_some();
    if let Some(said) = was {
        context.log.record(&Event::SwitchedOn { said });
    }
    Ok(SwitchReport { switch: switch.state(), changed, quiet: None })
}

/// What whoever finds the file is told.
fn said(actor: &Actor, why: Option<&str>) -> String {
    let sudo = actor.sudo_user.as_deref().map(|user| format!(", sudo by {}", one_line(user))).unwrap_or_default();
    let login = actor.login_uid.map(|uid| format!(", logged in as {uid}")).unwrap_or_default();
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    format!("off since {} by uid {}{login}{sudo}{why}", host::wall_clock(), actor.uid)
}

impl Report for SwitchReport {
    fn exit(&self) -> Exit {
        match (self.quiet, &self.switch) {
            (Some(false), _) => Exit::Incomplete,
            // `salve on` took its own switch back, and another one is thrown.
            (None, State::Off { .. }) => Exit::Refused,
            (Some(true), _) | (None, State::On) => Exit::Done,
        }
    }

    fn human(&self, out: &mut dyn Write, _verbose: bool) -> io::Result<()> {
        match self.switch.words() {
            Some(words) if self.quiet.is_none() => {
                writeln!(out, "{words}")?;
                writeln!(out, "that is a second switch, from SALVE_OFF: it is not for `salve on` to take back")
            }
            Some(words) => {
                writeln!(out, "{words}")?;
                writeln!(out, "nothing is changed any more; processes keep what they carry (`salve status`)")
            }
            None if self.changed => writeln!(out, "Salve is switched on again"),
            None => writeln!(out, "Salve is on, and was"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_is_not_done_while_another_switch_is_thrown() {
        let off = || State::Off { path: "/vendor/off".into(), said: String::new() };
        let report = |switch, quiet| SwitchReport { switch, changed: true, quiet };
        assert_eq!(report(off(), None).exit(), Exit::Refused);
        assert_eq!(report(State::On, None).exit(), Exit::Done);
        assert_eq!(report(off(), Some(true)).exit(), Exit::Done);
        assert_eq!(report(off(), Some(false)).exit(), Exit::Incomplete);
        let mut text = Vec::new();
        report(off(), None).human(&mut text, false).expect("written");
        assert!(String::from_utf8_lossy(&text).contains("second switch"), "{text:?}");
    }
}
